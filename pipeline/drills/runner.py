"""Runs one drill: `Runner`. `plan` changes nothing; `run` returns the report.

1 refuse, unless the app is allowed, no other drill of it is open, and it is in a steady state
2 observe the steady state, and check the preconditions of the drill
3 write the intent
4 perform the drill; observe until an abort condition is true, or the app has recovered
5 undo what is left of the change, the last step first; wait until all tasks are live
6 judge the journals and the states of local workers, write the report, and delete the intent if everything was restored

A worker applies a commit after Kafka has confirmed it. So a state that contains an entry which the journal does not
have proves a loss (`check_applied_states`). The judge alone cannot see that the last entry is missing, because no later
one continues it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

from pipeline.config import Settings
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition, decode_position
from pipeline.core.suggestions import are, counted
from pipeline.drills.assembling import Outcome, assemble_report
from pipeline.drills.conditions import Condition
from pipeline.drills.containers import Engine, find_containers
from pipeline.drills.drill import AbortedError, Drill, Plan, Run, UnrecoveredError
from pipeline.drills.intent import IntentFile, undo
from pipeline.drills.observation import Observer, Sample
from pipeline.drills.report import Report, Restored, Verdict
from pipeline.drills.scene import Options, RefusedDrillError, Scene, WorkerTarget
from pipeline.drills.timeline import LogMarks
from pipeline.drills.workers import LocalWorker, find_workers
from pipeline.errors import PipelineError
from pipeline.ports import CheckpointStore, Clock, Cluster, Deadline, JournalReader
from pipeline.rocksdb.rocks import RocksStores

__all__ = ["Runner", "check_allowed", "check_applied_states"]

_POLL_S = 0.2
_VISIBLE_S = 10.0  # until readers see what a worker has applied
_CACHE_BYTES = 8 << 20


def check_allowed(app: str, settings: Settings) -> None:
    """Raise RefusedDrillError unless the settings allow drills of the app."""
    if app not in settings.drills.allow:
        raise RefusedDrillError(
            "not-allowed",
            f"drills.allow does not name app {app}",
            hint=f'set allow = ["{app}"] under [drills] in pipeline.toml, where its workers may be harmed',
        )


class Runner:
    """Runs drills of one app.

    `say`: reports progress to the operator. `engine`: that of workers in containers; None: only processes of this host.
    """

    def __init__(
        self,
        app: str,
        settings: Settings,
        cluster: Cluster,
        reader: JournalReader,
        store: CheckpointStore | None,
        clock: Clock,
        say: Callable[[str], None],
        engine: Engine | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._cluster = cluster
        self._reader = reader
        self._store = store
        self._clock = clock
        self._say = say
        self._engine = engine
        self._intent = IntentFile(settings.drills.directory, app)

    def plan(self, drill: Drill, options: Options) -> tuple[Plan, list[str]]:
        """The plan, and the preconditions that are met. Raises RefusedDrillError for one that is not."""
        scene, _ = self._scene(options)
        met = self._check(drill, scene)
        return self._planned(drill, scene), met

    def run(self, drill: Drill, options: Options, confirm: Callable[[Plan], None]) -> Report:
        """Run a drill. `confirm`: raises if the operator does not agree to the plan.

        Raises RefusedDrillError, UnreachableError and what `confirm` raises; then nothing was changed.
        """
        scene, observer = self._scene(options)  # 1
        began_ms = self._clock.wall_ms()
        met = self._check(drill, scene)
        plan = self._planned(drill, scene)
        confirm(plan)
        self._say(f"observing the steady state for {self._settings.drills.steady_s:.0f} s")
        self._observe(observer)  # 2
        scene.sample = observer.samples[-1]
        scene.workers = self._workers(scene.sample)
        met += self._check_steady(observer)
        plan = self._planned(drill, scene)
        steady = observer.steady_state(began_ms)
        logs = LogMarks.of(scene.workers)
        identity = f"{drill.name}-{began_ms}"
        servers = self._settings.kafka.bootstrap_servers
        self._intent.begin(IntentFile.new(identity, drill.name, self._app, servers, self._clock))  # 3
        run = Run(scene, observer, self._intent, self._say, self._conditions(options), plan.tasks)
        verdict = self._perform(drill, run, plan)  # 4
        recovered_ms = self._clock.wall_ms()
        restored = self._restore()  # 5
        settled = self._settle(run)
        observer.look(status=True)
        check_applied_states(observer, self._workers(observer.samples[-1]), self._clock)
        if not settled and verdict == "held":
            verdict = "deviated"
            run.deviations.append("not all tasks are live after everything was restored")
        if any(each.failed for each in restored):
            verdict = "not restored"
        outcome = Outcome(
            run, drill, plan, steady, met, restored, verdict, began_ms, recovered_ms, identity, logs
        )
        report = assemble_report(outcome)  # 6
        if report.verdict != "not restored":
            self._intent.end()
        return report

    def _scene(self, options: Options) -> tuple[Scene, Observer]:
        check_allowed(self._app, self._settings)
        open_intent = self._intent.read()
        if open_intent is not None:
            state = "runs" if open_intent.driller.alive else "was killed and has not been undone"
            raise RefusedDrillError(
                "drill-open",
                f"drill {open_intent.id} of app {self._app} {state}",
                hint="wait for it, or end it: pipeline drill abort"
                if open_intent.driller.alive
                else f"restore what it changed: pipeline drill undo --app {self._app}",
            )
        observer = Observer(self._app, self._cluster, self._reader, self._clock)
        sample = observer.begin()
        workers = self._workers(sample)
        return (
            Scene(
                self._app, self._settings, options, self._cluster, self._reader, self._clock, self._store,
                sample, workers,
            ),
            observer,
        )  # fmt: skip

    def _workers(self, sample: Sample) -> list[WorkerTarget]:
        found: list[WorkerTarget] = [*find_workers(self._app, sample.members)]
        if self._engine is not None:
            found += find_containers(self._app, sample.members, self._engine)
        return sorted(found, key=lambda worker: worker.worker)

    def _check(self, drill: Drill, scene: Scene) -> list[str]:
        return [f"drills.allow names app {self._app}", "no other drill is open", *drill.check(scene)]

    def _planned(self, drill: Drill, scene: Scene) -> Plan:
        plan = drill.plan(scene)
        limit = scene.options.max_tasks
        if limit is not None and len(plan.tasks) > limit:
            raise RefusedDrillError(
                "too-many-tasks",
                f"{drill.name} would affect {counted(len(plan.tasks), 'task')}, and --max-tasks is {limit}",
                hint="choose a worker with fewer tasks with --worker, or raise --max-tasks",
            )
        return plan

    def _observe(self, observer: Observer) -> None:
        deadline = Deadline(self._clock, self._settings.drills.steady_s, _POLL_S)
        while not deadline.has_passed():
            observer.look()
            deadline.pause()
        observer.look(status=True)

    def _check_steady(self, observer: Observer) -> list[str]:
        sample = observer.samples[-1]
        if observer.unreachable_ms:
            raise RefusedDrillError(
                "not-steady", "Kafka was unreachable before the fault", hint="repair it first"
            )
        waiting = [status for status in sample.status.tasks if status.phase != "live"]
        if waiting:
            first = waiting[0]
            raise RefusedDrillError(
                "not-steady",
                f"{len(waiting)} of {counted(len(sample.status.tasks), 'task')} {are(len(waiting))} not live: "
                f"{first.task} is {first.phase.value}",
                hint=f"repair them first: pipeline status {self._app}",
            )
        count = len(sample.status.tasks)
        return [f"every task is live: {counted(count, 'task')}"]

    def _conditions(self, options: Options) -> Sequence[Condition]:
        return [*options.abort_if, Condition("elapsed_s", ">", self._settings.drills.timeout_s * 3)]

    def _perform(self, drill: Drill, run: Run, plan: Plan) -> Verdict:
        try:
            drill.perform(run, plan)
        except AbortedError as aborted:
            self._say(f"aborted: {aborted}")
            return "aborted"
        except PipelineError as error:
            self._say(f"deviated: {error.message}")
            run.deviations.append(error.message)
            return "deviated"
        except (UnrecoveredError, OSError) as error:
            # OSError: such as a directory that cannot be moved. The runner undoes what the drill has changed before.
            self._say(f"deviated: {error}")
            run.deviations.append(str(error))
            return "deviated"
        except KeyboardInterrupt:
            run.fired = "Ctrl-C"
            self._say("aborted: Ctrl-C")
            return "aborted"
        return "held"

    def _restore(self) -> list[Restored]:
        intent = self._intent.read()
        found = []
        for each in undo(intent, self._clock) if intent is not None else ():
            self._say(f"restore: {each.what}: {each.result}")
            found.append(each)
        return found

    def _settle(self, run: Run) -> bool:
        """Wait until all tasks are live on as many workers as before. No abort condition counts any more."""
        wanted = len(run.scene.sample.status.workers)
        deadline = Deadline(self._clock, self._settings.drills.timeout_s, _POLL_S)
        while not deadline.has_passed():
            sample = run.observer.look()
            if sample.all_live() and len(sample.status.workers) == wanted:
                return True
            with suppress(KeyboardInterrupt):
                deadline.pause()
        return False


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
