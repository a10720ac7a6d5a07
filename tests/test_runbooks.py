"""The runbooks: one form, and one page for each drill, alert and error that names one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.drills.catalog import DRILLS
from tests.support.monitoring.rules import alerts
from tests.support.pages import ROOT, blocks, sections
from tests.support.rehearsals import REHEARSALS
from tests.support.rehearsals.running import places_of

RUNBOOKS = sorted((ROOT / "runbooks").glob("*.md"))
SECTIONS = ["Symptom", "Meaning", "What not to do", "Steps", "Verify", "Rehearse"]
# Runbooks whose commands no test runs, with the reason.
NOT_REHEARSED = {
    "commits-slow": "the delay of slow-network is too short for the event on the page; tests/drills runs the drill",
    "disk-full": "it needs root and a file system of its own; tests/drills/test_fill_disk.py runs the drill",
    "disk-lost": "its drill runs in tests/drills and in the rehearsal of task-not-live; the other steps are open",
    "disk-slow": "no machine has a slow disk on demand; the page says how to measure the reserve instead",
    "hanging-transaction": "its steps need Kafka's own tools, which the local broker lacks",
    "journal-tail-lost": "it exchanges the disk of a broker that it starts itself, which no rehearsal does yet",
    "kafka-unreachable": "its three drills take minutes; tests/drills and `make drills` run each of them",
}
WITHOUT_COMMANDS = {"disk-slow"}  # in the section Rehearse

each_runbook = pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)


def section(page: Path, heading: str) -> str:
    """The text of a section."""
    return sections(page.read_text(encoding="utf-8"))[heading]


@each_runbook
def test_a_runbook_has_the_sections_in_their_order(page: Path) -> None:
    """A reader under pressure looks for the next step at the same place in each."""
    text = page.read_text(encoding="utf-8")
    headings = [name for name in re.findall(r"^## (.+)$", text, re.MULTILINE) if name != "Prevent it"]
    assert text.startswith("# ")
    assert headings == SECTIONS


@each_runbook
def test_a_runbook_has_steps_and_warnings_that_can_be_followed(page: Path) -> None:
    """Numbered steps with commands to paste; and what makes it worse."""
    assert re.findall(r"^(\d)\. ", section(page, "Steps"), re.MULTILINE)[0] == "1" or re.search(
        r"^### 1\. ", section(page, "Steps"), re.MULTILINE
    )
    assert re.search(r"^- (\*\*)?Do not ", section(page, "What not to do"), re.MULTILINE)
    assert "```sh" in section(page, "Steps")


@each_runbook
def test_a_runbook_can_be_rehearsed(page: Path) -> None:
    """A page that was never followed is wrong when it is needed."""
    rehearsal = section(page, "Rehearse")
    assert ("```sh" in rehearsal) != (page.stem in WITHOUT_COMMANDS)


def test_each_runbook_is_rehearsed_or_has_a_reason() -> None:
    """A new page without a test of its commands is a decision, and not an oversight."""
    assert not REHEARSALS.keys() & NOT_REHEARSED.keys()
    assert REHEARSALS.keys() | NOT_REHEARSED.keys() == {page.stem for page in RUNBOOKS}


@pytest.mark.parametrize("name", sorted(REHEARSALS))
def test_a_rehearsal_runs_every_command_of_its_page(name: str) -> None:
    """A command that is added to a page is run, or the rehearsal says why it is not."""
    rehearsal = REHEARSALS[name]
    assert not rehearsal.places & rehearsal.left_out.keys()
    assert rehearsal.places | rehearsal.left_out.keys() == places_of(name)


def test_each_drill_rehearses_a_runbook() -> None:
    """An operator who has seen the failure once knows the page; and a drill without one has no repair."""
    named: set[str] = set()
    for page in RUNBOOKS:
        for block in blocks(page, "sh"):
            named.update(re.findall(r"^pipeline drill run ([a-z-]+)", block, re.MULTILINE))
    assert named == set(DRILLS)


def test_each_runbook_is_reached_from_an_error_an_alert_or_a_drill() -> None:
    """A reader does not find a page that nothing names."""
    errors = {
        name
        for source in (ROOT / "pipeline").rglob("*.py")
        for name in re.findall(r"runbooks/([a-z-]+)\.md|pipeline runbook ([a-z-]+)", source.read_text())
        for name in name
        if name
    }
    rehearsed = {page.stem for page in RUNBOOKS if "pipeline drill run " in section(page, "Rehearse")}
    reached = errors | {alert.runbook for alert in alerts()} | rehearsed
    assert {page.stem for page in RUNBOOKS} - reached == WITHOUT_COMMANDS - reached
