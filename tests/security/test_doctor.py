"""`pipeline doctor` on a real broker with an authorizer."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from pipeline.core.permissions import Operation, ResourceKind, Role
from tests.security.test_acls import GOOD, Missing, without
from tests.support.secure.kafka import User
from tests.support.secure.site import APP, SecureSite

pytestmark = [pytest.mark.kafka, pytest.mark.secured]


def checks(site: SecureSite, user: User, code: int) -> dict[str, list[tuple[str, str]]]:
    """The findings by check: (level, message)."""
    done = site.run("doctor", APP, "--json", user=user)
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, list[tuple[str, str]]] = {}
    for each in msgspec.json.decode(done.stdout)["checks"]:
        found.setdefault(each["check"], []).append((each["level"], each["message"]))
    return found


def test_a_worker_with_its_printed_acls_has_no_problem(site: SecureSite) -> None:
    """The command must be usable with the rights of a worker, and not raise false alarms."""
    loaded = site.run(
        *("produce", f"{site.name}-flights", str(site.flights(GOOD)), "--key", "carrier"),
        user=site.user(Role.LOAD),
    )
    assert loaded.returncode == 0, loaded.stderr
    found = checks(site, site.user(Role.WORKER), 0)
    assert found["broker"][0] == ("ok", f"1 broker of Kafka 4.0 or newer, cluster {site.cluster_id()}")
    assert found["permissions"][-1][0] == "ok"
    assert [level for level, _ in found["permissions"][:-1]] == ["warning"]  # Write on the flights, a guess
    assert found["partitioner"][0][0] == "ok"
    assert found["topics"][0][0] == "ok"
    assert found["database"][0][0] == "ok"


def test_missing_permissions_are_all_named_at_once(site: SecureSite) -> None:
    """An administrator should have to grant once, not after each failed start."""
    grants = site.printed(Role.WORKER)
    left_out = [
        Missing(Operation.WRITE, ResourceKind.TRANSACTIONAL_ID, f"{site.name}.main."),
        Missing(Operation.READ, ResourceKind.GROUP, f"{site.name}.workers"),
        Missing(Operation.CREATE, ResourceKind.TOPIC, f"{site.name}.main.journal"),
    ]
    guessed = Missing(Operation.WRITE, ResourceKind.TOPIC, f"{site.name}-totals")
    for each in (*left_out, guessed):
        grants = without(grants, each)
    found = checks(site, site.user(Role.WORKER, grants), 1)
    problems = [text for level, text in found["permissions"] if level == "problem"]
    assert len(problems) == len(left_out)
    for each in left_out:
        assert any(each.operation in text and each.name in text for text in problems), problems
    warnings = [text for level, text in found["permissions"] if level == "warning"]
    assert any(f"Write on topic {guessed.name}" in text for text in warnings), warnings


def test_a_low_limit_on_open_files_is_a_problem(site: SecureSite) -> None:
    """A worker would refuse to start when it may have to run every task."""
    user = site.user(Role.WORKER)
    command = f"ulimit -n 150; exec {sys.executable} -m pipeline doctor {APP} --json"
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=site.directory,
        env=site.environment(user),
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    (found,) = [each for each in msgspec.json.decode(done.stdout)["checks"] if each["check"] == "open files"]
    assert found["level"] == "problem"
    assert "ulimit -n" in found["hint"]
