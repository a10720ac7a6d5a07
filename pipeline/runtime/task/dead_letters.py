"""Makes the dead letters of one task: `DeadLetters`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.core.dead_letter_count import NOT_NUMBERED, LetterCount, LetterNumber
from pipeline.core.dead_letters import Letter, Origin, letter_headers
from pipeline.core.headers import readable_headers
from pipeline.core.names import TaskId
from pipeline.ports import Clock, Record, kept_timestamp
from pipeline.runtime.task.handler_errors import error_text, error_traceback

__all__ = ["DeadLetters"]

_HEADER_BYTES = 8  # the maximum overhead of a header beside its name and value


class DeadLetters:
    """`largest`: the maximum bytes of key, value and headers of a record in the dead-letter topic.

    `topic_ids`: the current ids of the input topics; a replay that fails again keeps its id. `count`: the dead letters
    that the task has written before.
    """

    def __init__(
        self,
        task: TaskId,
        clock: Clock,
        largest: int,
        topic_ids: Mapping[str, str] | None = None,
        count: LetterCount | None = None,
    ) -> None:
        self._task = task
        self._clock = clock
        self._largest = largest
        self._topic_ids = topic_ids or {}
        self._topic = task.group_id.dead_letter_topic
        self._since = count.since if count is not None else 0
        self._written = count.count if count is not None else 0
        self._taken = self._written

    def wrote(self) -> None:
        """The last dead letter is part of the open commit."""
        self._written += 1

    def take_written(self) -> int:
        """The number of dead letters since the last call, which are those of the commit that is being sealed."""
        written, self._taken = self._written - self._taken, self._written
        return written

    def write(self, record: Record, handler: str, error: BaseException, tries: int) -> Any:
        """The dead letter as an `Output`, for the commit that contains the record's position."""
        timestamp_ms = record.timestamp()[1]
        own, left_out = readable_headers(record)
        origin = Origin(record.topic(), record.partition(), record.offset(), timestamp_ms)
        letter = Letter(
            origin,
            handler,
            error_text(error),
            error_traceback(error),
            self._task.app,
            self._task.group,
            tries,
            getattr(record, "replay", 0),
            self._clock.wall_ms(),
            getattr(record, "topic_id", "") or self._topic_ids.get(origin.topic, ""),
            left_out,
            LetterNumber(self._since, self._written + 1) if self._since else NOT_NUMBERED,
        )
        headers = [*own, *letter_headers(letter)]
        return self._topic, record.key(), record.value(), kept_timestamp(record), headers

    def refusal(self, letter: Any) -> str | None:
        """Why a dead letter cannot be sent; None if it can. Kafka would refuse its whole commit."""
        _, key, value, _, headers = letter
        size = len(key or b"") + len(value or b"")
        size += sum(len(name.encode()) + len(content or b"") + _HEADER_BYTES for name, content in headers)
        if size <= self._largest:
            return None
        return (
            f"its dead letter of {size} bytes is over the limit of topic {self._topic} ({self._largest} bytes): "
            "raise max.message.bytes of that topic and start the worker again"
        )
