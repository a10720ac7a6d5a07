"""Broken on purpose: the order, the buffers and the ends of the calls of async handlers."""

from __future__ import annotations

import pytest

import pipeline.api.async_context
import pipeline.runtime.calls.async_task
import pipeline.runtime.calls.noted
import pipeline.runtime.calls.partition_calls
import pipeline.runtime.calls.slots
from tests.support.breaking import Broken, Copy, name_of

ORDER = "tests/runtime/calls/test_async_order.py"
CALLS = "tests/runtime/calls/test_async_calls.py"
TROUBLES = "tests/runtime/calls/test_async_troubles.py"

ROWS = [
    Broken(
        "each topic has a prefix of its own",
        pipeline.runtime.calls.partition_calls.PartitionCalls._finish,
        "        if self._order[0] is call:\n",
        "        if call is next(each for each in self._order if each.name == call.name):\n"
        "            self._order.remove(call)\n"
        "            self._order.appendleft(call)\n",
        f"{ORDER} two_inputs",
    ),
    Broken(
        "a finished call is committed before those in front of it",
        pipeline.runtime.calls.partition_calls.PartitionCalls._finish,
        "        if self._order[0] is call:\n",
        "        self._order.remove(call)\n        self._order.appendleft(call)\n        if True:\n",
        f"{ORDER} nothing_behind",
    ),
    Broken(
        "calls of an older generation continue",
        pipeline.runtime.calls.async_task.AsyncTask.close,
        "            calls.drop()\n",
        "            pass\n",
        f"{ORDER} reset_in_mid_call",
    ),
    Broken(
        "a swallowed cancellation counts as success",
        pipeline.runtime.calls.slots.Slots._ended,
        "        if call.cancelled_s is None and error is None:\n",
        "        if error is None:\n",
        f"{ORDER} swallows",
    ),
    Broken(
        "a request to cancel reaches the next call",
        pipeline.runtime.calls.slots.Slots._slot,
        "                if me.cancelling() or self._fatal is not None:\n",
        "                if self._fatal is not None:\n",
        f"{CALLS} own_code",
    ),
    Broken(
        "a failed attempt keeps its buffer",
        pipeline.runtime.calls.partition_calls.PartitionCalls.failed,
        "        call.written = None\n",
        "        pass\n",
        f"{ORDER} leaves_nothing",
    ),
    Broken(
        "calls of one key run at the same time",
        pipeline.runtime.calls.partition_calls.PartitionCalls.add,
        "        elif key not in keys:\n",
        "        elif True:\n",
        f"{ORDER} one_after_the_other",
    ),
    Broken(
        "a call does not see what a finished one has written",
        pipeline.api.async_context.AsyncContext._read,
        "            earlier = self._earlier.get(self._key)\n",
        "            earlier = None\n",
        f"{ORDER} two_inputs",
    ),
    Broken(
        "a write that is in the tables hides later ones",
        pipeline.runtime.calls.async_task.AsyncTask._apply_run,
        "                    del earlier[key]\n",
        "                    pass\n",
        f"{CALLS} memory_of_finished_calls",
    ),
    Broken(
        "a retry goes to the end of the order",
        pipeline.runtime.calls.partition_calls.PartitionCalls._retry,
        "        self._order[self._order.index(call)] = following\n",
        "        self._order.remove(call)\n        self._order.append(following)\n",
        f"{ORDER} retry_keeps",
    ),
    Broken(
        "a retry writes into the context of the attempt before",
        pipeline.runtime.calls.partition_calls.PartitionCalls._retry,
        "        following = call.again()\n",
        "        following = call\n        following.failures += 1\n        following._outputs = []\n",
        f"{CALLS} context_of_its_own",
    ),
    Broken(
        "a context can be used after its call",
        pipeline.runtime.calls.partition_calls.PartitionCalls.done,
        "        call.made = call.end()\n",
        "        call.made = call._outputs\n",
        f"{CALLS} after_its_call",
    ),
    Broken(
        "the position of an idle input passes a call in flight",
        pipeline.runtime.calls.async_task.AsyncTask.unfinished,
        "        return super().unfinished(partition) or len(self._calls[partition]) > 0\n",
        "        return super().unfinished(partition)\n",
        f"{CALLS} not_an_idle_input",
    ),
    Broken(
        "a task is released before its calls have ended",
        pipeline.runtime.calls.async_task.AsyncTask.idle,
        "super().idle and not self._outstanding.calls and self._leaving == self._released",
        "super().idle",
        f"{ORDER} started_calls_end",
    ),
    Broken(
        "a task that leaves waits for its calls forever",
        pipeline.runtime.calls.async_task.AsyncTask._drain,
        "                calls.drop_unfinished()\n",
        "                self._until_s += 1e9\n                break\n",
        f"{ORDER} take_too_long",
    ),
    Broken(
        "a task takes calls without a limit",
        pipeline.runtime.calls.async_task.AsyncTask._room,
        "        free = MOST_CALLS - self._outstanding.calls\n",
        "        free = 1_000_000 - self._outstanding.calls\n",
        f"{ORDER} at_most_1024",
    ),
    Broken(
        "a partition that retries takes all room of its task",
        pipeline.runtime.calls.async_task.AsyncTask._room,
        "        if len(self._calls) > 1:\n",
        "        if False:\n",
        f"{ORDER} leaves_room",
    ),
    Broken(
        "a commit contains more calls than records are allowed",
        pipeline.runtime.calls.async_task.AsyncTask._apply,
        "calls.take(self._narrowing.limit - self._open_records)",
        "calls.take(1_000_000)",
        f"{CALLS} small_commit_limit",
    ),
    Broken(
        "a record is noted between the steps of its call",
        pipeline.runtime.calls.noted.Noted.send,
        "            self._crashes.handling_calls()\n",
        "            pass\n",
        f"{TROUBLES} between_the_steps",
    ),
    Broken(
        "calls that crash the process are not noted",
        pipeline.runtime.calls.noted.Noted.send,
        "        self._crashes.handling(self._name, self._records)\n",
        "        pass\n",
        f"{TROUBLES} is_found",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
