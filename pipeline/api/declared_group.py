"""`DeclaredGroup`: what is declared in a group, with the checks. The rest of the package reads it.

Users declare with the methods of `App` and `Group` (`state_methods`, `handler_methods`), which add to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from pipeline.api.bindings import Binding, SinkBinding, check_function, check_policy, check_retries
from pipeline.api.declarations import DeclaredTable, DeclaredTopic, Topic
from pipeline.api.event import Event
from pipeline.api.histories import DeclaredHistory
from pipeline.api.joins import DeclaredJoin
from pipeline.api.ticks import TickTopic
from pipeline.api.timers import DeclaredTimers
from pipeline.api.windows import DeclaredWindow
from pipeline.core.names import GroupId, check_name
from pipeline.errors import ConfigError

__all__ = ["DeclaredGroup"]

K = TypeVar("K")
V = TypeVar("V")


class _App(Protocol):
    """The app that a group is declared in."""

    name: str

    def owns(self, topic: Topic[Any, Any]) -> bool: ...


class DeclaredGroup:
    """A group with what was declared in it.

    Attributes:
        app: The app that it is declared in.
        name: Its name.
        tasks: The declared number of tasks. None: the default of a new group, or the number of a known one.
        bindings: The handlers, in the order declared.
        sinks: The sinks, in the order declared.
        tables: The tables, windows, histories and timers by name.
        steps: The functions of due steps, such as ends of windows, by name of the pseudo-topic (`StepTopic`).
        joins: The joins by name.
        matches: The functions for the pairs of joins, by name of the join. Each is called with a pair and a context.
    """

    def __init__(
        self,
        app: _App,
        name: str,
        bindings: Iterable[Binding] = (),
        sinks: Iterable[SinkBinding] = (),
        tables: Mapping[str, DeclaredTable[Any, Any]] | None = None,
        tasks: int | None = None,
        steps: Mapping[str, Binding] | None = None,
        joins: Mapping[str, DeclaredJoin[Any, Any, Any]] | None = None,
        matches: Mapping[str, Binding] | None = None,
    ) -> None:
        self.app = app
        self.name = check_name("group", name)
        self.tasks = _checked_tasks(self.name, tasks)
        self.bindings = list(bindings)
        self.sinks = list(sinks)
        self.tables = dict(tables or {})
        self.steps = dict(steps or {})
        self.joins = dict(joins or {})
        self.matches = dict(matches or {})

    def __repr__(self) -> str:
        return f"Group({self.app.name}/{self.name})"

    def add_table(self, table: DeclaredTable[Any, Any]) -> None:
        """Declare a table that was made elsewhere. Raises ConfigError."""
        self.new_name("table", table.name, None)
        self.tables[table.name] = table

    def bind_step(self, binding: Binding) -> None:
        """Register the function of a due step that was made elsewhere."""
        self.steps[binding.topic.name] = binding

    @property
    def id(self) -> GroupId:
        """App and group."""
        return GroupId(self.app.name, self.name)

    @property
    def is_async(self) -> bool:
        """Whether its handlers are async: either all are, or none of them is."""
        return bool(self.bindings) and self.bindings[0].is_async

    @property
    def windows(self) -> dict[str, DeclaredWindow[Any, Any]]:
        """The windows by name."""
        return {name: table for name, table in self.tables.items() if isinstance(table, DeclaredWindow)}

    @property
    def timer_sets(self) -> dict[str, DeclaredTimers[Any]]:
        """The timers by name."""
        return {name: table for name, table in self.tables.items() if isinstance(table, DeclaredTimers)}

    @property
    def ticks(self) -> dict[str, TickTopic]:
        """What is called every so many seconds, by name."""
        topics = [binding.topic for binding in self.steps.values()]
        return {topic.tick_name: topic for topic in topics if isinstance(topic, TickTopic)}

    @property
    def histories(self) -> dict[str, DeclaredHistory[Any, Any]]:
        """The histories by name."""
        return {name: table for name, table in self.tables.items() if isinstance(table, DeclaredHistory)}

    @property
    def functions(self) -> list[Binding]:
        """The handlers, and then the functions of due steps."""
        return [*self.bindings, *self.steps.values()]

    @property
    def keeps_clock(self) -> bool:
        """Whether its partitions have a clock of event time. Without one, event time costs nothing."""
        timed = any(binding.topic.event_time_ms is not None for binding in self.bindings)
        fading = any(table.fades for table in self.tables.values())
        return bool(self.windows or self.joins or self.timer_sets) or fading or (timed and not self.is_async)

    @property
    def is_replayable(self) -> bool:
        """Whether its records alone determine its state: nothing depends on when an input was idle, or on the time."""
        return not (self.keeps_clock or self.ticks)

    @property
    def inputs(self) -> list[DeclaredTopic[Any, Any]]:
        """Input topics in the order of their first handler or sink."""
        return list(dict.fromkeys([b.topic for b in self.bindings] + [b.topic for b in self.sinks]))

    def with_functions(self, change: Callable[[Binding], Binding]) -> DeclaredGroup:
        """The same group with other functions: `change` is called with each of `functions`, and with `matches`."""
        bindings = map(change, self.bindings)
        steps = {name: change(binding) for name, binding in self.steps.items()}
        matches = {name: change(binding) for name, binding in self.matches.items()}
        return self._twin(bindings, self.tasks, steps, matches)

    def with_tasks(self, tasks: int) -> DeclaredGroup:
        """The same group with another number of tasks."""
        return self._twin(self.bindings, tasks, self.steps, self.matches)

    def _twin(
        self,
        bindings: Iterable[Binding],
        tasks: int | None,
        steps: Mapping[str, Binding],
        matches: Mapping[str, Binding],
    ) -> DeclaredGroup:
        return DeclaredGroup(
            self.app, self.name, bindings, self.sinks, self.tables, tasks, steps, self.joins, matches
        )

    def new_name(self, kind: str, name: str, upgrade: object) -> str:
        """The label of a new table, window, history or set of timers. Raises ConfigError."""
        check_name(kind, name)
        where = f"{kind} {self.name}.{name}"
        other = self.tables.get(name) or self.tables.get(f"{name}:left")
        if other is not None:
            same = other.label == where
            raise ConfigError(
                f"{where} is declared twice" if same else f"{where}: {other.label} has the same name"
            )
        if self.sinks:
            raise self.mixed(f"a {kind}, {name}")
        if upgrade is not None and not callable(upgrade):
            raise ConfigError(f"{where}: upgrade is {upgrade!r}; it must be a function of the old value")
        return where

    def check_window(self, window: DeclaredWindow[Any, Any], binding: Binding) -> None:
        """Check a window and a handler of one group."""
        self.check_clock(window, binding)
        topic = binding.topic
        if window.late_to is topic:
            raise ConfigError(
                f"{window.label}: late_to is topic {topic.name}, which is an input of its group: a late event would "
                "come back, and be late again",
                hint="send late events to a topic that this group does not read",
            )

    def check_clock(self, table: DeclaredTable[Any, Any], binding: Binding) -> None:
        """Check a table that needs the event clock and a handler of one group."""
        kind = "table with ttl_s" if table.is_table else table.label.partition(" ")[0]
        self.check_plain(f"{kind if kind == 'timers' else f'a {kind}'}, {table.name}", binding)

    def check_plain(self, what: str, binding: Binding) -> None:
        """Refuse `what` in a group of async handlers."""
        if binding.is_async:
            raise ConfigError(
                f"group {self.name} has async handlers and cannot have {what}: their calls end in any order",
                hint="let an async handler send its results to a topic, and count them in another group",
            )

    def checked_topic(self, topic: Topic[K, V], method: str) -> DeclaredTopic[K, V]:
        """The topic, if it is one. `method`: the method that the user has called. Raises ConfigError."""
        if not isinstance(topic, DeclaredTopic):
            raise ConfigError(
                f"group {self.name}: {topic!r} is not a topic",
                hint=f"use @app.{method}(topic) above the function"
                if "sink" not in method
                else f"use app.{method}(topic, ...)",
            )
        return topic

    def mixed(self, what: str) -> ConfigError:
        """The error of sinks and something else in one group."""
        return ConfigError(
            f"group {self.name} has {'sinks' if self.sinks else 'handlers or tables'} and cannot have {what}: "
            "the positions of a group are either in its journal or in a database",
            hint='declare a group of its own for sinks: app.group("rows").sink(...)',
        )

    def bind(self, binding: Binding) -> None:
        """Register a handler. Raises ConfigError."""
        if self.sinks:
            raise self.mixed("a handler")
        check_function(self.name, binding)
        check_policy(self.name, binding.on_error)
        check_retries(self.name, binding)
        if not self.app.owns(binding.topic):
            raise ConfigError(f"group {self.name}: topic {binding.topic.name} belongs to another app")
        if binding.on_error == "dead_letter" and binding.topic.name == self.id.dead_letter_topic:
            raise ConfigError(
                f"group {self.name} reads its own dead letters with on_error='dead_letter': a letter that fails would "
                "become a new letter each time",
                hint="declare on_error='stop' or 'skip' for that handler, or read them in another group",
            )
        if self.bindings and (binding.is_async or self.bindings[0].is_async):
            self._check_async(self.bindings[0], binding)
        others = [b for b in self.bindings if b.topic is binding.topic]
        if others and (binding.batch or others[0].batch):
            raise ConfigError(
                f"group {self.name}: topic {binding.topic.name} has a batch handler; it must be the only one"
            )
        for table in self.tables.values():
            if isinstance(table, DeclaredWindow):
                self.check_window(table, binding)
            elif table.fades or isinstance(table, DeclaredTimers):
                self.check_clock(table, binding)
        for step in self.steps.values():
            if isinstance(step.topic, TickTopic):
                self.check_plain(f"every, {step.topic.tick_name}", binding)
        self.bindings.append(binding)

    def _check_async(self, first: Binding, binding: Binding) -> None:
        """Check a handler that is added to others, some of which are async."""
        if first.is_async != binding.is_async:
            has, other = ("async", "a plain") if first.is_async else ("plain", "an async")
            raise ConfigError(
                f"group {self.name} has {has} handlers and cannot have {other} one: the handlers of a group are all "
                "async, or none of them is",
                hint='declare a group of its own for async handlers: app.group("scoring").async_handler(topic)',
            )
        if first.concurrency != binding.concurrency:
            raise ConfigError(
                f"group {self.name}: one async handler has concurrency={first.concurrency} and another one "
                f"{binding.concurrency}, but the handlers of a group share one limit",
                hint="give all of them the same number, or declare a group for each",
            )
        if any(other.topic is binding.topic for other in self.bindings):
            raise ConfigError(
                f"group {self.name}: topic {binding.topic.name} has an async handler; it must be the only one",
                hint="await both functions in one handler, or declare a group for each",
            )

    def bind_checked_step(self, binding: Binding, given: type, taken: str) -> None:
        """Register the function of due steps. Raises ConfigError.

        `given`: what it is called with. `taken`: the error if these steps have a function.
        """
        if binding.topic.name in self.steps:
            raise ConfigError(taken)
        check_function(self.name, binding, given)
        check_policy(self.name, binding.on_error)
        check_retries(self.name, binding)
        self.bind_step(binding)

    def bind_match(self, name: str, binding: Binding) -> None:
        """Register the function for the pairs of a join. Raises ConfigError."""
        if name in self.matches:
            raise ConfigError(f"join {self.name}.{name} has an on_match function; it must be the only one")
        self.matches[name] = binding

    def bind_unmatched(self, join: str, side: str, binding: Binding) -> None:
        """Register the function for a join's events without a partner. Raises ConfigError."""
        taken = f"join {self.name}.{join} has an on_unmatched_{side} function; it must be the only one"
        self.bind_checked_step(binding, Event, taken)


def _checked_tasks(group: str, tasks: object) -> int | None:
    """The declared number of tasks. The number of partitions limits it, too: see `runtime/task_count.py`."""
    if tasks is None:
        return None
    if isinstance(tasks, bool) or not isinstance(tasks, int) or tasks < 1:
        raise ConfigError(
            f"group {group}: tasks is {tasks!r}; it must be a whole number from 1 to the number of partitions of its "
            "inputs",
            hint="declare a whole number, such as four times the most workers you will ever want, or leave tasks out",
        )
    return tasks
