"""Drills on states, which change nothing of the app: replay-from-checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from pipeline.api.app import DeclaredApp
from pipeline.core.names import TaskId
from pipeline.core.position import decode_position
from pipeline.drills.drill import Drill, Plan, RefusedDrillError, Run, Scene, UnrecoveredError
from pipeline.drills.observation import short
from pipeline.drills.report import Effect
from pipeline.ops.history.past_states import AtEntry, PastState, restore_at, state_hash
from pipeline.processes.wiring import build_environment
from pipeline.rocksdb.rocks import RocksStores
from pipeline.rocksdb.store import RocksView
from pipeline.runtime.environment import Environment

__all__ = ["ReplayFromCheckpoint"]

_CACHE_BYTES = 8 << 20


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
        for status in scene.statuses(self._tasks(scene)):
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
            f"{len(tasks)} tasks of worker {victim.worker}",
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
        run.proves(f"{run.compared} states were restored and compared")

    @staticmethod
    def _tasks(scene: Scene) -> list[TaskId]:
        chosen = scene.options.task
        live = [status.task for status in scene.sample.status.tasks if not status.database]
        mine = [task for task in scene.tasks_of(scene.local_victim().worker) if task in live]
        return [task for task in mine if chosen is None or task.partition == chosen]

    @staticmethod
    def _compare(run: Run, live: _LiveState, environment: Environment, scratch: Path) -> None:
        with closing(live.view):
            past = restore_at(live.task, AtEntry(live.seq), environment, RocksStores(scratch, _CACHE_BYTES))
            with closing(past.store):
                now, then = state_hash(live.view), state_hash(past.store)
                run.compared += 1
                run.equal += now == then
                source = f"checkpoint {past.start.ref.seq}" if past.start is not None else "the first entry"
                verdict = "equal" if now == then else "DIFFERENT"
                run.act(
                    f"task {short(live.task)} at entry {live.seq}, from {source} and {past.replayed} entries: "
                    f"hash {then}, live {now}, {verdict}"
                )
                if now != then:
                    run.effects.append(_difference(live, past))


def _live(task: TaskId, stores: RocksStores) -> _LiveState:
    view = stores.open_read_only(task)
    data = view.position()
    if data is None:
        view.close()
        raise UnrecoveredError(f"the local state of task {task} is empty")
    return _LiveState(task, decode_position(data, str(task)).seq, view)


def _difference(live: _LiveState, past: PastState) -> Effect:
    """The first key whose rows differ."""
    now, then = iter(live.view.scan(b"")), iter(past.store.scan(b""))
    while True:
        ours, theirs = next(now, None), next(then, None)
        if ours == theirs and ours is not None:
            continue
        keys = [row[0] for row in (ours, theirs) if row is not None]
        key = min(keys) if keys else b""
        table, rest = key[:4].hex(), key[4:]
        values = [row[1][:60] if row is not None and row[0] == key else None for row in (ours, theirs)]
        return Effect(
            kind="state",
            task=short(live.task),
            topic="",
            offset=None,
            journal_offset=past.entry.offset,
            text=f"the first row that differs has key {rest!r} in the table with id {table}: live {values[0]!r}, "
            f"replayed {values[1]!r}",
        )
