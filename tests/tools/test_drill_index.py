"""The page that lists the reports of `make drills`."""

from __future__ import annotations

from pathlib import Path

from pipeline.drills.reports import Reports
from tests.support.drills.reports import BEGAN_MS, broken_report, held_report
from tools.drill_index import write_index


def test_the_index_lists_the_runs_of_this_time_with_their_pages(tmp_path: Path) -> None:
    """A person who opens the artifact must see at once what deviated, and why."""
    Reports(tmp_path).save(held_report(began_ms=BEGAN_MS - 1))
    Reports(tmp_path).save(held_report())
    Reports(tmp_path / "must-fail").save(broken_report())
    page = write_index(tmp_path, BEGAN_MS).read_text()
    assert page.count("<tr>") == 4  # two heads, and one row in each table
    assert '<td class="held">held</td>' in page
    assert '<td class="deviated">deviated</td>' in page
    assert "10.6 s" in page
    links = [part.partition('"')[0] for part in page.split('href="')[1:]]
    assert len(links) == 2
    assert all((tmp_path / link).read_text().startswith("<!doctype html>") for link in links)


def test_an_index_without_reports_says_so(tmp_path: Path) -> None:
    """A suite whose first drill is refused has none."""
    assert "No drill was run." in write_index(tmp_path / "new", 0).read_text()
