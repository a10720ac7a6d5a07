"""Pages whose commands are run from the first to the last, on a Kafka of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pages import ROOT
from tests.support.walkthrough import read_page

PAGES = [
    "coming-from/faust",
    "tutorial/first-app",
    "tutorial/second-app",
    "how-to/backfill",
    "how-to/dead-letters",
    "how-to/dedup",
    "how-to/expiring-rows",
    "how-to/history",
    "how-to/loading",
    "how-to/look-into-the-past",
    "how-to/outbox",
    "how-to/windows",
    "how-to/sessions",
    "how-to/joins",
    "how-to/timers",
    "how-to/producing",
    "how-to/rescale",
    "how-to/rolling-upgrade",
    "how-to/second-environment",
    "how-to/topics",
]

# A page takes about a minute on a free machine.
pytestmark = [pytest.mark.kafka, pytest.mark.docs, pytest.mark.timeout(500)]


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_page_do_what_it_shows(name: str, own_kafka: str, tmp_path: Path) -> None:
    """A reader pastes them one after the other; one that fails ends the reader's trust."""
    read_page(ROOT / "docs" / f"{name}.md").run(tmp_path, own_kafka)
