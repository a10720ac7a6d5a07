"""Reports on disk: they can be found, compared, validated and read as a page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from pipeline.cli.drill_reports import show_report
from pipeline.drills.page import page_of
from pipeline.drills.report import BlastRadius, Report, schema
from pipeline.drills.reports import Reports
from pipeline.errors import InputError
from tests.support.drills.reports import BEGAN_MS, broken_report, held_report


def test_a_saved_report_is_found_and_names_what_changed(tmp_path: Path) -> None:
    """A recovery that became slower since the last run is the reason to run drills again."""
    reports = Reports(tmp_path)
    first, path = reports.save(held_report())
    assert first.differences == []
    assert path == tmp_path / "reports" / f"kill-worker-{BEGAN_MS}.json"
    second, _ = reports.save(broken_report())
    changed = {each.name: (each.before, each.now) for each in second.differences}
    assert changed["verdict"] == ("held", "deviated")
    assert changed["recovery_s"] == ("10.6", "70")
    assert changed["effects"] == ("0", "1")
    assert reports.find() == reports.find("kill-worker") == second
    assert reports.find(first.identity.id) == first
    assert reports.find(str(path)) == first


def test_a_report_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message names the command that lists reports."""
    with pytest.raises(InputError, match="has no report") as error:
        Reports(tmp_path).find()
    assert "pipeline drill report list" in str(error.value)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match="is not a report of a drill"):
        Reports(tmp_path).find(str(tmp_path / "other.json"))
    with pytest.raises(InputError, match="cannot be read: No such file or directory"):
        Reports(tmp_path).find(str(tmp_path / "missing.json"))


def test_the_schema_describes_the_fields_of_a_report() -> None:
    """Programs that read reports generate their types from it."""
    described = schema()["$defs"]
    assert set(described["Report"]["properties"]) == set(Report.__struct_fields__)
    assert described["Report"]["properties"]["verdict"]["enum"] == [
        "aborted",
        "deviated",
        "held",
        "not restored",
    ]
    encoded = msgspec.json.encode(held_report())
    assert msgspec.json.decode(encoded, type=Report) == held_report()


class _Checker(HTMLParser):
    """Notes tags that are not closed, and everything that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href"} and value != "data:,":
                self.loaded.append(f"{tag} {name}={value}")
        if tag not in {"meta", "link", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


@pytest.mark.parametrize("report", [held_report(), broken_report()])
def test_the_page_is_complete_and_loads_nothing(report: Report) -> None:
    """It is sent by mail, and opened where there is no network."""
    page = page_of(report)
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.loaded == []
    assert "url(" not in page
    assert "<script" not in page
    assert "<b>why</b>" not in page  # texts of a report are not markup
    assert "&lt;b&gt;why&lt;/b&gt;" in page
    assert f">{report.verdict}</span>" in page
    assert report.hypothesis in page


def test_the_page_shows_the_stages_of_a_task_as_bars() -> None:
    """The timeline is the part that people look at first."""
    page = page_of(held_report())
    row = page.partition('<div class="task">main/0</div>')[2].partition('<div class="row')[0]
    stages = re.findall(r'<i class="(\w+)" style="left:([\d.]+)%;width:([\d.]+)%"', row)
    assert [name for name, _, _ in stages] == ["wait", "detect", "restore", "commit", "late"]
    ends = [float(left) + float(width) for _, left, width in stages]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(100 * 12 / 12.5, abs=0.1)  # of an axis that ends at 12.5 s
    assert "a → b" in page


@pytest.mark.parametrize(
    ("end_s", "shown"),
    [
        (1.9, ["0 s", "0.5 s", "1 s", "1.5 s", "2 s"]),
        (12.0, ["0 s", "2.5 s", "5 s", "7.5 s", "10 s", "12.5 s"]),
        (500.0, ["0 s", "100 s", "200 s", "300 s", "400 s", "500 s"]),
    ],
)
def test_the_axis_of_the_timeline_has_round_numbers(end_s: float, shown: list[str]) -> None:
    """A label that is rounded is not where its number is."""
    report = held_report()
    slow = msgspec.structs.replace(report.timeline[0], caught_up_s=end_s, detect_s=0.1, fence_s=0.2)
    slow = msgspec.structs.replace(slow, replay_s=0.3, acquired_s=0.3, first_commit_s=0.4)
    page = page_of(msgspec.structs.replace(report, timeline=[slow]))
    axis = page.partition('<div class="axis">')[2].partition("</div>")[0]
    assert re.findall(r">([^<]+)</span>", axis) == shown


def test_the_page_of_a_broken_run_names_the_effect() -> None:
    """A reader must see the loss before anything else."""
    page = page_of(broken_report())
    assert '<b class="bad">loss</b>' in page
    assert page.index("loss: task main/1, amounts offset 41") < page.index("Timeline")


def test_a_drill_that_affects_no_task_shows_no_recovery(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was predicted or measured, and zeros would look like a result."""
    report = held_report()
    shown = "Recovery</span>", "recovery: predicted"
    show_report(report)
    assert (shown[0] in page_of(report), shown[1] in capsys.readouterr().out) == (True, True)
    report = msgspec.structs.replace(
        report,
        blast_radius=BlastRadius(predicted=[], touched=[], unexpected=[]),
        recovery=msgspec.structs.replace(report.recovery, predicted_s=0.0, measured_s=None),
    )
    show_report(report)
    assert (shown[0] in page_of(report), shown[1] in capsys.readouterr().out) == (False, False)


def test_a_rate_below_one_is_not_shown_as_zero() -> None:
    """Few large commits are another steady state than none."""
    report = held_report()
    for rate, text in ((0.1, "0.1"), (0.0, "0"), (1234.6, "1,235")):
        steady = msgspec.structs.replace(report.steady_state, commits_per_s=rate)
        page = page_of(msgspec.structs.replace(report, steady_state=steady))
        assert f"<dd>{text} per second</dd>" in page
