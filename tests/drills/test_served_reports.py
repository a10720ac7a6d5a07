"""The reports of drills on the page: which are listed, and what a damaged file does."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pipeline.drills.reports import Reports, ServedReports
from tests.support.drills.reports import broken_report, held_report


def test_the_reports_of_an_app_are_listed_newest_first(tmp_path: Path) -> None:
    """Several apps may share a directory; a file that is not a report must not hide the others."""
    held = held_report()
    app = held.identity.app
    later = msgspec.structs.replace(
        broken_report(),
        identity=msgspec.structs.replace(held.identity, id="later", began_ms=held.identity.began_ms + 1),
    )
    other = msgspec.structs.replace(
        held, identity=msgspec.structs.replace(held.identity, id="other", app="other")
    )
    reports = Reports(tmp_path)
    for report in (held, later, other):
        _, path = reports.save(report)
    path.with_name("damaged.json").write_text("{")
    served = ServedReports(tmp_path)
    assert [each["id"] for each in served.listed(app)] == ["later", held.identity.id]
    first = served.listed(app)[0]
    assert (first["verdict"], first["measured_s"]) == (later.verdict, later.recovery.measured_s)
    assert first["measures_recovery"]
    page = served.page(app, "later")
    assert page is not None
    assert later.hypothesis in page
    assert served.page(app, "other") is None
    path.with_name("later.json").unlink()
    assert [each["id"] for each in served.listed(app)] == [held.identity.id]


def test_a_directory_without_reports_has_none(tmp_path: Path) -> None:
    """Most workers run where no drill was ever started."""
    assert ServedReports(tmp_path / "missing").listed("shop") == []
