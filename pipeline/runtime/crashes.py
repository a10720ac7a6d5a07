"""Finds the record that crashes the process: `Crashes` for a worker, `InputCrashes` for each of its tasks.

The rules are in `pipeline.core.crashes`. A worker applies them in these steps:

    1 start    the crash log of the previous process becomes a suspicion, which is saved before the log restarts
    2 batch    the records of the next batch are noted: two stores to memory for each batch
    3 caution  suspected records are handled one by one, and each is noted first
    4 verdict  the error policy is applied to the record that crashes, or its task stops. After `stop`, the next
               start handles the record once more, with caution
    5 past     a suspicion ends when the task's committed position is past its records

A task that starts here also uses the suspicions in other workers' notes. If a worker crashes and its disk is lost, its
last crash is not counted.

A crash between any two steps is one more crash by the same rules, counted once: the saved suspicions name the last
process that they include.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from pipeline.core.crashes import (
    CAUTIOUS_AFTER,
    Conduct,
    Crash,
    Input,
    Span,
    Suspect,
    conduct,
    decode_suspects,
    encode_suspects,
    judge,
    merge,
    read_trace,
    remember,
    suspect_at,
)
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.notes import Suspected
from pipeline.errors import ConfigError
from pipeline.ports import CrashLog, Ending, Logger, Record, error_fields

__all__ = ["Crashes", "InputCrashes", "NativeCrash", "NoCrashLog", "unrecorded"]

# The note while calls of async handlers run: it is not known which of their records a crash would belong to.
CALLS = b"calls of async handlers"
_FRAMES = 10  # frames of a crashed thread in an error
MAX_NOTED = 16  # suspicions of a task in the notes to other workers


class NativeCrash(Exception):  # noqa: N818 - it is what happened, and was not raised
    """Represents the crash where code expects a record's error: in logs, dead letters and the task's failure.

    `proven`: every crash happened on the thread that handles records, so the record caused it.
    """

    def __init__(self, text: str, *, proven: bool) -> None:
        super().__init__(text)
        self.proven = proven


class NoCrashLog:
    """`ports.CrashLog` for a process without a crash log: nothing is known and nothing is kept."""

    def previous(self, app: str) -> Ending | None:  # noqa: ARG002 - the port's
        """Nothing is known."""
        return None

    def load(self) -> bytes:
        """Nothing was saved."""
        return b""

    def save(self, data: bytes) -> None:
        """Do nothing."""

    def begin(self, process: str) -> None:
        """Do nothing."""

    def handling(self, place: bytes, first: int, last: int) -> None:
        """Do nothing."""

    def handled(self) -> None:
        """Do nothing."""

    def leave(self) -> None:
        """Do nothing."""


class Others(Protocol):
    """The notes of an app's workers to each other. The number of a `task` is here that of a partition."""

    def suspected(self, task: TaskId) -> Suspected:
        """The last note about a task."""
        ...

    def suspect(self, task: TaskId, suspected: Suspected) -> None:
        """Send a note to the other workers."""
        ...


class Crashes:
    """Processing thread only."""

    def __init__(self, crash_log: CrashLog, log: Logger) -> None:
        self._crash_log = crash_log
        self._log = log
        self._suspects: dict[Input, Sequence[Suspect]] = {}
        # The crash that this start found, until it is merged with the notes of other workers.
        self._found: Crash | None = None
        self._before: dict[Input, Sequence[Suspect]] = {}
        self._stack = ""  # the stack of the thread in that crash
        self._counted = ""  # the last process whose end is included in the suspicions
        self._alert = False  # the previous process crashed natively

    def begin(self, app: str, process: str) -> None:
        """Read how the previous process ended, log it, and record this one, `process`. Raises ConfigError."""
        ending = self._crash_log.previous(app)
        self._suspects, self._counted = decode_suspects(self._crash_log.load())
        if ending is not None and ending.process != self._counted:
            self._record_ending(ending)
        self._crash_log.begin(process)

    def of(
        self,
        task: TaskId,
        places: Mapping[str, TopicPartition],
        topic_ids: Mapping[str, str],
        others: Others,
    ) -> InputCrashes:
        """The suspicions for a task that starts here. `places`: its inputs by name. `topic_ids`: by topic."""
        inputs = {
            name: Input(task._replace(number=place.partition), place.topic, topic_ids[place.topic])
            for name, place in places.items()
        }
        of_partition: dict[TaskId, dict[str, Input]] = {}
        for name, at in inputs.items():
            of_partition.setdefault(at.task, {})[name] = at
        for partition, own in of_partition.items():
            self._merge(own, others.suspected(partition))

        def changed(at: Input, suspects: Sequence[Suspect]) -> None:
            self._change(at, suspects)
            others.suspect(at.task, self._noted(of_partition[at.task]))

        suspects = {name: self._suspects[at] for name, at in inputs.items() if at in self._suspects}
        for partition in {inputs[name].task for name in suspects}:
            others.suspect(partition, self._noted(of_partition[partition]))
        return InputCrashes(self._crash_log, inputs, suspects, changed, self._stack, alert=self._alert)

    def handling_calls(self) -> None:
        """Note that calls of async handlers run. `handled` ends the note."""
        self._crash_log.handling(CALLS, 0, 0)

    def handled(self) -> None:
        """Note that nothing is handled."""
        self._crash_log.handled()

    def leave(self) -> None:
        """Record that this process ends normally."""
        self._crash_log.leave()

    def _merge(self, inputs: Mapping[str, Input], noted: Suspected) -> None:
        """Merge suspicions: first those of other workers that ran the task, then the crash that this start found."""
        by_input: dict[Input, list[Suspect]] = {}
        by_topic = {(at.topic, at.topic_id): at for at in inputs.values()}
        for topic, topic_id, suspect in noted.suspects:
            at = by_topic.get((topic, topic_id))
            if at is not None:
                by_input.setdefault(at, []).append(suspect)
        for at in inputs.values():
            found = self._found if self._found is not None and self._found.input == at else None
            before = self._suspects if found is None else self._before
            merged = merge(before.get(at, ()), by_input.get(at, ()))
            if found is not None:
                merged, self._found = judge(merged, found), None
            if merged != list(self._suspects.get(at, ())):
                self._change(at, merged)

    def _noted(self, inputs: Mapping[str, Input]) -> Suspected:
        found = ((at, suspect) for at in inputs.values() for suspect in self._suspects.get(at, ()))
        return Suspected(tuple((at.topic, at.topic_id, suspect) for at, suspect in found)[-MAX_NOTED:])

    def _change(self, at: Input, suspects: Sequence[Suspect]) -> None:
        if suspects:
            self._suspects[at] = suspects
        else:
            self._suspects.pop(at, None)
        try:
            self._save()
        except ConfigError as error:
            # The suspicions on the disk are then too many, which only costs caution.
            self._log.warning("crash_log_not_written", **error_fields(error))

    def _save(self) -> None:
        self._crash_log.save(encode_suspects(self._suspects, self._counted))

    def _record_ending(self, ending: Ending) -> None:
        found = read_trace(ending.trace)
        at, span = Input.decode(ending.place), Span(ending.first, ending.last)
        calls = ending.place == CALLS
        doing = (
            f"{_where(at, span)} of task {at.task}"
            if at is not None
            else CALLS.decode()
            if calls
            else "no record"
        )
        if found is None:
            if not ending.left:
                self._log.info(
                    "previous_process_ended",
                    handling=doing,
                    reason="the process did not stop normally, and left no trace of a native crash. Possible causes: "
                    "SIGKILL, out of memory, a power loss, os._exit, or a handler that did not return in time. "
                    "No record is suspected",
                )
            return
        here = found.thread == ending.thread
        self._alert = True
        crashes, after = 0, _AFTER_CALLS if calls else "the worker continues after the last commit"
        if at is not None:
            self._found, self._before = Crash(at, span, here), self._suspects
            self._suspects = remember(self._suspects, self._found)
            self._stack = "\n".join(found.stack.splitlines()[:_FRAMES])
            self._counted = ending.process
            self._save()  # 1
            suspect = self._suspects[at][-1]
            crashes, after = suspect.crashes, _next(suspect)
        self._log.warning(
            "previous_process_crashed",
            reason=found.reason,
            thread="processing" if here else "other",
            handling=doing,
            crashes=crashes,
            hint=f"{after}: runbooks/native-crash.md",
            stack=found.stack,
        )


class InputCrashes:
    """The suspicions of one task, by input. Processing thread only."""

    def __init__(
        self,
        crash_log: CrashLog,
        inputs: Mapping[str, Input],
        suspects: dict[str, Sequence[Suspect]],
        changed: Callable[[Input, Sequence[Suspect]], None],
        stack: str = "",
        *,
        alert: bool = False,
    ) -> None:
        self._crash_log = crash_log
        self._inputs = inputs
        self._places = {topic: at.encode() for topic, at in inputs.items()}
        self._changed = changed
        self._stack = stack
        self._alert = alert
        self.suspects = suspects  # mostly empty
        self.handled = crash_log.handled

    def handling(self, topic: str, records: Sequence[Record]) -> None:
        """Note the records that are handled next; `handled` ends the note."""
        self._crash_log.handling(self._places[topic], records[0].offset(), records[-1].offset())  # 2

    @property
    def alert(self) -> bool:
        """Whether each step of an async call is to be noted: the previous process crashed, or a record is suspected."""
        return self._alert or bool(self.suspects)

    def handling_calls(self) -> None:
        """As in `Crashes`."""
        self._crash_log.handling(CALLS, 0, 0)

    def parts(self, topic: str, records: Sequence[Record]) -> Sequence[Sequence[Record]]:
        """Split the records into the parts to handle: each suspected record is a part of its own."""
        suspects = self.suspects.get(topic, ())
        parts: list[list[Record]] = []
        together = False
        for record in records:
            normal = conduct(suspect_at(suspects, record.offset())) is Conduct.NORMAL
            if normal and together:
                parts[-1].append(record)
            else:
                parts.append([record])  # 3
            together = normal
        return parts

    def verdict(self, topic: str, record: Record) -> NativeCrash | None:
        """Why the record must not be handled; None if it may be."""
        suspect = suspect_at(self.suspects.get(topic, ()), record.offset())
        how = conduct(suspect)
        if suspect is None or how not in {Conduct.APPLY_POLICY, Conduct.STOP}:
            return None
        proven = how is Conduct.APPLY_POLICY
        text = f"the process crashed natively {suspect.crashes} times while it handled this record"
        if not proven:
            text += ", not always on the thread that handles records: the cause may be another thread"
        crash = NativeCrash(text, proven=proven)
        if self._stack:
            crash.add_note(f"The thread that crashed last was here, innermost call first:\n{self._stack}")
        return crash

    def try_again(self, topic: str, record: Record) -> None:
        """The record stops its task. The next start handles it once more, because the code may have been fixed."""
        guilty = suspect_at(self.suspects[topic], record.offset())
        self._replace(
            topic,
            [s._replace(crashes=CAUTIOUS_AFTER) if s is guilty else s for s in self.suspects[topic]],
        )  # 4

    def passed(self, positions: Mapping[str, int]) -> None:
        """Drop the suspicions about records below these committed positions."""
        for topic, suspects in list(self.suspects.items()):
            left = [suspect for suspect in suspects if suspect.span.last >= positions[topic]]
            if len(left) < len(suspects):
                self._replace(topic, left)  # 5

    def _replace(self, topic: str, suspects: Sequence[Suspect]) -> None:
        if suspects:
            self.suspects[topic] = suspects
        else:
            del self.suspects[topic]
        self._changed(self._inputs[topic], suspects)


def unrecorded(task: TaskId, topics: Iterable[str]) -> InputCrashes:
    """The suspicions of a task that does not run in a worker."""
    inputs = {topic: Input(task, topic, "") for topic in topics}
    return InputCrashes(NoCrashLog(), inputs, {}, lambda _at, _suspects: None)


_AFTER_CALLS = (
    "it is not known which record's call crashed. The worker continues after the last commit, and notes each call: "
    "another crash names its record"
)


def _where(at: Input, span: Span) -> str:
    to = f" to {span.last}" if span.last != span.first else ""
    return f"{at.topic}[{at.task.number}] offset {span.first}{to}"


def _next(suspect: Suspect) -> str:
    how = conduct(suspect)
    if how is Conduct.APPLY_POLICY:
        return "the record is not handled: its on_error policy decides"
    if how is Conduct.STOP:
        return "the record is not handled, and stops its task"
    if how is Conduct.CAUTIOUS:
        return "suspected records are handled one by one; each is noted on disk before"
    return "the records are handled again"
