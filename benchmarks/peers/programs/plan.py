"""What a program of the comparison must do, and the moment at which it has done a part of it.

Jobs, all on JSON records {"number", "amount", "branch"} with an account as key:

    sum          the running sum of each account: {"number", "total", "count"} and its "note", for each record
    dedup        the same, after records with an id that was seen before are dropped
    two-stages   the running sum of each account; the record is sent on under its branch; the running sum of each branch
    batch        the sum of each account, with at least one output after its last record
    copy, consume, produce, transactions    of the raw client: no sum. `produce` sends the input itself
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["VARIABLE", "Mark", "Plan", "read_plan"]

VARIABLE = "BENCHMARK_PLAN"


@dataclass(frozen=True)
class Plan:
    """The job, and all names. Durations and counts of 0 mean the default of the system.

    `store_cache`: of Kafka Streams. Without it, each write goes to the store at once.
    """

    job: str
    servers: str
    name: str
    source: str
    target: str
    state_dir: str
    mark: str
    mark_at: int
    records: int
    keys: int
    middle: str = ""
    worker: str = "worker-1"
    partitions: int = 4
    threads: int = 1
    commit_ms: int = 0
    store_cache: bool = True

    def encode(self) -> str:
        """The text for the environment."""
        return json.dumps(asdict(self))


def read_plan() -> Plan:
    """The plan of this process."""
    return Plan(**json.loads(os.environ[VARIABLE]))


class Mark:
    """Writes the time at which record `mark_at` is processed; and for jobs without outputs, the time of the last one.

    A handler that is called for each record decrements `left` itself, since a call would cost as much as it does.
    """

    def __init__(self, plan: Plan) -> None:
        self._file = Path(plan.mark)
        self._written = False
        self.left = plan.mark_at

    def count(self, records: int) -> None:
        """So many more records are processed."""
        self.left -= records
        if self.left <= 0 and not self._written:
            self.write()

    def write(self) -> None:
        """Write the time, on the clock that all processes of the machine share."""
        self._written = True
        now = time.monotonic()
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{now} {-self.left}", encoding="ascii")
        draft.rename(self._file)

    def end(self) -> None:
        """Write the time of the end beside it."""
        draft = self._file.with_suffix(".draft")
        draft.write_text(str(time.monotonic()), encoding="ascii")
        draft.rename(self._file.with_suffix(".end"))
