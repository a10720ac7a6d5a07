"""A Faust application under SIGKILLs: what a worker of this project and Faust itself lose and repeat.

    1 The input is in the topic. A system starts.
    2 Whenever it has put out another part of the results, it is killed and started again. A process that ends by
      itself, or puts out nothing for STUCK_S, is started again as well, and counted.
    3 After the last kill, it runs until nothing more comes. Then all committed results are compared with the input.

Only the worker of this project must be exact; what Faust does is shown, and differs from run to run.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.peers.bench import Bench, Job, Turn, opened
from benchmarks.peers.environments import ROOT, environment_of
from benchmarks.peers.outputs import OutputReader, Tally
from benchmarks.peers.processes import PeerProcess
from benchmarks.peers.records import account_of, amount_of
from benchmarks.peers.systems import SYSTEMS

__all__ = ["KILLS", "Findings", "run"]

KILLS = 5
RESULT = ROOT / "build" / "bench" / "faust-kills.json"
SYSTEM_NAMES = ("ours-faust-app", "faust-app", "faust-app-once")
RECORDS, SLOW_RECORDS, KEYS = 600_000, 12_000, 500
STUCK_S = 60.0
QUIET_S = 30.0
MOST_ENDS = 5  # processes that end by themselves: then the system is not started again
_POLL_S = 0.02


@dataclass
class Findings:
    """What came of one system. `wrong`: results whose sum is not that of the records before."""

    system: str
    records: int
    kills: int = 0
    results: int = 0
    lost: int = 0
    repeated: int = 0
    wrong: int = 0
    seconds: float = 0.0
    ended: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether each record has exactly one result, which is right."""
        return not (self.lost or self.repeated or self.wrong)


class _Found(Tally):
    """Counts results instead of refusing wrong ones."""

    def __init__(self, records: int, keys: int) -> None:
        super().__init__("sum", records, keys)
        self._keys_of_input = keys
        self.seen: Counter[int] = Counter()
        self.rows: list[tuple[int, int, int]] = []
        self._row = msgspec.json.Decoder(dict[str, object])

    def add(self, key: bytes, value: bytes) -> None:  # noqa: ARG002 - as `Tally`
        row = self._row.decode(value)
        number, total, count = (int(str(row[name])) for name in ("number", "total", "count"))
        self.seen[number] += 1
        self.rows.append((number, total, count))
        self.outputs += 1

    def wrong(self) -> int:
        """The number of results with another sum than the input says."""
        wanted, sums = {}, Counter[int]()
        counts: Counter[int] = Counter()
        for number in range(self._records):
            account = account_of(number, self._keys_of_input)
            sums[account] += amount_of(number)
            counts[account] += 1
            wanted[number] = (sums[account], counts[account])
        return sum(1 for number, total, count in self.rows if wanted.get(number) != (total, count))


def run(kills: int, file: Path = RESULT) -> int:
    """Kill each system so often, print what came of it, and write it; 1 if this project's worker is not exact."""
    console = Console(highlight=False, soft_wrap=True)
    environments = {
        SYSTEMS[name].environment: environment_of(SYSTEMS[name].environment) for name in SYSTEM_NAMES
    }
    with opened(environments) as bench:
        found = [_killed(bench, name, kills, console) for name in SYSTEM_NAMES]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode([asdict(each) for each in found])) + b"\n")
    console.print(_table(found))
    for each in found:
        for reason in each.ended:
            console.print(f"{each.system}: a process ended by itself, or was stuck: {reason}", markup=False)
    return int(not found[0].exact)


def _killed(bench: Bench, name: str, kills: int, console: Console) -> Findings:
    """One system from start to end."""
    system = SYSTEMS[name]
    records = SLOW_RECORDS if system.slow else RECORDS
    job = Job("sum", records, KEYS)
    found, began_s = Findings(_title(name), records), time.monotonic()
    with Turn(bench, job, f"kills-{name}", system, bench.source(job, records), 1) as turn:
        for number in range(kills):
            process = _run_until(turn, found, records * (number + 1) // (kills + 1))
            if process is None:
                break
            process.kill()
            found.kills += 1
            console.print(f"  {found.system}: kill {found.kills} after {time.monotonic() - began_s:.0f} s")
        _drain(turn, found, records)
        tally = _Found(records, KEYS)
        OutputReader(bench.topics.servers, turn.target, job.partitions, tally).read()
        found.results = tally.outputs
        found.lost = records - len(tally.seen)
        found.repeated = tally.outputs - len(tally.seen)
        found.wrong = tally.wrong()
        found.seconds = round(time.monotonic() - began_s, 1)
    return found


def _run_until(turn: Turn, found: Findings, end: int) -> PeerProcess | None:
    """Run processes until the results' end has moved to `end`. None: it is never reached."""
    while len(found.ended) < MOST_ENDS:
        process = turn.start()
        reason = _watch(turn, process, end, STUCK_S)
        if not reason:
            return process
        process.kill()
        found.ended.append(reason)
    return None


def _drain(turn: Turn, found: Findings, records: int) -> None:
    """Run until nothing comes any more."""
    process = _run_until(turn, found, records)
    if process is not None:
        _watch(turn, process, 2**62, QUIET_S / 3)
        process.kill()


def _watch(turn: Turn, process: PeerProcess, end: int, stuck_s: float) -> str:
    """Wait until the end has moved to `end`; the reason if it does not."""
    last, moved_s = -1, time.monotonic()
    while True:
        now = turn.bench.topics.committed_end(turn.target, turn.job.partitions)
        if now >= end:
            return ""
        if process.ended:
            return _last_error(process)
        if now != last:
            last, moved_s = now, time.monotonic()
        elif time.monotonic() - moved_s > stuck_s:
            return f"no result for {stuck_s:.0f} s"
        time.sleep(_POLL_S)


def _last_error(process: PeerProcess) -> str:
    """The last line of the log that names an error."""
    lines = [
        line.strip() for line in process.log_end().splitlines() if "Error" in line or "Exception" in line
    ]
    return lines[-1][:200] if lines else "it ended without an error in its log"


def _title(name: str) -> str:
    return SYSTEMS[name].title


def _table(found: list[Findings]) -> Table:
    table = Table()
    for column in ("system", "records", "kills", "ended by itself", "lost", "repeated", "wrong sums", "s"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for each in found:
        numbers = (each.records, each.kills, len(each.ended), each.lost, each.repeated, each.wrong)
        table.add_row(each.system, *(f"{number:,}" for number in numbers), f"{each.seconds:.0f}")
    return table
