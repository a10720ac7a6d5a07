"""Compares what the flights app left, outputs and every task's tables, with the fold."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec
from rich.console import Console
from rich.table import Table

from examples.flights.faults import APP
from examples.flights.outputs import Outputs
from examples.flights.reference import Expected, Fields
from pipeline.demo.processes import Processes

__all__ = ["Tables", "Verdict"]

# Table, its group, and the topic whose keys it has: a key's row must be with the task that sent its outputs.
_TABLES = {
    "totals": ("main", "carrier-delays"),
    "latest": ("tails", "tail-hops"),
    "unknown": ("tails", None),
}
_Rows = dict[tuple[int, str], object]


class Tables:
    """Reads every task's tables, on the disk of the worker whose entry is the last of the task's journal.

    On other disks there are copies as old as the day on which the task left.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._disks = {worker.name: worker.disk for worker in processes.workers}  # of its last life
        self._pool = ThreadPoolExecutor(2)
        self._reading: dict[str, Future[dict[str, _Rows]]] = {}

    def __enter__(self) -> Tables:
        groups = {group for group, _ in _TABLES.values()}
        self._reading = {group: self._pool.submit(self._read, group) for group in groups}
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def rows(self, table: str) -> _Rows:
        """Its rows by partition and key."""
        return self._reading[_TABLES[table][0]].result()[table]

    def _read(self, group: str) -> dict[str, _Rows]:
        owners = self._owners(group)
        return {name: self._rows(name, group, owners) for name, (of, _) in _TABLES.items() if of == group}

    def _rows(self, table: str, group: str, owners: Mapping[int, str]) -> _Rows:
        rows: _Rows = {}
        for owner in set(owners.values()):
            disk = str(self._disks[owner])
            shown = self._processes.command(
                "table", "show", f"{group}.{table}", "--app", APP, "--state-dir", disk, "--json"
            )
            for row in map(json.loads, shown.splitlines()):
                if owners[row["task"]] == owner:
                    rows[row["task"], row["key"]] = row["value"]
        return rows

    def _owners(self, group: str) -> dict[int, str]:
        """The worker that wrote the last entry of each task."""
        shown = self._processes.command(
            "journal", "show", "flights", "--group", group, "--last", "1", "--json"
        )
        entries = map(json.loads, shown.splitlines())
        return {int(entry["task"]): entry["owner"] for entry in entries}


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
            missing = extra = wrong = 0
            for key in wanted.keys() | values.keys():
                actual = [msgspec.json.decode(value) for value in values.get(key, [])]
                wrong += actual != wanted.get(key) or len(where.get(key, ())) != 1
                if actual != wanted.get(key):
                    lost, duplicated = _difference(wanted.get(key, []), actual)
                    missing, extra = missing + lost, extra + duplicated
            self.lost, self.duplicated = max(self.lost, missing), max(self.duplicated, extra)
            self._add(f"{topic} ({who})", _size(wanted), _size(values), f"{missing:,}", f"{extra:,}", wrong)

    def tables(self, tables: Tables, found: Outputs) -> None:
        """The tables of every task."""
        for name, (group, topic) in _TABLES.items():
            self._table(name, group, tables.rows(name), found.where[topic] if topic else None)

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


def _difference(wanted: list[Fields], found: list[Fields]) -> tuple[int, int]:
    """(outputs missing, outputs too many) of one key, counted by value."""
    expected = Counter(json.dumps(value, sort_keys=True) for value in wanted)
    actual = Counter(json.dumps(value, sort_keys=True) for value in found)
    return (expected - actual).total(), (actual - expected).total()


def _size(by_key: Mapping[str, Sized]) -> int:
    return sum(map(len, by_key.values()))
