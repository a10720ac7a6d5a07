"""Drills on states, which change nothing of the app: replay-from-checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pipeline.api.app import DeclaredApp
from pipeline.core.entry_body import format_of, identity_partitions
from pipeline.core.names import TaskId
from pipeline.core.position import decode_position
from pipeline.core.suggestions import counted
from pipeline.drills.drill import Drill, Plan, Run, UnrecoveredError
from pipeline.drills.observation import short
from pipeline.drills.report import Effect
from pipeline.drills.row_differences import RowDifference, different_rows, rows_of, table_of
from pipeline.drills.scene import RefusedDrillError, Scene
from pipeline.ops.history.past_states import (
    AtEntry,
    EntryNotWrittenError,
    PastState,
    restore_at,
    state_hash,
)
from pipeline.ops.history.row_changes import row_histories
from pipeline.ports import Deadline
from pipeline.processes.wiring import build_environment
from pipeline.rocksdb.rocks import RocksStores
from pipeline.rocksdb.store import RocksView
from pipeline.runtime.environment import Environment

__all__ = ["ReplayFromCheckpoint"]

_CACHE_BYTES = 8 << 20
_VISIBLE_S = 30.0  # until a broker shows an entry that a worker has applied
_POLL_S = 0.5
_SHOWN = 3  # rows that differ, per task


class _LiveState(NamedTuple):
    """The local state of a live task, as it is on disk. `view` is read-only, and does not change."""

    task: TaskId
    seq: int
    view: RocksView


class ReplayFromCheckpoint(Drill):
    """Restore checkpoint and journal in a scratch directory, and compare with the live state."""

    name = "replay-from-checkpoint"
    summary = "restore each task of a worker in a scratch directory, and compare it with the live state"
    hypothesis = "Checkpoint and journal give exactly the rows of the live state at the same entry."

    def check(self, scene: Scene) -> Iterator[str]:
        victim = scene.local_victim()
        yield f"the state directory of worker {victim.worker} is {victim.place.parent}"
        tasks = self._tasks(scene)
        if not tasks:
            chosen = "" if scene.options.task is None else f" {scene.options.task}"
            raise RefusedDrillError(
                "no-task",
                f"worker {victim.worker} runs no task{chosen} with a state that could be compared",
                hint=f"see which worker runs which task: pipeline status {scene.app} --tasks",
            )
        for status in scene.statuses(tasks):
            start = scene.reader.bounds(status.task.journal).start
            if start and scene.store is None:
                raise RefusedDrillError(
                    "no-store",
                    f"the journal of task {status.task} begins at offset {start}, and no checkpoint store is set",
                    hint="set worker.checkpoint_store to the store of the workers",
                )
        yield "each task can be restored without the live state"

    def plan(self, scene: Scene) -> Plan:
        victim = scene.local_victim()
        tasks = self._tasks(scene)
        return Plan(
            f"{counted(len(tasks), 'task')} of worker {victim.worker}",
            ["restore each task in a scratch directory", "compare the hash of its rows with the live state"],
            "the app is not touched",
            [],
            0.0,
        )

    def perform(self, run: Run, plan: Plan) -> None:
        del plan
        scene = run.scene
        stores = RocksStores(scene.local_victim().place.parent, _CACHE_BYTES)
        environment = build_environment(DeclaredApp(scene.app), scene.settings)
        try:
            for task in self._tasks(scene):
                with tempfile.TemporaryDirectory(prefix="pipeline-drill-") as scratch:
                    self._compare(run, _live(task, stores), environment, Path(scratch))
                run.pause(0.0)
        finally:
            environment.executor.close()
            if environment.checkpoints is not None:
                environment.checkpoints.transfers.close()
            environment.cluster.close()
        run.proves(
            f"{counted(run.compared, 'state')} {'was' if run.compared == 1 else 'were'} restored and compared"
        )

    @staticmethod
    def _tasks(scene: Scene) -> list[TaskId]:
        chosen = scene.options.task
        live = [status.task for status in scene.sample.status.tasks if not status.database]
        mine = [task for task in scene.tasks_of(scene.local_victim().worker) if task in live]
        return [task for task in mine if chosen is None or chosen.means(task)]

    @staticmethod
    def _compare(run: Run, live: _LiveState, environment: Environment, scratch: Path) -> None:
        with closing(live.view):
            past = _restored(run, live, environment, scratch)
            with closing(past.store):
                now, then = state_hash(live.view), state_hash(past.store)
                run.compared += 1
                run.equal += now == then
                source = f"checkpoint {past.start.ref.seq}" if past.start is not None else "the first entry"
                verdict = "equal" if now == then else "DIFFERENT"
                run.act(
                    f"task {short(live.task)} at entry {live.seq}, from {source} and "
                    f"{counted(past.replayed, 'entry')}: "
                    f"hash {then}, live {now}, {verdict}"
                )
                if now != then:
                    run.effects += _differences(live, past, environment)


def _live(task: TaskId, stores: RocksStores) -> _LiveState:
    view = stores.open_read_only(task)
    data = view.position()
    if data is None:
        view.close()
        raise UnrecoveredError(f"the local state of task {task} is empty")
    return _LiveState(task, decode_position(data, str(task)).seq, view)


def _restored(run: Run, live: _LiveState, environment: Environment, scratch: Path) -> PastState:
    """Restore the state at the entry of the live state. A broker may show an entry after its worker has applied it."""
    deadline = Deadline(run.clock, _VISIBLE_S, _POLL_S)
    while True:
        try:
            return restore_at(live.task, AtEntry(live.seq), environment, RocksStores(scratch, _CACHE_BYTES))
        except EntryNotWrittenError:
            if not deadline.pause():
                raise


def _differences(live: _LiveState, past: PastState, environment: Environment) -> Iterator[Effect]:
    """The first rows that differ, each with the input offset at which its last write begins."""
    identity, task = past.applied.identity, live.task.number
    tables, several = identity.tables, len(identity_partitions(identity, task)) > 1
    now, then = (rows_of(state.scan(b""), format_of(identity), task) for state in (live.view, past.store))
    found = different_rows(now, then)
    shown = list(islice(found, _SHOWN))
    more = sum(1 for _ in found)
    for number, row in enumerate(shown, 1):
        topic, offset, origin = _last_write(live, row, tables, environment)
        rest = f"; and {counted(more, 'more row')} of this task" if more and number == len(shown) else ""
        yield Effect(
            kind="state",
            task=short(live.task),
            topic=topic,
            offset=offset,
            journal_offset=past.entry.offset,
            text=f"{row.describe(tables, several=several)}; {origin}{rest}",
        )


def _last_write(
    live: _LiveState, row: RowDifference, tables: Iterable[str], environment: Environment
) -> tuple[str, int | None, str]:
    """(input topic, first offset, words) of the last entry up to the live state's that wrote the row."""
    partition, key = row.place
    for history in row_histories(live.task, table_of(key, tables), key, environment, only=partition):
        changes = [change for change in history.changes if change.entry.entry.seq <= live.seq]
        if not changes:
            break
        entry = changes[-1].entry.entry
        for topic, (first, end) in history.moved(changes[-1]).items():
            shown = history.label(topic)
            return shown, first, f"entry {entry.seq} wrote it last, from {shown} offsets {first} to {end - 1}"
        return "", None, f"entry {entry.seq} wrote it last"
    return "", None, "no entry of the journal wrote it, so its value is from the checkpoint"
