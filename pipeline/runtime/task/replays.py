"""Handles replays: dead letters that come back to their task, as the records that they were.

A replay is shown to the handlers of its topic with its own place, time, headers and topic id, so that `event.id` and
`event.effect_key` are what they were, also when the topic has been created again since. It is handled whatever the
input's position is, and counts by its place among the replays: the commit with that position is what makes it happen
once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.dead_letters import Replay, decode_replay
from pipeline.ports import Record
from pipeline.runtime.crashes import NativeCrash
from pipeline.runtime.task.processor import PoisonError, Processor, RetryError
from pipeline.runtime.task.refused_outputs import RefusedOutputError

__all__ = ["ReplayedRecord", "condemn_replay", "process_replays"]

_CREATE_TIME = 1


class ReplayedRecord:
    """`ports.Record`: the record that became a dead letter. `replay`: the how-manieth replay this is.

    `topic_id`: of its topic as it was then; empty where the letter does not say.
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
    """`Processor.process` for records of the topic of replays; what it raises names their places there."""
    for record in records:
        replay = decode_replay(record.value())
        try:
            if replay is None:
                processor.give_back(record, "it is no replay that this release can read")
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
    """`Processor.condemn` for a record of the topic of replays; what it raises names its place there."""
    replay = decode_replay(record.value())
    if replay is None or not processor.handles(replay.topic):
        process_replays(processor, [record], 0)  # no handler is called
        return
    try:
        processor.condemn(replay.topic, ReplayedRecord(replay), error)
    except PoisonError as stopped:
        raise PoisonError(record.offset(), stopped.error) from stopped
