"""The reports of drills on the page of an app: `ServedReports`. A file that is not a report is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.drills.page import page_of
from pipeline.drills.report import Report
from pipeline.drills.reports import Reports
from pipeline.errors import InputError

__all__ = ["ServedReports"]

_LISTED = 20


class ServedReports:
    """`http.documents.DrillReports`: the reports in the drills' directory of this machine.

    Args:
        directory: `drills.directory`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[Path, tuple[int, Report | None]] = {}  # by file: when it was written, and its report

    def listed(self, app: str) -> Sequence[dict[str, object]]:
        """The newest reports of an app, the newest first."""
        return [
            {
                "id": each.identity.id,
                "drill": each.identity.drill,
                "verdict": each.verdict,
                "began_ms": each.identity.began_ms,
                "ended_ms": each.identity.ended_ms,
                "target": each.fault.target,
                "hypothesis": each.hypothesis,
                "reason": each.identity.reason,
                "predicted_s": each.recovery.predicted_s,
                "measured_s": each.recovery.measured_s,
                "objective_s": each.recovery.objective_s,
                "tasks_touched": len(each.blast_radius.touched),
                "exactly_once": each.recovery_point.exactly_once,
                "deviations": list(each.deviations),
            }
            for each in self._reports(app)[:_LISTED]
        ]

    def page(self, app: str, report: str) -> str | None:
        """A report as HTML; None if the app has no such report."""
        return next((page_of(each) for each in self._reports(app) if each.identity.id == report), None)

    def _reports(self, app: str) -> list[Report]:
        """The reports of an app, the newest first. A file is read again only if it was written again."""
        known = self._read
        self._read = {}
        for path in Reports(self._directory).files():
            try:
                written = path.stat().st_mtime_ns
                before = known.get(path)
                self._read[path] = (
                    before if before is not None and before[0] == written else (written, _report(path))
                )
            except OSError:
                continue  # it was deleted meanwhile
        found = [each for _, each in self._read.values() if each is not None and each.identity.app == app]
        return sorted(found, key=lambda each: each.identity.began_ms, reverse=True)


def _report(path: Path) -> Report | None:
    try:
        return Reports.read(path)
    except InputError:
        return None
