"""The drill shadow-replay: processes the retained input again in a shadow app, and compares rows and outputs.

    1 note the ends: of the outputs, of the journals, and of the outputs again; restore the live states at starts and
      ends, because later the live app may delete what they are restored from
    2 create the topics of the shadow app, and start its process (`shadow_worker.py`)
    3 wait until each of its tasks has reached the end of its replay
    4 end the process
    5 compare each output topic with its shadow, and the rows of each task with the live rows at the same position

The live app is only read: the shadow app has another name, and so its own journals, groups and transactional ids, and
its outputs go to topics of its own (`shadow_ports.py`). The live rows come from checkpoint and journal.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.api.app import DeclaredApp
from pipeline.api.declared_group import DeclaredGroup
from pipeline.core.names import TaskId, TopicPartition, shadow_app, shadow_output
from pipeline.core.records import iso_time
from pipeline.core.suggestions import counted
from pipeline.directories import make_private
from pipeline.drills.drill import Drill, Plan, Run, UnrecoveredError
from pipeline.drills.intent import DeleteShadow, RemovePath
from pipeline.drills.scene import RefusedDrillError, Scene, environment_of
from pipeline.drills.shadow_comparison import OutputEnds, compare_rows, compare_topics
from pipeline.drills.shadow_spec import ENDS, STARTS, ShadowSpec, ShadowTask
from pipeline.drills.shadow_starts import (
    START_REFUSALS,
    LiveTask,
    common_start_ms,
    parse_since,
    shadow_task,
    start_text,
)
from pipeline.errors import InputError, RetriableError
from pipeline.ops.history.past_states import AtEntry, restore_at
from pipeline.ops.reading import last_committed
from pipeline.ports import Attempts, Deadline, TopicInfo, TopicSpec
from pipeline.processes.lifeline import TiedProcess
from pipeline.rocksdb.rocks import RocksStores
from pipeline.runtime.commit.journal_reader import last_entry
from pipeline.runtime.environment import Environment

__all__ = ["ShadowReplay"]

_CACHE_BYTES = 8 << 20
_LOOK_S = 0.5
_READS = 5
_STABLE_S = 60.0
_END_S = 40.0
_HEADER_BYTES = 1024  # more than the header that names the task of an output
_LOG_LINES = 12


class ShadowReplay(Drill):
    """Process the input again in a shadow app, and compare."""

    name = "shadow-replay"
    summary = "process the retained input again in a shadow app, and compare its rows and outputs with the live ones"
    hypothesis = (
        "The code of this directory gives exactly the rows and outputs of the live app for the same input."
    )

    def __init__(self, declared: DeclaredApp | None = None) -> None:
        self._declared = declared

    def check(self, scene: Scene) -> Iterator[str]:
        groups = self._groups(scene)
        for group in self._app(scene).groups:
            if group.sinks:
                yield f"the sinks of group {group.name} are not replayed, and their database is not touched"
        for group in groups:
            if len(group.inputs) > 1:
                yield (
                    f"group {group.name} reads {counted(len(group.inputs), 'topic')}: the order of their records "
                    "relative to each "
                    "other is not recorded, so a difference may come from this order"
                )
        yield from start_text(self._tasks(scene, groups))

    def plan(self, scene: Scene) -> Plan:
        groups = self._groups(scene)
        tasks = self._tasks(scene, groups)
        count = sum(max(0, task.end[name] - task.start[name]) for task in tasks for name in task.end)
        offsets = counted(count, "input offset")
        return Plan(
            f"{counted(len(tasks), 'task')} of " + ", ".join(f"group {group.name}" for group in groups),
            [
                f"create topics {scene.app}-shadow-..., which the drill deletes at its end",
                f"run the handlers of {scene.options.target} in this directory on about {offsets}",
                "repeat the effects of these handlers outside Kafka, such as HTTP calls",
                "compare rows and outputs with those of the live app",
            ],
            "the app is not touched; the shadow app uses CPU of this host, and reads from the same brokers",
            [],
            0.0,
        )

    def perform(self, run: Run, plan: Plan) -> None:
        del plan
        scene, groups = run.scene, self._groups(run.scene)
        with environment_of(scene) as environment:
            shadow = shadow_app(scene.app, run.clock.wall_ms())
            place = scene.settings.drills.directory.absolute() / shadow
            run.will_undo(RemovePath(str(place)))
            make_private(place)
            ends, tasks = self._note_ends(run, groups, place, environment)  # 1
            topics = environment.cluster.describe(sorted(self._app(scene).topics))
            outputs = {name: shadow_output(shadow, name) for name in topics}
            spec = ShadowSpec(scene.app, shadow, str(place), outputs, tasks)
            run.will_undo(
                DeleteShadow(shadow, [group.name for group in groups], scene.settings.kafka.bootstrap_servers)
            )
            spec.write(place / "shadow.json")
            run.act(f"create {counted(len(outputs), 'topic')} {shadow}-out-...", fault=False)
            environment.cluster.create([_spec_of(info, outputs[name]) for name, info in topics.items()])
            self._replay(run, spec, place, environment)  # 2 to 4
            written = compare_topics(run, spec, ends, topics, environment)  # 5
            for task in tasks:
                compare_rows(run, spec, task, environment)
                run.pause(0.0)
            run.proves(
                f"{counted(run.compared, 'state')} and {counted(run.outputs_compared, 'output')} of "
                f"{counted(written, 'topic')} were compared"
            )
        run.notes.append(
            "dead letters, sinks and effects outside Kafka were not compared. Handlers that use the time, random "
            "numbers, effect_key or other systems may differ in each replay"
        )

    def _app(self, scene: Scene) -> DeclaredApp:
        declared = self._declared
        if declared is None:
            raise RefusedDrillError(
                "code-needed",
                "the handlers of the app are not known, and the shadow app runs them",
                hint="name the app as MODULE:APP with --app, in the directory with its code",
            )
        if declared.name != scene.app:
            raise RefusedDrillError(
                "another-app",
                f"{scene.options.target} is app {declared.name}, and not {scene.app}",
                hint=f"name the app {scene.app} with --app MODULE:APP",
            )
        return declared

    def _groups(self, scene: Scene) -> list[DeclaredGroup]:
        """The groups to replay. Raises RefusedDrillError."""
        app = self._app(scene)
        groups = [group for group in app.groups if not group.sinks]
        if not groups:
            raise RefusedDrillError(
                "only-sinks",
                f"app {app.name} has only sinks, and a shadow app would write to their databases",
                hint="compare the rows with a query in the database",
            )
        timed = [group.name for group in groups if not group.is_replayable]
        if timed:
            raise RefusedDrillError(
                "has-windows",
                f"group {timed[0]} has windows, timers or event times: when its inputs were idle is not recorded, so a "
                "replay would find other events late",
                hint="compare the results of closed windows over a longer time",
            )
        live = {status.task.group for status in scene.sample.status.tasks}
        missing = [group.name for group in groups if group.name not in live]
        if missing:
            raise RefusedDrillError(
                "group-not-live",
                f"group {missing[0]} of the code does not run in the live app",
                hint="deploy it first; there is nothing to compare it with",
            )
        return groups

    def _tasks(self, scene: Scene, groups: Sequence[DeclaredGroup]) -> list[ShadowTask]:
        """What would be replayed of each task now. Raises RefusedDrillError, with a start that all tasks have."""
        live = self._live(scene, groups)
        try:
            found = [self._task(scene, each, None) for each in live]
        except RefusedDrillError as refused:
            if refused.name not in START_REFUSALS:
                raise
            start_ms = None
            with suppress(RetriableError):  # a journal was truncated meanwhile
                start_ms = common_start_ms(live, scene.reader)
            if start_ms is None:
                raise
            hint = f"begin at a time from which all tasks can be replayed: --from {iso_time(start_ms)}"
            raise RefusedDrillError(refused.name, refused.reason, hint=hint) from refused
        return _not_empty(found)

    @staticmethod
    def _live(scene: Scene, groups: Sequence[DeclaredGroup]) -> list[LiveTask]:
        """The chosen tasks."""
        by_name, chosen = {group.name: group for group in groups}, scene.options.task
        tasks = [status.task for status in scene.sample.status.tasks if status.task.group in by_name]
        count = Counter(task.group for task in tasks)
        return [
            LiveTask(task, by_name[task.group], count[task.group])
            for task in tasks
            if chosen is None or chosen.means(task)
        ]

    @staticmethod
    def _task(scene: Scene, live: LiveTask, end: int | None) -> ShadowTask:
        """What is replayed of one task. The journal is read again if its worker truncates it meanwhile."""
        since = parse_since(scene.options.since)
        again = Attempts(scene.clock, _READS, lambda: _LOOK_S)
        while True:
            try:
                return shadow_task(
                    live,
                    since,
                    end if end is not None else scene.reader.bounds(live.task.journal).stable_end,
                    scene.reader,
                    checkpoints=scene.store is not None,
                )
            except RetriableError:
                if not again.pause():
                    raise

    def _note_ends(
        self, run: Run, groups: Sequence[DeclaredGroup], place: Path, environment: Environment
    ) -> tuple[OutputEnds, list[ShadowTask]]:
        """Step 1. The ends of the outputs are read before and after those of all journals."""
        topics = environment.cluster.describe(sorted(self._app(run.scene).topics))
        places = [TopicPartition(info.name, n) for info in topics.values() for n in range(info.partitions)]
        reader = run.scene.reader
        certain = reader.stable_ends(places)
        tasks = _not_empty(
            [self._restored(run, live, place, environment) for live in self._live(run.scene, groups)]
        )
        possible = {place: reader.bounds(place).end for place in places}
        _wait_until_stable(run, possible)
        run.act(f"restore the live states of {counted(len(tasks), 'task')} in {place}", fault=False)
        return OutputEnds(certain, possible), tasks

    def _restored(self, run: Run, live: LiveTask, place: Path, environment: Environment) -> ShadowTask:
        """Note the end of a task, and restore its live states at once: its worker deletes old checkpoints."""
        again, task = Attempts(run.clock, _READS, lambda: _LOOK_S), live.task
        while True:
            run.pause(0.0)
            end = run.scene.reader.bounds(task.journal).end
            _wait_until_stable(run, {task.journal: end})
            found = self._task(run.scene, live, end)
            try:
                if found.seq != found.end_seq:
                    _restore(task, found.end_seq, place / ENDS, environment)
                    if found.seq:
                        _restore(task, found.seq, place / STARTS, environment)
            except InputError:
                if not again.pause():
                    raise
                for name in (STARTS, ENDS):
                    shutil.rmtree(RocksStores(place / name, _CACHE_BYTES).path(task), ignore_errors=True)
            else:
                return found

    def _replay(self, run: Run, spec: ShadowSpec, place: Path, environment: Environment) -> None:
        """Steps 2 to 4."""
        log = place / "worker.log"
        command = [
            *(sys.executable, "-m", "pipeline", "drill", "shadow-worker", run.scene.options.target),
            *(str(place / "shadow.json"), "--log", str(log)),
            *("--kafka", run.scene.settings.kafka.bootstrap_servers, "--supervised"),
        ]
        process = TiedProcess(command)
        try:
            run.act(f"start the shadow app {spec.shadow}, process {process.pid}", fault=False)
            began_s = run.clock.monotonic_s()
            pending = _Pending(spec, environment, run)
            while pending.tasks:
                before = pending.reached
                run.wait(
                    lambda before=before: (
                        _ended(process, log) or pending.look() > before or not pending.tasks
                    ),  # type: ignore[misc]
                    f"progress of the shadow app (its log: {_tail(log)})",
                )
            run.act(
                f"{counted(len(spec.tasks), 'task')} of the shadow app processed "
                f"{counted(pending.reached, 'input offset')} in "
                f"{run.clock.monotonic_s() - began_s:.1f} s",
                fault=False,
            )
        finally:
            _end(process, run)


class _Pending:
    """The tasks that have not reached the end of their replay. `reached`: the offsets that are processed."""

    def __init__(self, spec: ShadowSpec, environment: Environment, run: Run) -> None:
        self._spec = spec
        self._environment = environment
        self._run = run
        self._done = dict.fromkeys((task.task(spec.shadow) for task in spec.tasks), 0)
        self._next_s = 0.0
        self.tasks = list(spec.tasks)

    @property
    def reached(self) -> int:
        return sum(self._done.values())

    def look(self) -> int:
        """Read the shadow journals, at most twice per second. Returns the offsets that are processed."""
        if self._run.clock.monotonic_s() < self._next_s:
            return self.reached
        self._next_s = self._run.clock.monotonic_s() + _LOOK_S
        found = {task.task(self._spec.shadow).group_id.journal_topic for task in self.tasks}
        if len(self._environment.cluster.describe(sorted(found))) == len(found):
            self.tasks = [task for task in self.tasks if not self._reached(task)]
        return self.reached

    def _reached(self, task: ShadowTask) -> bool:
        """Whether no committed input record is between the position of the shadow task and the end."""
        own, reader = task.task(self._spec.shadow), self._run.scene.reader
        last = last_entry(own.journal, reader)
        if last is None or last.entry.seq < 3 or not last.entry.positions:  # before its acquire
            return False
        at = last.entry.positions
        self._done[own] = sum(max(0, at.get(name, 0) - task.start[name]) for name in task.end)
        for name, end in task.end.items():
            place = task.inputs.place(name)
            position = at.get(name, 0)
            if position < end and last_committed(reader, place, position, end) is not None:
                return False
        return True


def _not_empty(tasks: Sequence[ShadowTask]) -> list[ShadowTask]:
    """The tasks of which something is replayed. Raises RefusedDrillError if there is none."""
    found = [task for task in tasks if task.seq != task.end_seq]
    if not found:
        raise RefusedDrillError(
            "nothing-to-replay",
            "no task has an entry after this start",
            hint="choose an earlier --from, or another --task",
        )
    return found


def _restore(task: TaskId, seq: int, place: Path, environment: Environment) -> None:
    restore_at(task, AtEntry(seq), environment, RocksStores(place, _CACHE_BYTES)).store.close()


def _wait_until_stable(run: Run, ends: Mapping[TopicPartition, int]) -> None:
    """Wait until committed readers reach these ends. Raises UnrecoveredError."""
    deadline = Deadline(run.clock, _STABLE_S, 0.1)
    while True:
        found = run.scene.reader.stable_ends(list(ends)) if ends else {}
        late = [place for place, end in ends.items() if found[place] < end]
        if not late:
            return
        if not deadline.pause():
            raise UnrecoveredError(f"{late[0]} has had an open transaction for {_STABLE_S:.0f} s")


def _spec_of(info: TopicInfo, name: str) -> TopicSpec:
    """The shadow of a topic: as many partitions, and no record is deleted or compacted."""
    config = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
    if "max.message.bytes" in info.config:
        config["max.message.bytes"] = str(int(info.config["max.message.bytes"]) + _HEADER_BYTES)
    if "message.timestamp.type" in info.config:
        config["message.timestamp.type"] = info.config["message.timestamp.type"]
    return TopicSpec(name, info.partitions, 0, config)


def _ended(process: TiedProcess, log: Path) -> bool:
    code = process.poll()
    if code is not None:
        raise UnrecoveredError(f"the shadow app ended with code {code}: {_tail(log)}")
    return False


def _end(process: TiedProcess, run: Run) -> None:
    """SIGTERM, and SIGKILL if it does not stop."""
    if process.poll() is not None:
        return
    process.terminate()
    deadline = Deadline(run.clock, _END_S, 0.1)
    while process.poll() is None:
        if not deadline.pause():
            process.kill()


def _tail(log: Path) -> str:
    """The last lines of the log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "it has no log yet"
    return " | ".join(lines[-_LOG_LINES:])
