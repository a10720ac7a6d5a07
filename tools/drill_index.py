"""The pages of `make drills`: one for each report, and `index.html`, which lists them: `write_index`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from pipeline.drills.page import page_of
from pipeline.drills.report import Report
from pipeline.drills.reports import Reports

__all__ = ["KEEP_REPORTS", "write_index"]

# The variable with the directory to which the tests of drills copy their reports.
KEEP_REPORTS = "DRILL_REPORTS"
_COLUMNS = ("drill", "verdict", "predicted", "measured", "other tasks paused", "finding")
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, "Liberation Sans", sans-serif; }
body { max-width: 1120px; margin: 0 auto; padding: 24px 20px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid #8884; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
.held { color: #14804a; } .deviated, .not { color: #c4352b; } .aborted { color: #9a6700; }
@media (prefers-color-scheme: dark) { .held { color: #4cc38a; } .deviated, .not { color: #ff8b80; } }
"""


def write_index(directory: Path, since_ms: int) -> Path:
    """Write the pages of the runs since a time. Returns the path of the index."""
    sections = [
        ("Drills", Reports(directory)),
        ("Drills that must fail: a step of a protocol is switched off", Reports(directory / "must-fail")),
    ]
    parts = []
    for title, reports in sections:
        found = [report for report in reports.all() if report.identity.began_ms >= since_ms]
        if found:
            parts.append(_section(title, directory, reports.directory, found))
    body = "".join(parts) or "<p>No drill was run.</p>"
    index = directory / "index.html"
    directory.mkdir(parents=True, exist_ok=True)
    index.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Drills</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><body>{body}',
        encoding="utf-8",
    )
    return index


def _section(title: str, root: Path, directory: Path, reports: Sequence[Report]) -> str:
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    rows = []
    for report in reports:
        page = directory / f"{report.identity.id}.html"
        page.write_text(page_of(report), encoding="utf-8")
        link = f'<a href="{escape(str(page.relative_to(root)))}">{escape(report.identity.drill)}</a>'
        recovery = report.recovery
        cells = [
            f"<td>{link}</td>",
            f'<td class="{report.verdict}">{report.verdict}</td>',
            _seconds(recovery.predicted_s),
            _seconds(recovery.measured_s),
            _seconds(recovery.unaffected_pause_s),
            f"<td>{escape('; '.join(finding.text for finding in report.findings[:2]))}</td>",
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    table = f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
    return f"<h1>{escape(title)}</h1>{table}"


def _seconds(value: float | None) -> str:
    return f'<td class="number">{"-" if value is None else f"{value:.1f} s"}</td>'
