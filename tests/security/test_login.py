"""TLS and SASL/SCRAM: a refused login is explained soon, and no secret is printed or logged."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.permissions import Role
from tests.support.secure.kafka import SecureKafka, User
from tests.support.secure.site import APP, SecureSite
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.secured]

WRONG = "wrong-password-of-a-test"


@pytest.fixture
def user(site: SecureSite) -> User:
    """A user with the permissions of a worker."""
    return site.user(Role.WORKER)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PIPELINE_KAFKA_SASL_PASSWORD": WRONG}, "invalid credentials"),
        ({"PIPELINE_KAFKA_SSL_CA_LOCATION": ""}, "certificate verify failed"),
    ],
)
def test_a_refused_login_is_a_settings_error(
    variables: dict[str, str], said: str, site: SecureSite, user: User
) -> None:
    """It does not heal by waiting, and must not look like an unreachable broker."""
    done = site.run("status", site.name, user=user, variables=variables)
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert "check security.protocol, sasl.* and ssl.*" in done.stderr
    assert WRONG not in done.stderr


def test_a_wrong_protocol_is_named(site: SecureSite, user: User) -> None:
    """The broker just closes the connection; only the client can guess why."""
    variables = {"PIPELINE_KAFKA_SECURITY_PROTOCOL": "SSL"}
    done = site.run("status", site.name, user=user, variables=variables)
    assert done.returncode == 3, done.stderr
    assert "security.protocol" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_in_the_settings_file_is_neither_printed_nor_logged(
    site: SecureSite, secure: SecureKafka, user: User
) -> None:
    """Logs are collected and kept for years, and outputs are pasted into tickets."""
    file = site.directory / "pipeline.toml"
    file.write_text(secure.settings(user))
    file.chmod(0o600)
    worker = site.worker(None, "--log-level", "debug")
    wait_until(lambda: site.log.read_text().count('"task_live"') == 6, site.log.read_text)
    assert site.stop(worker) == 0, site.log.read_text()
    outputs = [site.log.read_text()]
    for command in (("doctor", APP, "--json"), ("status", site.name, "--json"), ("acls", APP, "--json")):
        done = site.run(*command)
        outputs.append(done.stdout + done.stderr)
    file.write_text(secure.settings(User(user.name, WRONG)))
    outputs.append(site.run("status", site.name).stderr)
    assert "invalid credentials" in outputs[-1]
    assert [text for text in outputs if user.password in text or WRONG in text] == []
    assert not _holds(site.directory / ".pipeline", user.password)


def _holds(directory: Path, secret: str) -> bool:
    """Whether any file below the directory contains the secret."""
    return any(secret.encode() in path.read_bytes() for path in directory.rglob("*") if path.is_file())
