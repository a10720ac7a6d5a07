"""Compares what the flights app left, outputs and every task's tables, with the fold."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.flights.outputs import Outputs
from examples.flights.processes import APP, Processes
from examples.flights.reference import Expected, Fields

__all__ = ["Verdict"]

# Table, its group, and the topic whose keys it has: a key's row must be with the task that sent its outputs.
_TABLES = {
    "totals": ("main", "carrier-delays"),
    "latest": ("tails", "tail-hops"),
    "unknown": ("tails", None),
}
_Rows = dict[tuple[int, str], object]


@dataclass
class Verdict:
    """Fill it by `outputs` and `tables`; exact when nothing is lost, duplicated or wrong."""

    expected: Expected
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    _lines: list[tuple[str, int, int, str, str, int]] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        return not (self.lost or self.duplicated or self.wrong)

    def outputs(self, who: str, found: Outputs) -> None:
        """Every output of every key, in order, and each key in one partition."""
        for topic, wanted in self.expected.outputs.items():
            values, where = found.values[topic], found.where[topic]
            missing, extra = _difference(wanted, values)
            keys = wanted.keys() | values.keys()
            wrong = sum(wanted.get(key) != values.get(key) or len(where.get(key, ())) != 1 for key in keys)
            self.lost, self.duplicated = max(self.lost, missing), max(self.duplicated, extra)
            self._add(f"{topic} ({who})", _size(wanted), _size(values), f"{missing:,}", f"{extra:,}", wrong)

    def tables(self, processes: Processes, found: Outputs) -> None:
        """The tables of every task, on the disk of the worker whose entry is the last of the task's journal."""
        owners = {group: _owners(processes, group) for group, _ in _TABLES.values()}
        disks = {worker.name: worker.disk for worker in processes.workers}  # of its last life
        with ThreadPoolExecutor(2) as pool:
            shown = {
                (name, disk): pool.submit(_rows, processes, f"{group}.{name}", disk)
                for name, (group, _) in _TABLES.items()
                for disk in {disks[owner] for owner in owners[group].values()}
            }
        for name, (group, topic) in _TABLES.items():
            rows: _Rows = {}
            for partition, owner in owners[group].items():
                on_disk = shown[name, disks[owner]].result()
                rows.update({at: value for at, value in on_disk.items() if at[0] == partition})
            self._table(name, group, rows, found.where[topic] if topic else None)

    def show(self, console: Console) -> None:
        table = Table(box=None, pad_edge=False)
        table.add_column("against the fold")
        for heading in ("expected", "found", "lost", "duplicated", "keys off"):
            table.add_column(heading, justify="right")
        for what, wanted, found, lost, duplicated, wrong in self._lines:
            table.add_row(what, f"{wanted:,}", f"{found:,}", lost, duplicated, f"{wrong:,}")
        console.print(table)

    def _table(self, name: str, group: str, rows: _Rows, where: Mapping[str, set[int]] | None) -> None:
        wanted = self.expected.tables[name]
        if (
            where is None
        ):  # counts per task: those flights have no key, so they are spread over the partitions
            sums: dict[str, int] = defaultdict(int)
            for (_, key), value in rows.items():
                sums[key] += int(str(value))
            wrong = sum(wanted.get(key) != sums.get(key) for key in wanted.keys() | sums.keys())
            self._add(f"table {group}.{name}", len(wanted), len(sums), "", "", wrong)
            return
        placed = {(partition, key): wanted[key] for key in wanted for partition in where.get(key, {-1})}
        wrong = sum(placed.get(at) != rows.get(at) for at in placed.keys() | rows.keys())
        self._add(f"table {group}.{name}", len(wanted), len(rows), "", "", wrong)

    def _add(self, what: str, wanted: int, found: int, lost: str, duplicated: str, wrong: int) -> None:
        self.wrong += wrong
        self._lines.append((what, wanted, found, lost, duplicated, wrong))


def _owners(processes: Processes, group: str) -> dict[int, str]:
    """The worker that wrote the last entry of each task."""
    text = processes.command("journal", "show", "flights", "--group", group, "--last", "1", "--json")
    entries = [json.loads(line) for line in text.splitlines()]
    return {int(entry["task"].rpartition("/")[2]): entry["owner"] for entry in entries}


def _rows(processes: Processes, table: str, disk: Path) -> _Rows:
    text = processes.command("table", "show", table, "--app", APP, "--state-dir", str(disk), "--json")
    rows = [json.loads(line) for line in text.splitlines()]
    return {(row["partition"], row["key"]): row["value"] for row in rows}


def _difference(wanted: Mapping[str, list[Fields]], found: Mapping[str, list[Fields]]) -> tuple[int, int]:
    """(outputs missing, outputs too many), counted per key and value."""
    lost = duplicated = 0
    for key in wanted.keys() | found.keys():
        if wanted.get(key) == found.get(key):
            continue
        expected = Counter(json.dumps(value, sort_keys=True) for value in wanted.get(key, []))
        actual = Counter(json.dumps(value, sort_keys=True) for value in found.get(key, []))
        lost += (expected - actual).total()
        duplicated += (actual - expected).total()
    return lost, duplicated


def _size(by_key: Mapping[str, list[Fields]]) -> int:
    return sum(map(len, by_key.values()))
