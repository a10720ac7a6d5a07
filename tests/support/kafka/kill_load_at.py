"""A command that kills itself with SIGKILL when it reaches a point of its protocol for the nth time.

python -m tests.support.kafka.kill_load_at POINT NTH produce TOPIC FILE ...
python -m tests.support.kafka.kill_load_at POINT NTH deadletters replay MODULE:APP ...

The points are before and after the calls of the producer, which a load and a replay get through a port.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from enum import Enum

from pipeline.cli.main import main as command
from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.clients import ProducerLimits
from pipeline.kafka.producer import KafkaProducers
from pipeline.ports import Output, TransactionalClient

__all__ = ["Point"]

# About as long after the request as a broker needs to decide.
COMMIT_DELAY_S = 0.001


class Point(Enum):
    """The points at which a load, or a replay with its marks, can be killed, in the order of the steps."""

    BEFORE_FENCE = "before the fence"
    AFTER_FENCE = "after the fence, before positions are read"
    BEFORE_BEGIN = "the position is known, nothing is written"
    AFTER_BEGIN = "in an empty transaction"
    AFTER_RECORDS = "records are sent"
    AFTER_POSITION = "records and the position are sent"
    AFTER_FLUSH = "all is delivered"
    DURING_COMMIT = "the commit is asked for, and its answer is never handled"
    AFTER_COMMIT = "the transaction is committed"


class _KillAt:
    """Counts down for all producers of the process."""

    def __init__(self, point: Point, nth: int) -> None:
        self._point = point
        self._left = nth

    def due(self, point: Point) -> bool:
        self._left -= point is self._point
        return point is self._point and self._left == 0

    def reached(self, point: Point) -> None:
        if self.due(point):
            _kill()


class _Producer:
    """`ports.TransactionalClient` with points around its calls.

    The transaction after `init` is the barrier, whose records are aborted. It has no points, so that a point is reached
    with records of the load.
    """

    def __init__(self, inner: TransactionalClient, kill: _KillAt) -> None:
        self._inner = inner
        self._kill = kill
        self._barrier = False

    def init(self) -> None:
        self._kill.reached(Point.BEFORE_FENCE)
        self._inner.init()
        self._kill.reached(Point.AFTER_FENCE)
        self._barrier = True

    def begin(self) -> None:
        self._reached(Point.BEFORE_BEGIN)
        self._inner.begin()
        self._reached(Point.AFTER_BEGIN)

    def send(self, outputs: Sequence[Output]) -> None:
        self._inner.send(outputs)
        position = bool(outputs) and outputs[0][0].startswith("pipeline.")
        self._reached(Point.AFTER_POSITION if position else Point.AFTER_RECORDS)

    def append(self, journal: TopicPartition, chunks: Sequence[bytes], key: bytes | None = None) -> None:
        self._inner.append(journal, chunks, key)
        self._reached(Point.AFTER_RECORDS)

    def flush(self) -> int:
        offset = self._inner.flush()
        self._reached(Point.AFTER_FLUSH)
        return offset

    def appended_at(self) -> Mapping[TopicPartition, int]:
        return self._inner.appended_at()

    def commit(self, timeout_s: float | None = None) -> None:
        ending = self._kill.due(Point.DURING_COMMIT)
        if ending:
            threading.Timer(COMMIT_DELAY_S, _kill).start()
        self._inner.commit(timeout_s)
        if ending:
            threading.Event().wait()  # the kill is coming
        self._kill.reached(Point.AFTER_COMMIT)

    def abort(self, timeout_s: float | None = None) -> None:
        self._inner.abort(timeout_s)
        self._barrier = False

    def close(self) -> None:
        self._inner.close()

    def _reached(self, point: Point) -> None:
        if not self._barrier:
            self._kill.reached(point)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the command until it is killed."""
    point, nth, *arguments = sys.argv[1:]
    kill = _KillAt(Point[point], int(nth))

    class Producers:
        def __init__(self, settings: KafkaSettings, limits: ProducerLimits) -> None:
            self._inner = KafkaProducers(settings, limits)

        def open(self, transactional_id: str) -> _Producer:
            return _Producer(self._inner.open(transactional_id), kill)

    for module in ("pipeline.cli.produce", "pipeline.processes.wiring"):
        vars(importlib.import_module(module))["KafkaProducers"] = Producers
    sys.argv = ["pipeline", *arguments]
    command()


if __name__ == "__main__":
    main()
