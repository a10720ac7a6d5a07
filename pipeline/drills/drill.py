"""The interface of a drill: `Drill`; and what it may do: `Run`. What it may look at is `scene.Scene`.

A drill is a class with a name, a hypothesis, preconditions, a plan, and one method that performs it from the fault to
the recovery. `Run` notes how to undo each change before it is made. While a drill waits, `Run` observes the app, and
ends the drill when an abort condition becomes true.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TaskId
from pipeline.core.suggestions import counted
from pipeline.drills.conditions import Condition
from pipeline.drills.intent import IntentFile, Step
from pipeline.drills.observation import Observer, short
from pipeline.drills.report import Effect, Evidence, Finding
from pipeline.drills.scene import Scene
from pipeline.ports import Clock, Deadline

__all__ = [
    "AbortedError",
    "Drill",
    "Plan",
    "Run",
    "UnrecoveredError",
]

_POLL_S = 0.1
_SMALL_LAG = 50  # records that may be in a commit in progress


class AbortedError(Exception):
    """An abort condition has become true, or an operator has asked for it."""


class UnrecoveredError(Exception):
    """The app did not recover in time, or the fault did not take effect."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a drill would do. `tasks`: those that it should affect. `predicted_s`: until the last of them commits."""

    target: str
    actions: Sequence[str]
    effect: str
    tasks: Sequence[TaskId]
    predicted_s: float


@dataclass
class Run:
    """A drill that runs. Every wait observes the app.

    `injected_ms`: the fault. `healed_ms`: its end, if no task could commit until then. `struck_ms`: when the fault
    reached a task, if it reached one after the other.

    Raises AbortedError from any wait, and UnrecoveredError if a wait takes too long.
    """

    scene: Scene
    observer: Observer
    intent: IntentFile
    say: Callable[[str], None]
    conditions: Sequence[Condition]
    predicted: Sequence[TaskId]
    injected_ms: int = 0
    healed_ms: int = 0
    struck_ms: dict[TaskId, int] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    compared: int = 0
    equal: int = 0
    outputs_compared: int = 0
    fired: str = ""

    @property
    def clock(self) -> Clock:
        return self.scene.clock

    def will_undo(self, step: Step) -> None:
        """Note how to undo the next change. It may be made when this returns."""
        self.intent.add(step)

    def act(self, what: str, *, fault: bool = True) -> None:
        """Report an action. The first fault starts the clock of the recovery."""
        now_ms = self.clock.wall_ms()
        if fault and not self.injected_ms:
            self.injected_ms = now_ms
        after = f"{(now_ms - self.injected_ms) / 1000:6.1f} s" if self.injected_ms else "  before"
        self.actions.append(what)
        self.say(f"{after}  {what}")

    def proves(self, text: str) -> None:
        """Note a fact that shows that the fault took effect."""
        self.evidence.append(Evidence(at_ms=self.clock.wall_ms(), text=text))

    def wait(self, condition: Callable[[], bool], what: str, within_s: float | None = None) -> None:
        """Observe until the condition is true."""
        limit_s = self.scene.settings.drills.timeout_s if within_s is None else within_s
        deadline = Deadline(self.clock, limit_s, _POLL_S)
        while True:
            self.observer.look()
            self._check_abort()
            if condition():
                return
            if not deadline.pause():
                raise UnrecoveredError(f"{what} did not happen in {limit_s:.0f} s")

    def pause(self, seconds: float) -> None:
        """Observe for so long."""
        until_s = self.clock.monotonic_s() + seconds
        self.wait(lambda: self.clock.monotonic_s() >= until_s, "the end of the fault", seconds + 60)

    def wait_until_committed(
        self, tasks: Sequence[TaskId], since_ms: int | None = None, *, acquired: bool
    ) -> None:
        """Observe until each task commits inputs again. A task without new input has only to be live.

        `acquired`: after it was acquired again.
        """
        start_ms = self.injected_ms if since_ms is None else since_ms
        pending = ", ".join(map(short, tasks[:5]))
        self.wait(
            lambda: all(self._committed(task, start_ms, acquired=acquired) for task in tasks),
            f"a commit of each of {counted(len(tasks), 'task')} ({pending})",
        )

    def wait_for_rest(self, workers: int | None = None) -> None:
        """Observe until every task is live, no task moves, and the members are as many as given."""

        def rests() -> bool:
            sample = self.observer.samples[-1]
            alive = len(sample.status.workers)
            return sample.all_live() and (workers is None or alive == workers)

        self.wait(
            rests, "all tasks live" + (f" on {counted(workers, 'worker')}" if workers is not None else "")
        )

    def lag_before(self, task: TaskId) -> int:
        """The lag that a task may have when it has caught up: that of the steady state, and some records."""
        status = self.scene.sample.of(task)
        return max(_SMALL_LAG, 2 * status.lag if status is not None else 0)

    def measures(self) -> dict[str, float]:
        """The values of abort conditions."""
        sample, now_ms = self.observer.samples[-1], self.clock.wall_ms()
        values: dict[str, float] = {
            "lag": sample.lag,
            "failed_tasks": sample.failed,
            "live_tasks": sample.live,
            "dead_letters": sample.open_letters,
        }
        if self.injected_ms:
            values["elapsed_s"] = (now_ms - self.injected_ms) / 1000
            values["unaffected_pause_s"] = self.unaffected_pause_s(now_ms)
        return values

    def unaffected_pause_s(self, until_ms: int) -> float:
        """The longest time between two commits of a task that the fault should not affect."""
        others = [task for task in self.observer.tasks if task not in self.predicted]
        return max((self.observer.pause_s(task, self.injected_ms, until_ms) for task in others), default=0.0)

    def _committed(self, task: TaskId, since_ms: int, *, acquired: bool) -> bool:
        entries = self.observer.entries(task, since_ms)
        if acquired:
            at = next((n for n, entry in enumerate(entries) if entry.kind is EntryKind.ACQUIRE), None)
            if at is None and not self.observer.has_skipped(task, since_ms):
                return False
            entries = entries[at or 0 :]
        if any(entry.kind is EntryKind.COMMIT for entry in entries):
            return True
        sample = self.observer.samples[-1]
        status = sample.of(task)
        return status is not None and status.lag == 0 and status.phase == "live" and sample.at_ms > since_ms

    def _check_abort(self) -> None:
        if self.intent.asked_to_abort:
            self.fired = "an operator has asked for it: pipeline drill abort"
            raise AbortedError(self.fired)
        values = self.measures()
        for condition in self.conditions:
            if condition.holds(values):
                self.fired = f"{condition} ({values[condition.measure]:g})"
                raise AbortedError(self.fired)


class Drill(ABC):
    """One kind of failure.

    Attributes:
        name: the name in the command line.
        version: raised when the drill does something else under the same name.
        summary: one line for `pipeline drill list`.
        hypothesis: what must be true during and after the fault.
    """

    name: str
    version = 1
    summary: str
    hypothesis: str

    def check(self, scene: Scene) -> Iterator[str]:
        """Yield each precondition that is met. Raises RefusedDrillError for one that is not."""
        yield from ()
        del scene

    @abstractmethod
    def plan(self, scene: Scene) -> Plan:
        """What the drill would do. Changes nothing."""

    @abstractmethod
    def perform(self, run: Run, plan: Plan) -> None:
        """Make the change, and wait for the recovery. The runner then undoes what is left of the change."""
