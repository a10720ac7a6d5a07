"""What a topic accepts according to its settings: `Accepted`, checked when an output is sent.

A broker refuses a record only when it arrives, together with everything else in its transaction. The settings are
checked earlier, while the input record of the output is still known. They are as of the last read, so the broker
makes the final decision: `pipeline.runtime.task.refused_outputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipeline.api.encode_errors import LATEST_MS

__all__ = ["Accepted", "accepted_by"]

DEFAULT_MESSAGE_BYTES = 1_048_588
DEFAULT_AFTER_MS = 3_600_000
# Room for the batch and record headers that a broker counts against max.message.bytes.
RECORD_OVERHEAD_BYTES = 256


class Accepted:
    """Bounds of the records of one topic.

    `most`: bytes of key and value. `compacted`: a record needs a key. `surely_ms`: a timestamp up to this one is
    accepted; any other is for `check_time` to decide, which moves it along with the clock.
    """

    __slots__ = ("_after_ms", "_before_ms", "_topic", "_wall_ms", "compacted", "most", "surely_ms")

    def __init__(
        self,
        topic: str,
        most: int,
        *,
        compacted: bool = False,
        before_ms: int = LATEST_MS,
        after_ms: int = LATEST_MS,
        wall_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self.most = most
        self.compacted = compacted
        self._topic = topic
        self._before_ms = before_ms
        self._after_ms = after_ms
        self._wall_ms = wall_ms
        # A lower bound rises with time, so where there is one the clock is asked for each record.
        self.surely_ms = wall_ms() + after_ms if before_ms >= LATEST_MS else -1

    @property
    def after_ms(self) -> int:
        """How far a timestamp may be ahead of the wall clock."""
        return self._after_ms

    def check_time(self, timestamp_ms: int) -> None:
        """Raises ValueError for a timestamp that the topic refuses. 0 becomes the present, which it accepts."""
        now_ms = self._wall_ms()
        if self.surely_ms >= 0:
            self.surely_ms = now_ms + self._after_ms
        if timestamp_ms - now_ms > self._after_ms:
            raise ValueError(
                f"the timestamp {timestamp_ms} is {timestamp_ms - now_ms} ms ahead, and topic {self._topic} accepts "
                f"{self._after_ms} ms (message.timestamp.after.max.ms): {_ADVICE}"
            )
        if timestamp_ms and now_ms - timestamp_ms > self._before_ms:
            raise ValueError(
                f"the timestamp {timestamp_ms} is {now_ms - timestamp_ms} ms ago, and topic {self._topic} accepts "
                f"{self._before_ms} ms (message.timestamp.before.max.ms): {_ADVICE}"
            )

    def refuse_null_key(self) -> None:
        """Raise the ValueError of a record without a key where `compacted`."""
        raise ValueError(
            f"topic {self._topic} is compacted and accepts no record without a key: send one with a key, or change "
            "cleanup.policy of the topic"
        )

    def check_size(
        self, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> None:
        """Raises ValueError for a record that the topic would refuse the size of."""
        size = len(key or b"") + len(value or b"")
        size += sum(len(name.encode()) + len(content or b"") + 8 for name, content in headers)
        if size > self.most:
            raise ValueError(
                f"a record of {size} bytes is over the limit of topic {self._topic} ({self.most} bytes): send "
                "smaller ones, or raise max.message.bytes of the topic and start the worker again"
            )


_ADVICE = (
    "send with another timestamp_ms (by default, an output has that of its input), or raise that setting"
)


def accepted_by(
    topic: str, config: Mapping[str, str], wall_ms: Callable[[], int], reserved: int = 0
) -> Accepted:
    """What a topic with these settings accepts. `reserved`: the bytes that are added to each record later."""
    appended = config.get("message.timestamp.type") == "LogAppendTime"  # the broker writes its own time
    return Accepted(
        topic,
        int(config.get("max.message.bytes", DEFAULT_MESSAGE_BYTES)) - RECORD_OVERHEAD_BYTES - reserved,
        compacted="compact" in config.get("cleanup.policy", ""),
        before_ms=LATEST_MS if appended else int(config.get("message.timestamp.before.max.ms", LATEST_MS)),
        after_ms=LATEST_MS
        if appended
        else int(config.get("message.timestamp.after.max.ms", DEFAULT_AFTER_MS)),
        wall_ms=wall_ms,
    )
