"""Writes the results into the documentation: tables between two markers of the page, and a plot for each case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks import BenchmarkError
from benchmarks.peers.cases import Case, Measure
from benchmarks.peers.environments import ROOT
from benchmarks.peers.results import CaseResult, Results, Run, SystemResult, ratio
from benchmarks.peers.svg import Bar, bar_chart
from benchmarks.peers.systems import SYSTEMS

__all__ = [
    "BEGIN",
    "END",
    "PAGE",
    "PLOTS",
    "case_section",
    "case_table",
    "plot",
    "summary",
    "with_results",
    "write_page",
]

PAGE = ROOT / "docs" / "reference" / "performance.md"
PLOTS = ROOT / "docs" / "assets" / "performance"
BEGIN = "<!-- begin: written by `python -m benchmarks peers` -->"
END = "<!-- end: written by `python -m benchmarks peers` -->"
NOTHING = "No case has been measured yet."
COMPARED = ("ours", "ours-2", "streams-1", "streams-no-cache", "quix", "faust", "raw")


def write_page(results: Results, cases: Mapping[str, Case], page: Path = PAGE, plots: Path = PLOTS) -> None:
    """Replace the tables of the page, and write the plots of all measured cases."""
    text = with_results(page.read_text(encoding="utf-8"), results, cases)
    plots.mkdir(parents=True, exist_ok=True)
    for name, case in cases.items():
        if name in results.cases:
            (plots / f"{name}.svg").write_text(plot(case, results.cases[name]), encoding="utf-8")
    page.write_text(text, encoding="utf-8")


def with_results(text: str, results: Results, cases: Mapping[str, Case]) -> str:
    """The page with these results between its markers. A case without a result keeps its published section."""
    head, begin, rest = text.partition(BEGIN)
    published, end, tail = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError("the page does not have the two markers for the results")
    sections = {}
    for part in published.split("\n### ")[1:]:
        title, _, content = part.partition("\n")
        sections[title] = f"### {title}\n{content}".strip()
    for name, case in cases.items():
        if name in results.cases:
            sections[case.title] = case_section(name, case, results.cases[name], results.runs)
    parts = [sections[case.title] for case in cases.values() if case.title in sections]
    parts.insert(0, summary(results, cases, published) if parts else NOTHING)
    return f"{head}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{tail}"


def summary(results: Results, cases: Mapping[str, Case], published: str = "") -> str:
    """A table with the main measure of each case. `published`: what the page has, for cases without a result."""
    titles = " | ".join(SYSTEMS[system].title for system in COMPARED)
    lines = [f"| median | {titles} |", "| --- |" + " --- |" * len(COMPARED)]
    for name, case in cases.items():
        start = f"| [{case.title}](#{_anchor(case.title)}), "
        if name not in results.cases:
            lines += [line for line in published.splitlines() if line.startswith(start)]
            continue
        main = case.measures[0]
        cells = [_median(results.cases[name].systems.get(system), main) for system in COMPARED]
        if any(cell.strip("-") for cell in cells):
            lines.append(f"{start}{main.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def case_section(name: str, case: Case, result: CaseResult, runs: Mapping[str, Run]) -> str:
    """The part of the page about one case."""
    lines = [
        f"### {case.title}",
        "",
        *_wrapped([case.what]),
        "",
        f"![{case.title}: {case.measures[0].title}](../assets/performance/{name}.svg)",
        "",
        *case_table(case, result),
        "",
        *_notes(case, result),
        *_runs(case, result, runs),
    ]
    return "\n".join(lines)


def case_table(case: Case, result: CaseResult) -> list[str]:
    """The lines of the table: each measured system, with the factor by which the first one is better."""
    columns = " | ".join(measure.title for measure in case.measures)
    lines = [f"| system | {columns} | factor |", "| --- |" + " --- |" * (len(case.measures) + 1)]
    for system in case.systems:
        found = result.systems.get(system)
        if found is not None and not found.skipped:
            cells = " | ".join(_spread(found, measure) for measure in case.measures)
            lines.append(f"| {SYSTEMS[system].title} | {cells} | {_factor(case, result, system)} |")
    return lines


def _factor(case: Case, result: CaseResult, system: str) -> str:
    """By how much the first system of the case is better, by the main measure."""
    main, reference = case.measures[0], case.systems[0]
    one, other = (reference, system) if main.more_is_better else (system, reference)
    found = None if system == reference else ratio(result, one, other, main.key)
    return "" if found is None else f"{found:.1f}" if found >= 2 else f"{found:.2f}"


def _median(found: SystemResult | None, measure: Measure) -> str:
    value = found.median(measure.key) if found is not None else None
    return "-" if value is None else f"{value:,.{measure.digits}f}"


def _spread(found: SystemResult, measure: Measure) -> str:
    spread = found.spread(measure.key)
    if spread is None:
        return "-"
    low, high = (f"{value:,.{measure.digits}f}" for value in spread)
    return f"{_median(found, measure)} ({low} to {high})"


def _notes(case: Case, result: CaseResult) -> list[str]:
    """What went wrong, one list item each."""
    found = []
    for system in case.systems:
        each = result.systems.get(system)
        if each is not None and each.skipped:
            found.append(f"- {SYSTEMS[system].title} was skipped: {each.skipped}.")
        elif each is not None and each.error:
            error = each.error.replace("|", "/").replace("<", "").replace("`", "'")
            found.append(f"- {SYSTEMS[system].title} failed: `{error}`")
    return [*_wrapped(found), ""] if found else []


def _runs(case: Case, result: CaseResult, runs: Mapping[str, Run]) -> list[str]:
    """Where and when each part was measured."""
    lines = []
    for run_id in dict.fromkeys(result.systems[s].run for s in case.systems if s in result.systems):
        run = runs[run_id]
        measured = [s for s in case.systems if s in result.systems and result.systems[s].run == run_id]
        turns = max(
            (len(values) for s in measured for values in result.systems[s].measures.values()), default=0
        )
        facts = ", ".join(f"{name} {value}" for name, value in run.machine.items())
        versions = ", ".join(version for name, version in run.versions.items() if name != "ours")
        which = (
            "All" if len(measured) == len(result.systems) else ", ".join(SYSTEMS[s].title for s in measured)
        )
        described = "; ".join(part for part in (versions, facts) if part)
        lines += _wrapped([f"{which}: {turns} turns, {run.date} UTC, commit {run.commit} ({described})."])
    return lines


def _wrapped(paragraphs: list[str], width: int = 100) -> list[str]:
    """Lines of at most so many columns, as the rules for pages ask; a word is never split."""
    lines = []
    for paragraph in paragraphs:
        line, indent = "", "  " if paragraph.startswith("- ") else ""
        for word in paragraph.split():
            if line and len(line) + 1 + len(word) > width:
                lines.append(line)
                line = indent + word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return lines


def _anchor(title: str) -> str:
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -")
    return kept.replace(" ", "-")


def plot(case: Case, result: CaseResult) -> str:
    """The plot of the main measure."""
    main = case.measures[0]
    bars = []
    for system in case.systems:
        found = result.systems.get(system)
        value, spread = (found.median(main.key), found.spread(main.key)) if found else (None, None)
        if value is not None and spread is not None:
            text = f"{value:,.{main.digits}f}"
            bars.append(
                Bar(SYSTEMS[system].title.replace("`", ""), value, *spread, text, system == case.systems[0])
            )
    return bar_chart(case.title, f"{main.title}, median", bars)
