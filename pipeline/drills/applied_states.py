"""Compares the states of local workers with the journals at the end of a drill: `check_applied_states`.

A worker applies a commit after Kafka has confirmed it. So a state that contains an entry which the journal does not
have proves a loss. The judge alone cannot see that the last entry is missing, because no later one continues it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition, decode_position
from pipeline.drills.drill import WorkerTarget
from pipeline.drills.observation import Observer
from pipeline.drills.workers import LocalWorker
from pipeline.errors import PipelineError
from pipeline.ports import Clock, Deadline
from pipeline.rocksdb.rocks import RocksStores

__all__ = ["check_applied_states"]

_VISIBLE_S = 10.0  # until readers see what a worker has applied
_POLL_S = 0.2
_CACHE_BYTES = 8 << 20


class _Applied(NamedTuple):
    worker: str
    task: TaskId
    position: AppliedPosition


def check_applied_states(observer: Observer, workers: Sequence[WorkerTarget], clock: Clock) -> None:
    """Let the judge report each entry that a worker of this host has applied and that its journal does not have."""
    pending = list(_applied(observer, workers))
    deadline = Deadline(clock, _VISIBLE_S, _POLL_S)
    while pending:
        observer.look()
        pending = [each for each in pending if not observer.judge.has(each.task, each.position.chain)]
        if not deadline.pause():
            break
    for each in pending:
        # Otherwise the journal was not read up to there, for example because Kafka is unreachable.
        if observer.judge.next_offset(each.task) > each.position.offset:
            observer.judge.miss(each.task, each.position, each.worker)


def _applied(observer: Observer, workers: Sequence[WorkerTarget]) -> Iterator[_Applied]:
    """The applied positions of the tasks that these workers own. A state that cannot be read is left out."""
    sample = observer.samples[-1]
    for worker in workers:
        if not isinstance(worker, LocalWorker):
            continue
        stores = RocksStores(worker.place.parent, _CACHE_BYTES)
        for task in observer.tasks:
            status = sample.of(task)
            if status is None or status.worker != worker.worker:
                continue
            with suppress(PipelineError), closing(stores.open_read_only(task)) as view:
                data = view.position()
                if data is not None:
                    yield _Applied(worker.worker, task, decode_position(data, str(task)))
