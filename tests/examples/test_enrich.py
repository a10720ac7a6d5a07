"""The example of an async handler: the countries of addresses, from a service on the loopback address."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from examples.enrich import app as enrich
from examples.enrich.app import Answer, Located, Login, answers, app, located_logins, logins
from examples.enrich.provider import Provider
from pipeline.testing import Step, TestDriver, event_loop


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """A service that answers at once."""
    provider = Provider(answer_s=0)
    # The clock of the test must not reach the time-out of a call before a busy machine has answered its request.
    monkeypatch.setattr(event_loop, "_REAL_WAIT_S", 0.1)
    monkeypatch.setattr(enrich, "PROVIDER", provider.url)
    thread = threading.Thread(
        target=provider.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    yield provider
    provider.close()
    provider.server.shutdown()
    provider.server.server_close()
    thread.join(timeout=10)
    gc.collect()  # reports a connection that a request has left open in the test that made it


def test_an_address_is_requested_until_it_is_known(provider: Provider) -> None:
    """Its first request fails and is retried. Further logins use its row, also after the loss of the disk."""
    driver = TestDriver(app)
    driver.run()
    for user in ("ann", "bob"):
        driver.send(logins, "192.0.2.1", Login(user), timestamp_ms=1_000)
    driver.crash_at(Step.AFTER_COMMIT)
    driver.run()
    assert driver.crashed
    driver.restart(empty_disk=True)
    driver.send(logins, "192.0.2.1", Login("eve"), timestamp_ms=2_000)
    driver.run()
    assert [event.value for event in driver.outputs(located_logins)] == [
        Located("ann", "FR"),
        Located("bob", "FR"),
        Located("eve", "FR"),
    ]
    assert driver.table(answers) == {"192.0.2.1": Answer("FR", 1_000)}
    assert provider.requests == {"192.0.2.1": 2}

    driver.send(logins, "192.0.2.1", Login("ann"), timestamp_ms=3_000 + enrich.FRESH_MS)
    driver.run()
    assert provider.requests == {"192.0.2.1": 3}


def test_addresses_without_an_answer_become_dead_letters(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose request times out, and one that is refused. The others continue."""
    monkeypatch.setattr(enrich, "REQUEST_S", 0.5)
    driver = TestDriver(app)
    for address in ("198.51.100.1", "192.0.2.2", "203.0.113.1"):
        driver.send(logins, address, Login("ann"))
    driver.run()
    assert [event.value for event in driver.outputs(located_logins)] == [Located("ann", "IT")]
    assert [event.key for event in driver.dead_letters()] == [b"198.51.100.1", b"203.0.113.1"]
    assert provider.requests == {"198.51.100.1": 4, "192.0.2.2": 2, "203.0.113.1": 4}
    assert driver.table(answers).keys() == {"192.0.2.2"}
