"""The due times of `every` in one partition: `Ticks`, with a source of due steps for each name (`TickSource`).

The next due time of each name is in one row of the partition, with the wall clock of the last call. So a time gives one
call, whichever worker owns the task:

    wall = max(that of the last committed call, the system's clock)

An owner whose clock is behind makes no second call: the next due time is in the row. A clock that is set back delays
calls until it has caught up. The first due time of a name is the first multiple of its period after the first start. It
is committed at once: otherwise a worker that is restarted before each due time would never call.

Processing thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from pipeline.api.ticks import TickRecord, TickTopic
from pipeline.errors import CorruptStateError
from pipeline.ports import Clock

__all__ = ["TickSource", "Ticks"]

# Beside the row of the event clock (`core/event_time.py`).
_TICKS = b"\x00te"
_VERSION = b"\x01"


class _State(msgspec.Struct, array_like=True):
    """What is stored. `due`: the next due time by name."""

    wall_ms: int = 0
    due: dict[str, int] = {}


_encoder = msgspec.msgpack.Encoder(order="sorted")
_decoder = msgspec.msgpack.Decoder(_State)


class Ticks:
    """The due times of one partition. `stored`: its row, under `ticks_key`."""

    def __init__(
        self,
        topics: Iterable[TickTopic],
        stored: bytes | None,
        clock: Clock,
        partition: int,
        rows: bytes = b"",
    ) -> None:
        """`rows`: the beginning of the keys of the partition's rows. Raises CorruptStateError."""
        self._clock = clock
        self._key = ticks_key(rows)
        self._state = _unpack(stored, partition)
        self._written = stored
        self._wall_ms = self._state.wall_ms
        wall_ms = self.wall_ms
        due = self._state.due
        self._new = {
            topic.tick_name for topic in topics
        } - due.keys()  # their first due times are not committed
        for topic in topics:
            first = wall_ms - wall_ms % topic.every_ms + topic.every_ms
            due[topic.tick_name] = min(due.get(topic.tick_name, first), first)
        self.sources = {topic.name: TickSource(self, topic, partition) for topic in topics}
        for name in due.keys() - {topic.tick_name for topic in topics}:
            del due[name]

    @property
    def wall_ms(self) -> int:
        """The wall clock, which never goes back."""
        self._wall_ms = max(self._wall_ms, self._clock.wall_ms())
        return self._wall_ms

    def next_ms(self, name: str) -> int:
        """The next due time of a name; 0 if its first one must be committed."""
        return 0 if name in self._new else self._state.due[name]

    def begin(self, name: str) -> bool:
        """Whether the first due time of a name must be committed. Its row is then in the open commit."""
        is_new = name in self._new
        self._new.discard(name)
        return is_new

    def done(self, name: str, wall_ms: int, next_ms: int) -> None:
        """The function was called at `wall_ms`, or the call was given up."""
        self._state.wall_ms = max(self._state.wall_ms, wall_ms)
        self._state.due[name] = next_ms

    def take_writes(self) -> dict[bytes, bytes | None]:
        """The row, if it has changed."""
        data = _VERSION + _encoder.encode(self._state)
        if data == self._written:
            return {}
        self._written = data
        return {self._key: data}


class TickSource:
    """The due times of one name."""

    def __init__(self, ticks: Ticks, topic: TickTopic, partition: int) -> None:
        self._ticks = ticks
        self._topic = topic
        self._partition = partition
        self._failed: TickRecord | None = None  # the call that is tried again

    @property
    def next_ms(self) -> int:
        """The wall clock at the next due time."""
        return self._ticks.next_ms(self._topic.tick_name)

    @property
    def changes(self) -> int:
        """No row becomes due here."""
        return 0

    def due(self, more: Callable[[], bool]) -> Iterator[TickRecord | None]:
        """The due time, once: the last one that has passed. Ends when `more` says so.

        None: the first due time was noted.
        """
        name, every_ms = self._topic.tick_name, self._topic.every_ms
        if not more():
            return
        if self._ticks.begin(name):
            yield None
            return
        wall_ms, next_ms = self._ticks.wall_ms, self.next_ms
        if wall_ms < next_ms:
            return
        tick = self._failed
        if tick is None:
            # The next one is a multiple of the period, unless the period was changed since it was stored.
            missed = (wall_ms - next_ms) // every_ms
            tick = TickRecord(self._topic.name, self._partition, next_ms + missed * every_ms, missed, wall_ms)
        self._failed = tick
        yield tick
        self._failed = None
        following = tick.offset() - tick.offset() % every_ms + every_ms
        self._ticks.done(name, tick.timestamp()[1], following)


def ticks_key(rows: bytes = b"") -> bytes:
    """The key of the row. `rows`: `core.inputs.row_prefix` of the partition in format 2."""
    return rows + _TICKS


def _unpack(data: bytes | None, partition: int) -> _State:
    if data is None:
        return _State(0, {})
    try:
        if data[:1] != _VERSION:
            raise CorruptStateError(f"the due times of partition {partition} have an unknown format")
        return _decoder.decode(data[1:])
    except msgspec.DecodeError as error:
        raise CorruptStateError(
            f"the due times of partition {partition} cannot be decoded: {error}"
        ) from error
