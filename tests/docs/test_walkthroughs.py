"""Pages whose commands are run from the first to the last, on a Kafka of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.broker import LocalKafka
from tests.support.pages import ROOT
from tests.support.walkthrough import read_page

PAGES = [
    "tutorial/first-app",
    "tutorial/second-app",
    "how-to/backfill",
    "how-to/dead-letters",
    "how-to/outbox",
    "how-to/rescale",
    "how-to/rolling-upgrade",
    "how-to/second-environment",
]

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def own_kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka without topics: pages give theirs plain names, which other tests may use, too."""
    given = str(request.config.getoption("--kafka"))
    if given and given != "container":
        yield given
        return
    with LocalKafka(tmp_path_factory.mktemp("kafka")) as own:
        yield own.bootstrap_servers


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_page_do_what_it_shows(name: str, own_kafka: str, tmp_path: Path) -> None:
    """A reader pastes them one after the other; one that fails ends the reader's trust."""
    read_page(ROOT / "docs" / f"{name}.md").run(tmp_path, own_kafka)
