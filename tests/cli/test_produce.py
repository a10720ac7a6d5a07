"""`pipeline produce`, before it asks Kafka."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run


def test_what_standard_input_lacks_is_asked_for_at_once(pipeline: Run) -> None:
    """One refusal after the other costs a try each."""
    refused = " ".join(pipeline("produce", "flights", "-", code=2, stdin="a\n1\n").stderr.split())
    assert "--format csv or --format jsonl, and --name" in refused
    named = pipeline("produce", "flights", "-", "--name", "x", code=2, stdin="a\n1\n").stderr
    assert "--format csv" in named
    assert "--name, by" not in named


def test_a_file_whose_name_says_nothing_needs_a_format_only(pipeline: Run, tmp_path: Path) -> None:
    """Its name is the load's."""
    (tmp_path / "rows.dat").write_text("a\n1\n")
    refused = pipeline("produce", "flights", "rows.dat", code=2).stderr
    assert "--format csv" in refused
    assert "--name, by" not in refused
