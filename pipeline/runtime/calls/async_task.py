"""The task of a group of async handlers: `AsyncTask`.

It differs from `Task` between the input and the open overlay:

    offer -> at most MOST_CALLS calls, in order of arrival -> finished prefix -> open overlay and outputs -> seal
               the other records wait in the backlog

The position of an input moves with the prefix. So a crash repeats the calls that have started and whose records are in
no completed commit: at most MOST_CALLS, and those of the open overlay and of the commit in progress.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pipeline.api.event import event_type
from pipeline.core.dead_letters import decode_replay
from pipeline.core.inputs import topic_of
from pipeline.errors import InvariantError, PipelineError
from pipeline.ports import Pending, Record
from pipeline.runtime.calls.call import Call, Route, call_type
from pipeline.runtime.calls.call_loop import CallLoop
from pipeline.runtime.calls.partition_calls import Outstanding, PartitionCalls
from pipeline.runtime.calls.slots import Slots
from pipeline.runtime.crashes import NativeCrash
from pipeline.runtime.task.backlog import Retried, WaitingRecords
from pipeline.runtime.task.handler_errors import ENDING, handler_name
from pipeline.runtime.task.partition import Partition
from pipeline.runtime.task.record_errors import PoisonError
from pipeline.runtime.task.refused_outputs import RefusedOutputError
from pipeline.runtime.task.replays import ReplayedRecord, process_replays
from pipeline.runtime.task.task import Task
from pipeline.runtime.watchdog import AtWork

__all__ = ["AsyncTask"]

MOST_CALLS = 1_024  # outstanding calls of a task
MOST_READY = 256  # calls of a group that wait for a slot
WAIT_S = 0.05  # for calls, in one turn of a worker that stops


class AsyncTask(Task):
    """`loop`: the worker's loop. `slots`: those of the group in this worker. Other arguments are those of `Task`."""

    def __init__(self, loop: CallLoop, slots: Slots, *of_task: Any, **options: Any) -> None:
        super().__init__(*of_task, **options)
        plan, settings = self._plan, self._settings
        self._loop = loop
        self._slots = slots
        self._routes = {
            binding.topic.name: Route(
                binding.topic,
                binding,
                event_type(self.id.app, self.id.group, plan.identity.inputs[binding.topic.name].topic_id),
                binding.topic.value.read,
                binding.topic.value.decode if binding.topic.value.decode_message is None else None,
            )
            for binding in plan.group.bindings
        }
        longest_s = max(binding.timeout_s for binding in plan.group.bindings)
        # Then the last commit and the release entry follow, before the worker or the next owner loses patience.
        self._drain_s = min(longest_s, settings.stop_timeout_s / 2, settings.handoff_timeout_s / 2)
        self._until_s = 0.0  # when the calls of a leaving task are cancelled
        self._released = False
        self._broken: PipelineError | None = None  # the error that has ended the task
        self._refilling = False  # otherwise records wait in the backlog
        self._outstanding = Outstanding()
        self._finished: dict[PartitionCalls, None] = {}  # those with a finished prefix
        self._calls = {
            partition.number: PartitionCalls(
                slots,
                self._processor.errors,
                self._environment.clock,
                self._outstanding,
                lambda calls: self._finished.__setitem__(calls, None),
            )
            for partition in self._partitions
        }
        self._types = {
            partition.number: call_type(self, self._calls[partition.number], partition.tables, self.context)
            for partition in self._partitions
        }
        loop.add(self)

    @property
    def idle(self) -> bool:
        """Whether nothing is open, in progress or waiting, and no call is outstanding."""
        return super().idle and not self._outstanding.calls and self._leaving == self._released

    @property
    def retried(self) -> Retried | None:
        """The record that has been retried for the longest time. Later records of its partition wait for it."""
        found = [retried for calls in self._calls.values() if (retried := calls.retried) is not None]
        return min(found, key=lambda retried: retried.since_s, default=None)

    @property
    def at_work(self) -> AtWork | None:
        """The record whose handler runs on the processing thread, or whose call ignores its cancellation."""
        call = self._slots.at_work
        if call is None or call.task is not self:
            return None
        name = handler_name(call.route.binding)
        return AtWork(self.id, [name], call.record, 1, ignores_cancellation=call.cancelled_s is not None)

    def unfinished(self, partition: int) -> bool:
        """Whether records of a partition wait, or their calls are outstanding."""
        return super().unfinished(partition) or len(self._calls[partition]) > 0

    def refill(self) -> None:
        """Before a slice: move finished calls into the open commit, and add the calls of waiting records."""
        self._refilling = True
        try:
            self._apply()
            while self._backlog and not self.full:
                waiting = self._take()
                if waiting is None:
                    break
                self._process(*waiting)
        except PipelineError as error:
            self._broken = error
        finally:
            self._refilling = False

    def advance(self, *, seal: bool = False) -> bool:
        """As in `Task`; first, the finished calls at the beginning of each order become part of the open commit."""
        if self._broken is not None:
            raise self._broken
        moved = self._apply()
        if self._leaving and not self._released:
            self._drain()
        return super().advance(seal=seal) or moved

    def leave(self) -> None:
        """Start to release the task: wait for the calls that have started, for a limited time, and commit them."""
        self._leaving = True
        self._backlog.clear()
        self._until_s = self._environment.clock.monotonic_s() + self._drain_s
        for calls in self._calls.values():
            calls.leave()

    def wait(self) -> None:
        """Run calls that are outstanding. Otherwise wait for the commit in progress, and retire it."""
        if not (self._outstanding.calls and self._loop.drain(WAIT_S)):
            super().wait()

    def close(self) -> Pending[None] | None:
        """As in `Task`. The calls are cancelled, and their results are ignored."""
        self._loop.remove(self)
        for calls in self._calls.values():
            calls.drop()
        return super().close()

    def _drain(self) -> None:
        """Write the release entry once no call is outstanding. Calls that take too long are cancelled."""
        if self._outstanding.calls and self._environment.clock.monotonic_s() >= self._until_s:
            for calls in self._calls.values():
                calls.drop_unfinished()
        if not self._outstanding.calls:
            self._released = True
            self._enter_release()

    def _take(self) -> WaitingRecords | None:
        return self._backlog.take(self._has_room)

    def _has_room(self, name: str) -> bool:
        return self._room(self._calls[self._by_name[name].number]) > 0

    def _room(self, calls: PartitionCalls) -> int:
        """The number of calls of a partition that may be added.

        A partition may have at most as many calls as are still free. So other partitions have room while it waits for a
        retry. Only few calls wait for a slot, because a small number of objects stays in the processor's cache.
        """
        free = MOST_CALLS - self._outstanding.calls
        if len(self._calls) > 1:
            free = (free - len(calls) + 1) // 2
        return max(0, min(free, MOST_READY - self._slots.ready)) if self._refilling else 0

    def _process(self, name: str, records: Sequence[Record], _failures: int = 0) -> None:
        """Add the calls of records, as long as there is room. The other records wait in the backlog."""
        partition = self._by_name[name]
        if records[0].offset() < self._positions[name]:
            raise InvariantError(f"task {self.id}: {name} gave offset {records[0].offset()} again")
        room = self._room(self._calls[partition.number])
        if room < len(records):
            self._backlog.put_back(name, records[room:])
            records = records[:room]
        for run, refused in self._narrowing.runs(name, records):
            if refused is not None:
                self._add_condemned(name, run[0], refused)
            elif topic_of(name) == self._replays_topic:
                for record in run:
                    self._add_replay(name, record)
            else:
                partition.ahead[topic_of(name)].load(run)
                self._add(name, run, self._routes[topic_of(name)])

    def _add(self, name: str, records: Sequence[Record], route: Route) -> None:
        """Add the calls of records of an input."""
        number = self._by_name[name].number
        calls, new = self._calls[number], self._types[number]
        suspected = name in self.crashes.suspects
        if self.crashes.alert:
            route = replace(route, noted=True)
        decode_key = route.topic.key.decode
        made: list[Call] = []
        for record in records:
            try:
                key = decode_key(record.key())
            except ENDING:
                raise
            except BaseException as error:  # noqa: BLE001 - a user's key type may raise anything
                calls.add(made)
                made = []
                calls.add_undecodable(new(name, record, record, route, None), error)
                continue
            crash = self.crashes.verdict(name, record) if suspected else None
            if crash is None:
                made.append(new(name, record, record, route, key))
            else:
                calls.add(made)
                made = []
                self._add_condemned(name, record, crash)
        calls.add(made)

    def _add_replay(self, name: str, place: Record) -> None:
        """Add the call of a replayed dead letter. The handler gets the original record."""
        number = self._by_name[name].number
        calls, new = self._calls[number], self._types[number]
        crash = self.crashes.verdict(name, place) if name in self.crashes.suspects else None
        if crash is not None:
            self._add_condemned(name, place, crash)
            return
        replay = decode_replay(place.value())
        route = self._routes.get(replay.topic) if replay is not None else None
        if replay is None or route is None:
            self._add_settled(name, place, lambda: process_replays(self._processor, [place], 0))
            return
        record = ReplayedRecord(replay)
        if replay.topic_id:
            route = replace(route, make=event_type(self.id.app, self.id.group, replay.topic_id))
        try:
            key = route.topic.key.decode(record.key())
        except ENDING:
            raise
        except BaseException as error:  # noqa: BLE001 - as in `_add`
            calls.add_undecodable(new(name, place, record, route, None), error)
        else:
            calls.add([new(name, place, record, replace(route, noted=self.crashes.alert), key)])

    def _add_condemned(self, name: str, record: Record, error: NativeCrash | RefusedOutputError) -> None:
        """Add a record whose `on_error` policy is applied without a call."""

        def settle() -> None:
            try:
                self._condemn(topic_of(name), record, error)
            except PoisonError:
                if isinstance(error, NativeCrash):
                    self.crashes.try_again(name, record)
                raise

        self._add_settled(name, record, settle)

    def _add_settled(self, name: str, record: Record, settle: Callable[[], None]) -> None:
        number = self._by_name[name].number
        any_route = next(iter(self._routes.values()))  # no handler is called
        self._calls[number].add_settled(self._types[number](name, record, record, any_route, None), settle)

    def _apply(self) -> bool:
        """Move finished calls at the beginning of each order into the open overlay. Returns whether there were any."""
        if not self._finished:
            return False
        moved = False
        for calls in list(self._finished):
            while not self.full:
                run = calls.take(self._narrowing.limit - self._open_records)
                if not run:
                    self._finished.pop(calls, None)
                    break
                self._apply_run(calls, run)
                moved = True
        return moved

    def _apply_run(self, calls: PartitionCalls, run: Sequence[Call]) -> None:
        """Move calls for records of one input into the open overlay, in order, and move its position."""
        name, outputs = run[0].name, self.context.outputs
        partition = self._by_name[name]
        self._use(partition)
        if not self._open_records:
            self._pace.opened()
        outputs_before, done, stopped, earlier = len(outputs), 0, None, calls.earlier
        for call in run:
            if call.settle is not None:
                try:
                    call.settle()
                except PoisonError as error:
                    stopped = error
                    break
            elif call.written:
                key = call.key
                for table, (data, decoded) in call.written.items():
                    table.put(key, data, decoded)
                if earlier.get(key) is call:
                    del earlier[key]
            if call.made:
                outputs += call.made
            done += 1
        if done:
            places = [call.place for call in run[:done]]
            self._passed(name, places, done, places[-1].offset() + 1)
        self._count_outputs(done, outputs_before)
        if stopped is not None:
            self._stop(partition, run[done].place, stopped.error)

    def _stop(self, partition: Partition, record: Record, error: PipelineError) -> None:
        super()._stop(partition, record, error)
        self._calls[partition.number].drop()
