"""The gallery of examples: each has a section whose commands are run from its topics to its output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.pages import ROOT, sections
from tests.support.walkthrough import read_page

EXAMPLES = ROOT / "examples"
GALLERY = EXAMPLES / "README.md"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/app.py"))


def test_the_gallery_has_every_example() -> None:
    """One that is not in it is not found."""
    text = GALLERY.read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\]\(#\1\) ", text, re.MULTILINE)
    assert sorted(listed) == NAMES
    assert [name for name in sections(text) if name in NAMES] == listed


def test_the_tests_that_the_gallery_names_exist() -> None:
    """A reader learns from them how to test an app like it."""
    named = re.findall(r"`(tests/[\w/]+\.py)`", GALLERY.read_text(encoding="utf-8"))
    assert len(named) >= len(NAMES)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_no_two_examples_share_a_topic() -> None:
    """A reader runs one after the other on the same broker."""
    topics = [path.name for path in EXAMPLES.glob("*/topics/*.yaml")]
    assert len(topics) == len(set(topics))


@pytest.mark.kafka
@pytest.mark.docs
@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_from_its_topics_to_its_output(name: str, own_kafka: str, tmp_path: Path) -> None:
    """The gallery is where a reader looks for a program to begin with."""
    for shared in ("examples", "topics"):
        (tmp_path / shared).symlink_to(ROOT / shared)
    read_page(GALLERY, "Before the first one", name).run(tmp_path, own_kafka)
