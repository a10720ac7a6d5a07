"""`python -m benchmarks peers`: runs cases by turns, merges the result, and writes the page.

In each turn, each system runs once; the order rotates. A system that fails in a turn, or puts out something else than
the input says, has no value of this turn, and the result says why.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from confluent_kafka import KafkaException
from rich.console import Console

from benchmarks import BenchmarkError
from benchmarks.peers.bench import Bench, opened
from benchmarks.peers.cases import CASES, Case
from benchmarks.peers.environments import ROOT, Environment, UnavailableError, environment_of, versions
from benchmarks.peers.page import PLOTS, case_table, write_page
from benchmarks.peers.results import Run, SystemResult, merged, read_results, write_results
from benchmarks.peers.systems import SYSTEMS

__all__ = ["main", "run_case"]

RESULT = PLOTS / "results.json"
TRIED = ROOT / "build" / "bench" / "peers.json"
TURNS = 5
BUDGET_S = 1_700.0  # of one case: a turn that would probably end later is not begun
ERROR_CHARACTERS = 300


@dataclass
class _Collected:
    """The values of one system so far."""

    measures: dict[str, list[float]] = field(default_factory=dict)
    error: str = ""

    def add(self, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.measures.setdefault(key, []).append(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen cases; 0 if no system has failed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--case", action="append", choices=sorted(CASES), help="run it (all); can be repeated"
    )
    parser.add_argument("--turns", type=int, default=TURNS, help=f"times each system runs ({TURNS})")
    parser.add_argument(
        "--only", help="systems, such as ours,streams-1; streams means both (all of the case)"
    )
    parser.add_argument("--records", type=int, help="records of the input, for a quick try")
    parser.add_argument(
        "--result",
        type=Path,
        help="the file to merge into (that of the documentation; with --no-page or --records one in build)",
    )
    parser.add_argument("--page", action="store_true", help="only write the page from the result file")
    parser.add_argument(
        "--no-page", action="store_true", help="leave the documentation unchanged, as --records does"
    )
    chosen = parser.parse_args(arguments)
    tried = chosen.no_page or chosen.records
    file = chosen.result or (TRIED if tried else RESULT)
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _end)  # so that Kafka and the systems are ended, as after Ctrl-C
    failed = False
    for name in [] if chosen.page else chosen.case or list(CASES):
        case = CASES[name]
        if chosen.records:
            case = replace(case, job=replace(case.job, records=chosen.records))
        failed |= not run_case(name, case, _wanted(case, chosen.only), chosen.turns, file, console)
    if not tried:
        write_page(read_results(file), CASES)
    return int(failed)


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(143)


def _wanted(case: Case, only: str | None) -> list[str]:
    if only is None:
        return list(case.systems)
    names = only.split(",")
    known = {*SYSTEMS, *(system.environment for system in SYSTEMS.values())}
    if unknown := sorted(set(names) - known):
        raise SystemExit(f"there is no system {unknown[0]}; one of {', '.join(SYSTEMS)}")
    return [name for name in case.systems if name in names or SYSTEMS[name].environment in names]


def run_case(name: str, case: Case, systems: Sequence[str], turns: int, file: Path, console: Console) -> bool:
    """Run one case; whether every system has values of all turns. After each turn, the file has what is measured."""
    environments, skipped = _environments(systems, console)
    present = [system for system in systems if SYSTEMS[system].environment in environments]
    collected = {system: _Collected() for system in present}
    began = datetime.now(UTC)
    run_id = f"{name}-{began:%Y%m%dT%H%M%S}"
    run = Run(f"{began:%Y-%m-%d %H:%M}", environment_of("ours").version, machine(), versions(environments))
    console.print(f"{name}: {case.title}; {turns} turns of {', '.join(present)}")
    began_s, longest_s = time.monotonic(), 0.0
    with opened(environments) as bench:
        for turn in range(turns):
            turn_s = time.monotonic()
            if turn and turn_s - began_s + longest_s > BUDGET_S:
                console.print(f"{name}: no time for turn {turn + 1}; {turn} turns count")
                break
            for system in _rotated(present, turn):
                _take_turn(bench, name, case, system, turn, collected[system], console)
            found = {
                system: SystemResult(run_id, values.measures, values.error)
                for system, values in collected.items()
            }
            found |= {system: SystemResult(run_id, skipped=reason) for system, reason in skipped.items()}
            with _locked(file):
                write_results(file, merged(read_results(file), name, run_id, run, found))
            longest_s = max(longest_s, time.monotonic() - turn_s)
    console.print("\n".join(case_table(case, read_results(file).cases[name])), markup=False)
    return not any(values.error for values in collected.values())


def _rotated(systems: Sequence[str], turn: int) -> list[str]:
    """The order of a turn: another system is the first one in each."""
    first = turn % len(systems) if systems else 0
    return [*systems[first:], *systems[:first]]


def _take_turn(
    bench: Bench, name: str, case: Case, system: str, turn: int, values: _Collected, console: Console
) -> None:
    began_s = time.monotonic()
    try:
        found = case.turn(bench, case.job, system, f"{name}-{system}-{turn + 1}")
    except (BenchmarkError, KafkaException) as error:
        values.error = f"turn {turn + 1}: {' '.join(str(error).split())[-ERROR_CHARACTERS:]}"
        console.print(f"  turn {turn + 1}  {system}: {values.error}")
        return
    values.add(found)
    shown = ", ".join(
        f"{found[measure.key]:,.{measure.digits}f} {measure.title}"
        for measure in case.measures
        if measure.key in found
    )
    console.print(f"  turn {turn + 1}  {system}: {shown}  ({time.monotonic() - began_s:.0f} s)")


def _environments(systems: Sequence[str], console: Console) -> tuple[dict[str, Environment], dict[str, str]]:
    """The environments that can be made, and why the others cannot, by system."""
    found: dict[str, Environment] = {}
    skipped: dict[str, str] = {}
    for system in systems:
        name = SYSTEMS[system].environment
        if name in found:
            continue
        try:
            found[name] = environment_of(name)
        except UnavailableError as reason:
            skipped[system] = str(reason)
            console.print(f"{system} is skipped: {reason}")
    return found, skipped


def machine() -> dict[str, str]:
    """What is known of this machine."""
    model = "unknown"
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory": f"{memory_mb / 1024:.0f} GB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Two runs that end at the same time merge one after the other. The lock is that of the file's directory."""
    file.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


if __name__ == "__main__":
    sys.exit(main())
