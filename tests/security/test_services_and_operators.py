"""The roles of services, migrations and drills: each does its job with the ACLs that `pipeline acls` prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline import App, Producer, TransactionalProducer
from pipeline.cli.drill import ABORTED
from pipeline.config import Settings, load_settings
from pipeline.core.permissions import Role
from tests.security.test_acls import GOOD, ROWS, folded
from tests.support.secure.delays import Flight
from tests.support.secure.kafka import SecureKafka, User
from tests.support.secure.site import SecureSite
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

_SLOW_S = 120.0


@pytest.fixture
def successor(secure: SecureKafka, site: SecureSite, tmp_path: Path) -> Iterator[SecureSite]:
    """The app that replaces the one of `site`."""
    directory = tmp_path / "new"
    directory.mkdir()
    made = SecureSite(secure, f"{site.name}-2", directory)
    yield made
    made.close()


def settings_of(site: SecureSite, user: User) -> Settings:
    """The settings of a service that connects as this user."""
    file = site.directory / "service.toml"
    file.write_text(site.kafka.settings(user))
    return load_settings(file=file, environ={})


def process_flights(site: SecureSite) -> None:
    """Let a worker of the super user process some flights, and stop it."""
    as_super_user = {"PIPELINE_KAFKA": site.kafka.plain}
    file = str(site.flights(GOOD))
    done = site.run("produce", f"{site.name}-flights", file, "--key", "carrier", variables=as_super_user)
    assert done.returncode == 0, done.stderr
    worker = site.worker(None, variables=as_super_user)
    wait_until(lambda: site.totals() == folded(GOOD), site.log.read_text)
    assert site.stop(worker) == 0, site.log.read_text()


@pytest.mark.secured
def test_a_service_produces_with_its_printed_acls(site: SecureSite) -> None:
    """A service that may write to more than its topics could forge the records of the pipeline."""
    settings = settings_of(site, site.user(Role.PRODUCER))
    flights = App(site.name).topic(f"{site.name}-flights", key=str, value=Flight)
    with Producer(settings) as producer:
        for number, (carrier, delay) in enumerate(ROWS[:3]):
            sent = producer.send(flights, carrier, Flight(carrier, delay), id=f"flight-{number}")
            assert sent.result().offset >= 0
    with TransactionalProducer(f"till-{site.name}", settings) as till, till.transaction() as transaction:
        for number, (carrier, delay) in enumerate(ROWS[4:], 4):
            transaction.send(flights, carrier, Flight(carrier, delay), id=f"flight-{number}")
    worker = site.worker(site.user(Role.WORKER))
    wait_until(lambda: site.totals() == folded(GOOD), site.log.read_text)
    assert site.stop(worker) == 0, site.log.read_text()


@pytest.mark.secured
def test_a_migration_runs_with_its_printed_acls(site: SecureSite, successor: SecureSite) -> None:
    """It writes to the journals of two apps, and a permission that is missing halfway would leave both unusable."""
    process_flights(site)
    grants = [*site.printed(Role.MIGRATE_FROM), *successor.printed(Role.MIGRATE_TO)]
    user = site.user(Role.MIGRATE_TO, dict.fromkeys(grants))
    names = (site.name, successor.name)
    topic = ("--topic", f"{site.name}-flights={successor.name}-flights")

    def migrate(command: str, *words: str) -> str:
        done = site.run("migrate", command, *words, user=user)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    migrate("plan", *names, *topic)
    migrate("run", *names, *topic)
    migrate("run", *names, *topic)  # finds that all is copied
    worker = successor.worker(successor.user(Role.WORKER))
    wait_until(lambda: successor.totals() == folded(GOOD), successor.log.read_text)

    def is_retired() -> bool:
        done = site.run("migrate", "switch", *names, *topic, "--retire", user=user)
        assert "denies" not in done.stdout + done.stderr, done.stdout + done.stderr
        return done.returncode == 0

    wait_until(is_retired, successor.log.read_text, _SLOW_S)
    migrate("revive", site.name)
    assert successor.stop(worker) == 0, successor.log.read_text()


@pytest.mark.acls
@pytest.mark.timeout(300)
def test_a_drill_runs_with_its_printed_acls(site: SecureSite) -> None:
    """An operator who drills an app needs to read its journals, and nothing that could change them."""
    process_flights(site)
    (site.directory / "pipeline.toml").write_text(
        f'[drills]\nallow = ["{site.name}"]\nsteady_s = 1\n[worker]\njoin_delay_s = 0.5\n'
    )
    workers = site.user(Role.WORKER)
    first = site.worker(workers, "--state-dir", "one")
    second = site.worker(workers, "--worker-id", "w2", "--state-dir", "two", log=site.directory / "w2.log")
    reader = site.user(Role.STATUS)

    def live() -> bool:
        done = site.run("status", site.name, "--json", user=reader)
        tasks = msgspec.json.decode(done.stdout)["tasks"] if done.stdout else []
        return {task["worker"] for task in tasks if task["phase"] == "live"} == {"w1", "w2"} and all(
            task["phase"] == "live" for task in tasks
        )

    wait_until(live, site.log.read_text, _SLOW_S)
    operator = site.user(Role.DRILL)
    done = site.run("drill", "plan", "kill-worker", user=operator)
    assert done.returncode == 0, done.stderr
    # The abort comes before the others could take the tasks. All requests to Kafka are made by then.
    freeze = ("freeze-worker", "--worker", "w2", "--abort-if", "elapsed_s > 3", "--yes", "--json")
    done = site.run("drill", "run", *freeze, user=operator)
    assert done.returncode == ABORTED, f"{done.stdout}{done.stderr}\n{site.log.read_text()}"
    report = msgspec.json.decode(done.stdout)
    assert not report["leftovers"]
    assert "denies" not in done.stdout + done.stderr
    assert site.stop(second) == 0
    assert site.stop(first) == 0
