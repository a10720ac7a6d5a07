"""The result file: what each system has measured in each case, and in which run. Each run of a case merges into it.

Absolute values of two runs cannot be compared, since a machine is never the same twice. So a system's values name their
run, and a ratio exists only between two systems of one run, turn by turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

import msgspec

from benchmarks import BenchmarkError

__all__ = ["CaseResult", "Results", "Run", "SystemResult", "merged", "ratio", "read_results", "write_results"]

FORMAT = 1


class Run(msgspec.Struct, frozen=True):
    """One call of the command. `machine` and `versions`: facts by name. `date`: in UTC."""

    date: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]


class SystemResult(msgspec.Struct, frozen=True):
    """One system in one case. `measures`: the value of each turn, by the measure's name.

    `error`: why some turn has no value. `skipped`: why the system did not run at all.
    """

    run: str
    measures: dict[str, list[float]] = {}
    error: str = ""
    skipped: str = ""

    def median(self, measure: str) -> float | None:
        """The median of the turns; None without any."""
        values = self.measures.get(measure)
        return statistics.median(values) if values else None

    def spread(self, measure: str) -> tuple[float, float] | None:
        """The lowest and the highest value; None without any."""
        values = self.measures.get(measure)
        return (min(values), max(values)) if values else None


class CaseResult(msgspec.Struct, frozen=True):
    """All systems of a case."""

    systems: dict[str, SystemResult] = {}


class Results(msgspec.Struct, frozen=True):
    """The whole file. `runs`: by their ids."""

    format: int = FORMAT
    runs: dict[str, Run] = {}
    cases: dict[str, CaseResult] = {}


def merged(old: Results, case: str, run_id: str, run: Run, systems: Mapping[str, SystemResult]) -> Results:
    """The results with those of one more run. Runs that no system names any more are dropped."""
    before = old.cases.get(case, CaseResult()).systems
    cases = {**old.cases, case: CaseResult({**before, **systems})}
    named = {system.run for each in cases.values() for system in each.systems.values()}
    runs = {name: kept for name, kept in {**old.runs, run_id: run}.items() if name in named}
    return Results(FORMAT, runs, cases)


def ratio(case: CaseResult, one: str, other: str, measure: str) -> float | None:
    """The median over the turns of one system's value divided by the other's; None if they are not of one run.

    A turn that failed for one of the two leaves different numbers of turns: then the medians are divided.
    """
    mine, theirs = case.systems.get(one), case.systems.get(other)
    if mine is None or theirs is None or mine.run != theirs.run:
        return None
    values, others = mine.measures.get(measure), theirs.measures.get(measure)
    if not values or not others or 0 in others:
        return None
    if len(values) != len(others):
        return statistics.median(values) / statistics.median(others)
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


def read_results(file: Path) -> Results:
    """Read the file; empty results if it does not exist."""
    if not file.exists():
        return Results()
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Results)
    except msgspec.MsgspecError as error:
        raise BenchmarkError(f"{file} is not a result file: {error}; delete it to begin anew") from error
    if found.format != FORMAT:
        raise BenchmarkError(f"{file} has format {found.format}, not {FORMAT}; delete it to begin anew")
    return found


def write_results(file: Path, results: Results) -> None:
    """Write the file, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    draft.rename(file)
