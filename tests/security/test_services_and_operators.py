"""The role of services does its job with the ACLs that `pipeline acls` prints."""

from __future__ import annotations

import pytest

from pipeline import App, Producer, TransactionalProducer
from pipeline.config import Settings, load_settings
from pipeline.core.permissions import Role
from tests.security.test_acls import GOOD, ROWS, folded
from tests.support.secure.delays import Flight
from tests.support.secure.kafka import User
from tests.support.secure.site import SecureSite
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


def settings_of(site: SecureSite, user: User) -> Settings:
    """The settings of a service that connects as this user."""
    file = site.directory / "service.toml"
    file.write_text(site.kafka.settings(user))
    return load_settings(file=file, environ={})


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
