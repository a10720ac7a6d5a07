"""What the flights example must produce, computed from the file alone: one process, no Kafka, plain dicts.

Deliberately shares no code with app.py, so that an error in one does not hide in the other.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Expected", "fold"]

Fields = dict[str, object]


@dataclass(frozen=True, slots=True)
class Expected:
    """`outputs[topic][key]`: every value in order; `tables[table][key]`: the last value."""

    flights: int
    outputs: dict[str, dict[str, list[Fields]]]
    tables: dict[str, dict[str, object]]

    @property
    def output_count(self) -> int:
        """Records over all output topics."""
        return sum(len(values) for by_key in self.outputs.values() for values in by_key.values())


def fold(archive: Path) -> Expected:
    """Fold the flights of a zip file that holds flights.csv."""
    delays: dict[str, list[Fields]] = defaultdict(list)
    hops: dict[str, list[Fields]] = defaultdict(list)
    unknown: dict[str, int] = defaultdict(int)
    count = 0
    with zipfile.ZipFile(archive) as packed, packed.open("flights.csv") as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline="")):
            count += 1
            _add_delay(delays[row["carrier"]], row)
            if row["tailnum"] == "NA":
                unknown[row["carrier"]] += 1
            else:
                _add_hop(hops[row["tailnum"]], row)
    return Expected(
        flights=count,
        outputs={"carrier-delays": dict(delays), "tail-hops": dict(hops)},
        tables={
            "totals": {key: values[-1] for key, values in delays.items()},
            "latest": {key: values[-1] for key, values in hops.items()},
            "unknown": dict(unknown),
        },
    )


def _add_delay(values: list[Fields], row: dict[str, str]) -> None:
    total: Fields = {"flights": 0, "departed": 0, "minutes": 0, "worst": 0}
    total.update(values[-1] if values else {})
    total["flights"] = int(str(total["flights"])) + 1
    if row["dep_delay"] != "NA":
        minutes = int(row["dep_delay"])
        total["departed"] = int(str(total["departed"])) + 1
        total["minutes"] = int(str(total["minutes"])) + minutes
        total["worst"] = max(int(str(total["worst"])), minutes)
    values.append(total)


def _add_hop(values: list[Fields], row: dict[str, str]) -> None:
    last: Fields = values[-1] if values else {"n": 0, "dest": "", "miles": 0}
    hop: Fields = {
        "n": int(str(last["n"])) + 1,
        "came_from": last["dest"],
        "origin": row["origin"],
        "dest": row["dest"],
        "miles": int(str(last["miles"])) + int(row["distance"]),
    }
    values.append(hop)
