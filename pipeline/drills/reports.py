"""The reports of an app's drills in the drills' directory, one JSON file for each run: `Reports`.

`ServedReports` shows them on the page of an app. It leaves out a file that is not a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from pipeline.directories import is_present, make_private
from pipeline.drills.directory import require_writable, usable
from pipeline.drills.page import page_of
from pipeline.drills.report import Difference, Report
from pipeline.errors import InputError

__all__ = ["Reports", "ServedReports", "compare"]

_LISTED = 20


class Reports:
    """Reads and writes reports. `directory`: where they are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "reports"

    def require_usable(self) -> None:
        """Check what a drill needs at its end, before its fault: a report that is not written is lost.

        Raises InputError if the directory of drills cannot be written, or an earlier report cannot be read.
        """
        require_writable(self.directory.parent)
        require_writable(self.directory)
        self.all()

    def save(self, report: Report) -> tuple[Report, Path]:
        """Write the report, with its differences to the last run of the same drill. Returns both. Raises InputError."""
        last = self.last(report.identity.app, report.identity.drill)
        if last is not None:
            report = msgspec.structs.replace(report, differences=compare(last, report))
        path = self.directory / f"{report.identity.id}.json"
        with usable(self.directory):
            make_private(self.directory)
            path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        return report, path

    def last(self, app: str = "", drill: str = "") -> Report | None:
        """The last report of an app and a drill; None if there is none."""
        found = [
            report
            for report in self.all()
            if app in {"", report.identity.app} and drill in {"", report.identity.drill}
        ]
        return found[-1] if found else None

    def all(self) -> Sequence[Report]:
        """All reports, the oldest first. Raises InputError if one cannot be read."""
        found = [self.read(path) for path in self.files()]
        return sorted(found, key=lambda report: report.identity.began_ms)

    def find(self, name: str = "") -> Report:
        """The report with this id, or of a file; the last one of a drill; without a name, the last one.

        Raises InputError.
        """
        if name.endswith(".json"):
            return self.read(Path(name))
        reports = self.all()
        chosen = [each for each in reports if name in {"", each.identity.id, each.identity.drill}]
        if not chosen:
            raise InputError(
                f"there is no report {name} in {self.directory}"
                if name
                else f"{self.directory} has no report",
                hint="list the reports: pipeline drill report list. Run a drill: pipeline drill run NAME",
            )
        return chosen[-1]

    def files(self) -> Sequence[Path]:
        """The files of the reports, in any order. Raises InputError."""
        with usable(self.directory):
            if not is_present(self.directory):
                return []
            # iterdir, because glob finds nothing in a directory that this user may not read
            return [path for path in self.directory.iterdir() if path.suffix == ".json"]

    @staticmethod
    def read(path: Path) -> Report:
        """The report in a file. Raises InputError."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=Report)
        except OSError as error:
            raise InputError(
                f"the report {path} cannot be read: {error.strerror}",
                hint="list the reports: pipeline drill report list",
            ) from error
        except msgspec.MsgspecError as error:
            raise InputError(
                f"{path} is not a report of a drill: {error}",
                hint="use the release that wrote it, or a newer one",
            ) from error


def compare(before: Report, now: Report) -> list[Difference]:
    """What differs between two runs."""
    values = [
        ("verdict", before.verdict, now.verdict),
        ("recovery_s", before.recovery.measured_s, now.recovery.measured_s),
        ("predicted_s", before.recovery.predicted_s, now.recovery.predicted_s),
        ("caught_up_s", before.recovery.caught_up_s, now.recovery.caught_up_s),
        ("unaffected_pause_s", before.recovery.unaffected_pause_s, now.recovery.unaffected_pause_s),
        ("tasks touched", len(before.blast_radius.touched), len(now.blast_radius.touched)),
        ("effects", len(before.recovery_point.effects), len(now.recovery_point.effects)),
        ("records/s before the fault", before.steady_state.records_per_s, now.steady_state.records_per_s),
        ("pipeline", before.identity.pipeline_version, now.identity.pipeline_version),
        ("commit", before.identity.commit, now.identity.commit),
    ]
    return [
        Difference(name=name, before=_text(old), now=_text(new)) for name, old, new in values if old != new
    ]


def _text(value: object) -> str:
    return "unknown" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


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
                "measures_recovery": each.measures_recovery,
                "states_compared": each.recovery_point.states_compared,
                "states_equal": each.recovery_point.states_equal,
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

    def _files(self) -> Sequence[Path]:
        """The files, or none if another user runs drills here, and this one may not read them."""
        with suppress(InputError):
            return Reports(self._directory).files()
        return []

    def _reports(self, app: str) -> list[Report]:
        """The reports of an app, the newest first. A file is read again only if it was written again."""
        known = self._read
        self._read = {}
        for path in self._files():
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
