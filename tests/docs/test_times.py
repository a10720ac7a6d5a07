"""Outputs with the times of old events, which Kafka deletes by default when they are a week old."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from pipeline.app import declared_app
from tests.docs.test_examples import EXAMPLES, NAMES
from tests.support.pages import ROOT

KEPT = re.compile(r"^  retention\.ms: -1$", re.MULTILINE)
DECLARED = re.compile(r"^for topic in .* <<YAML\n(.*?)^YAML$", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in (ROOT / "docs").rglob("*.md")
    if re.search("event_time_ms=lambda|--timestamp at", text := page.read_text(encoding="utf-8"))
    and DECLARED.search(text)
)


def test_pages_with_event_times_are_found() -> None:
    """The test below would otherwise check nothing."""
    assert {Path(page).stem for page in PAGES} >= {"windows", "sessions", "joins", "timers", "second-app"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_event_times_keeps_its_records(page: str) -> None:
    """Kafka deletes old records 30 s after its start, and every five minutes: in the middle of a page."""
    for declared in DECLARED.findall((ROOT / page).read_text(encoding="utf-8")):
        assert KEPT.search(declared), declared


@pytest.mark.parametrize("name", NAMES)
def test_an_example_with_event_times_keeps_its_outputs(name: str) -> None:
    """Its inputs have the time at which a reader loads them."""
    topics = declared_app(importlib.import_module(f"examples.{name}.app").app).topics.values()
    if not any(topic.event_time_ms for topic in topics):
        return
    for topic in topics:
        if topic.event_time_ms is None:
            declared = EXAMPLES / name / "topics" / f"{topic.name}.yaml"
            assert KEPT.search(declared.read_text(encoding="utf-8")), declared
