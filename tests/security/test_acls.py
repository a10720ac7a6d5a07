"""The ACLs that `pipeline acls` prints, on a real broker with an authorizer, over TLS and SCRAM."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import pytest

from pipeline.core.permissions import Grant, Operation, ResourceKind, Role
from tests.support.secure.kafka import User
from tests.support.secure.site import APP, SecureSite, checkpoints_in
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.secured]

BAD = 666
_DESCRIBING = frozenset({Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER})
ROWS = [("AA", 12), ("UA", -3), ("B6", 47), ("AA", BAD), ("UA", 8), ("AA", 5)]


def folded(rows: list[tuple[str, int]], times: int = 1) -> list[tuple[int, int]]:
    """The outputs for these rows, sorted. A record that failed is handled last."""
    found: list[tuple[int, int]] = []
    for _ in range(times):
        totals: dict[str, tuple[int, int]] = {}
        for carrier, delay in rows:
            flights, minutes = totals.get(carrier, (0, 0))
            totals[carrier] = flights + 1, minutes + delay
            found.append(totals[carrier])
    return sorted(found)


GOOD = [row for row in ROWS if row[1] != BAD]
REPLAYED = [*GOOD, ("AA", BAD)]


def test_each_role_does_its_whole_job_with_its_printed_acls(site: SecureSite) -> None:
    """A security review grants exactly what is printed; anything missing would be found in production."""
    topic = f"{site.name}-flights"
    loader, replayer = site.user(Role.LOAD), site.user(Role.REPLAY)
    file = str(site.flights(ROWS))
    for _ in range(2):  # the second run finds that all is loaded
        done = site.run("produce", topic, file, "--key", "carrier", "--json", user=loader)
        assert done.returncode == 0, done.stderr
    store = site.directory / "checkpoints"
    store.mkdir()
    user = site.user(Role.WORKER, site.printed(Role.WORKER, store))
    worker = site.worker(user, variables=checkpoints_in(store))

    def story() -> str:
        assert worker.is_alive(), site.log.read_text()
        return site.log.read_text()

    wait_until(lambda: site.totals() == folded(GOOD), story)

    done = site.run("deadletters", "list", APP, user=replayer)
    assert "1 open" in done.stderr, done.stderr
    site.repair()
    done = site.run("deadletters", "replay", APP, user=replayer)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: site.totals() == folded(REPLAYED), story)

    reader = site.user(Role.STATUS)

    def lags() -> list[int]:
        done = site.run("status", site.name, "--json", user=reader)
        assert done.stdout, done.stderr
        return [task["lag"] for task in msgspec.json.decode(done.stdout)["tasks"]]

    wait_until(lambda: lags() == [0] * 6, story)
    done = site.run("deadletters", "purge", APP, "--yes", user=site.user(Role.PURGE))
    assert done.stdout == "1 dead letter deleted; 0 records open\n", done.stderr

    operator = site.user(Role.RESET)
    for group in ("main", "counting", "database"):
        done = site.run("reset", APP, "--group", group, "--yes", user=operator)
        assert done.returncode == 0, done.stderr
    wait_until(lambda: len(site.totals()) == 2 * len(ROWS), story)
    wait_until(lambda: max(site.journal_start("main", number) for number in (0, 1)) > 0, story)  # truncated
    wait_until(lambda: lags() == [0] * 6, story)
    wait_until(lambda: len(site.mirrored("main")) >= 2, story)
    assert site.stop(worker) == 0, site.log.read_text()
    assert site.totals() == sorted(folded(REPLAYED) + folded(ROWS))
    assert site.rows() == [("AA", 3, 683), ("B6", 1, 47), ("UA", 2, 5)]
    assert "denies" not in site.log.read_text()
    assert "AUTHORIZATION_FAILED" not in site.log.read_text()


class Missing(NamedTuple):
    """A permission that is left out."""

    operation: Operation
    kind: ResourceKind
    name: str

    def is_named_in(self, text: str) -> bool:
        """Whether an error names the permission, its resource and the next step."""
        words = {"transactionalId": "transactional id ", "group": "consumer group ", "topic": "topic "}
        return all(
            part in text
            for part in (
                f"needs {self.operation} on ",
                f"{words[self.kind.value]}{self.name}",
                "`pipeline acls ",
            )
        )


def without(grants: list[Grant], left_out: Missing) -> list[Grant]:
    """The grants without one operation. What it may have implied, DESCRIBE and DESCRIBE_CONFIGS, stays."""
    found = []
    for grant in grants:
        operations = grant.operations
        if (grant.kind, grant.name) == (left_out.kind, left_out.name):
            operations = tuple(each for each in operations if each is not left_out.operation)
            if not _DESCRIBING.isdisjoint(grant.operations) and _DESCRIBING.isdisjoint(operations):
                operations = (*operations, Operation.DESCRIBE)
            if left_out.operation is Operation.ALTER_CONFIGS:
                operations = (*operations, Operation.DESCRIBE_CONFIGS)
        if operations:
            found.append(grant._replace(operations=operations))
    assert found != grants
    return found


def of_worker(name: str) -> list[Missing]:
    """Permissions of a worker, each of another request. The one for a creation comes first: later it would exist."""
    topic, group, fence = ResourceKind.TOPIC, ResourceKind.GROUP, ResourceKind.TRANSACTIONAL_ID
    return [
        Missing(Operation.CREATE, topic, f"{name}.main.journal"),
        Missing(Operation.WRITE, fence, f"{name}.main."),
        Missing(Operation.READ, group, f"{name}.workers"),
        Missing(Operation.WRITE, topic, f"pipeline.workers.{name}"),
        Missing(Operation.READ, topic, f"{name}-flights"),
    ]


def lacking_worker(site: SecureSite, left_out: Missing) -> None:
    """Run a worker without the permission until it names it."""
    user = site.user(Role.WORKER, ())
    site.kafka.grant_only(user, without(site.printed(Role.WORKER), left_out))
    site.log.write_text("")
    worker = site.worker(user)
    wait_until(
        lambda: left_out.is_named_in(site.log.read_text()), lambda: f"{left_out}\n{site.log.read_text()}"
    )
    assert site.stop(worker) == 1, site.log.read_text()
    assert "Traceback" not in site.log.read_text()


def test_a_worker_names_the_acl_that_it_lacks(site: SecureSite) -> None:
    """The administrator of the cluster gets a request that can be granted, and no record is lost meanwhile."""
    user = site.user(Role.LOAD)
    done = site.run("produce", f"{site.name}-flights", str(site.flights(GOOD)), "--key", "carrier", user=user)
    assert done.returncode == 0, done.stderr
    for left_out in of_worker(site.name):
        lacking_worker(site, left_out)
    site.log.write_text("")
    worker = site.worker(site.user(Role.WORKER))
    # The workers before this one may have handled all records, so the totals do not show that it runs.
    wait_until(
        lambda: "task_live" in site.log.read_text() and len(site.totals()) >= len(GOOD), site.log.read_text
    )
    assert site.stop(worker) == 0, site.log.read_text()
    assert site.totals() == folded(GOOD)


def lacking(site: SecureSite, role: Role, left_out: Missing, *command: str) -> User:
    """Run the command without the permission, check the error, and grant all that is printed."""
    printed, user = site.printed(role), site.user(role, ())
    site.kafka.grant_only(user, without(printed, left_out))
    done = site.run(*command, user=user)
    assert done.returncode == 1, (left_out, done.stdout, done.stderr)
    assert left_out.is_named_in(done.stderr), (left_out, done.stderr)
    assert "Traceback" not in done.stderr
    assert "rdkafka" not in done.stderr
    site.kafka.grant_only(user, printed)
    return user


def test_a_command_names_the_acl_that_it_lacks(site: SecureSite) -> None:
    """A command that fails halfway must have changed nothing, and must say what to grant."""
    produce = ("produce", f"{site.name}-flights", str(site.flights(ROWS)), "--key", "carrier")
    replay, reset = ("deadletters", "replay", APP), ("reset", APP, "--group", "main", "--yes")
    topic = ResourceKind.TOPIC

    left_out = Missing(Operation.WRITE, topic, "pipeline.loads")
    done = site.run(*produce, user=lacking(site, Role.LOAD, left_out, *produce))
    assert done.returncode == 0, done.stderr
    worker = site.worker(site.user(Role.WORKER))
    wait_until(lambda: site.totals() == folded(GOOD), site.log.read_text)

    site.repair()
    left_out = Missing(Operation.WRITE, topic, f"{site.name}.main.replays")
    done = site.run(*replay, user=lacking(site, Role.REPLAY, left_out, *replay))
    assert done.stdout == "1 dead letter replayed\n", done.stderr
    wait_until(lambda: site.totals() == folded(REPLAYED), site.log.read_text)

    left_out = Missing(Operation.DESCRIBE, ResourceKind.GROUP, f"{site.name}.workers")
    lacking(site, Role.STATUS, left_out, "status", site.name)
    left_out = Missing(Operation.WRITE, ResourceKind.TRANSACTIONAL_ID, f"{site.name}.main.")
    lacking(site, Role.RESET, left_out, *reset)
    assert site.stop(worker) == 0, site.log.read_text()
    assert site.totals() == folded(REPLAYED)  # the reset has not begun
