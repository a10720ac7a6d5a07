"""Network drills on live workers behind a proxy: each holds, its fault ends, and outputs are exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.drills.network_faults import ProxyNote, ProxyPlace
from pipeline.drills.report import Report
from tests.conftest import KafkaUnderTest
from tests.support.drills.live import LiveApp

pytestmark = [pytest.mark.kafka, pytest.mark.kills, pytest.mark.timeout(400)]


@pytest.fixture
def live(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[LiveApp]:
    """Worker b is behind a proxy, worker a is not."""
    app = LiveApp(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path, proxied=("b",))
    yield app
    app.close()


def _note(live: LiveApp) -> ProxyNote:
    ((_, note),) = ProxyPlace.running(live.drills)
    return note


def _held(live: LiveApp, *arguments: str) -> Report:
    live.run("run", *arguments, "--worker", "b", "--yes")
    report = live.report()
    assert report.verdict == "held", report.deviations
    assert report.recovery_point.exactly_once
    assert not report.leftovers
    live.wait_for(lambda: not _note(live).fault)
    return report


def test_network_drills_hold_one_after_the_other(live: LiveApp) -> None:
    """A slow network must cost no task, and a cut one no record: the worker that was cut off is fenced."""
    slow = _held(live, "slow-network", "--seconds", "5")
    assert any("has delayed a request or an answer" in each.text for each in slow.fault.evidence)
    cut = _held(live, "cut-network", "--seconds", "5")
    assert any("has closed a connection" in each.text for each in cut.fault.evidence)
    assert set(cut.blast_radius.predicted) <= set(cut.blast_radius.touched)
    refused = live.run("run", "cut-network", "--worker", "a", "--yes", code=1)
    assert "refused (no-proxy)" in refused
    live.finish()


def test_a_fault_ends_after_the_driller_was_killed(live: LiveApp) -> None:
    """The proxy would end it at its deadline. An operator need not wait for that."""
    driller = live.start("run", "cut-network", "--worker", "b", "--yes")
    live.wait_for(lambda: _note(live).affected > 0 or driller.poll() is not None)
    driller.kill()
    said, _ = driller.communicate()
    assert _note(live).fault == "cut", said
    assert "ended" in live.run("undo")
    live.wait_for(lambda: not _note(live).fault)
    live.finish()
