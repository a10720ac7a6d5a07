"""Handles replays: dead letters that return to their task as the original records.

The handlers of a replay's topic receive it with its original place, timestamp, headers and topic id. So `event.id` and
`event.effect_key` are unchanged, even if the topic has been recreated. The position of the input topic does not matter.
The commit that contains the replay's position in the replays topic makes it happen exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.dead_letters import Replay, decode_replay
from pipeline.ports import Record
from pipeline.runtime.crashes import NativeCrash
from pipeline.runtime.task.processor import Processor
from pipeline.runtime.task.record_errors import PoisonError, RetryError, TimersDueError
from pipeline.runtime.task.refused_outputs import RefusedOutputError

__all__ = ["ReplayedRecord", "condemn_replay", "process_replays"]

_CREATE_TIME = 1


class ReplayedRecord:
    """`ports.Record`: the record that became a dead letter. `replay`: the replay number, from 1.

    `topic_id`: the id of the topic that contained it; empty if the dead letter has none.
    """

    __slots__ = ("_was", "replay", "topic_id")

    def __init__(self, replay: Replay) -> None:
        self._was = replay
        self.replay = replay.number
        self.topic_id = replay.topic_id

    def topic(self) -> str:
        return self._was.topic

    def partition(self) -> int:
        return self._was.partition

    def offset(self) -> int:
        return self._was.offset

    def key(self) -> bytes | None:
        return self._was.key

    def value(self) -> bytes | None:
        return self._was.value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return list(self._was.headers) or None

    def timestamp(self) -> tuple[int, int]:
        return (_CREATE_TIME if self._was.timestamp_ms >= 0 else 0, self._was.timestamp_ms)


def process_replays(processor: Processor, records: Sequence[Record], failures: int) -> None:
    """`Processor.process` for records of the replays topic. Its errors contain the offsets in that topic.

    A replay of a record whose topic has timers waits for those that are due, as a record does.
    """
    for record in records:
        if processor.timer_due:
            raise TimersDueError(record.offset())
        replay = decode_replay(record.value())
        try:
            if replay is None:
                processor.give_back(record, "it is not a replay that this release can read")
            elif not processor.handles(replay.topic):
                processor.give_back(
                    ReplayedRecord(replay), f"topic {replay.topic} is no longer an input of its group"
                )
            else:
                processor.process(replay.topic, [ReplayedRecord(replay)], failures, replay.topic_id)
        except PoisonError as stopped:
            raise PoisonError(record.offset(), stopped.error) from stopped
        except RetryError as stopped:
            raise RetryError(record.offset(), stopped.failures, stopped.wait_s, stopped.reason) from stopped
        failures = 0


def condemn_replay(processor: Processor, record: Record, error: NativeCrash | RefusedOutputError) -> None:
    """`Processor.condemn` for a record of the replays topic. Its errors contain the offset in that topic."""
    replay = decode_replay(record.value())
    if replay is None or not processor.handles(replay.topic):
        process_replays(processor, [record], 0)  # no handler is called
        return
    try:
        processor.condemn(replay.topic, ReplayedRecord(replay), error)
    except PoisonError as stopped:
        raise PoisonError(record.offset(), stopped.error) from stopped
