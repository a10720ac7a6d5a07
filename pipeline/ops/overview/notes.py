"""Reads the notes of an app's workers with their times: `NotesReader`. Each call reads only what is new."""

from __future__ import annotations

from contextlib import closing

from pipeline.core.membership import decode_note
from pipeline.core.names import JOURNAL_READER, TopicPartition, workers_topic
from pipeline.ops.overview.clients import Clients
from pipeline.ops.overview.moves import Moves
from pipeline.ops.reading import last_committed, read_topic
from pipeline.ports import Clock

__all__ = ["NotesReader"]

_MOST_OFFSETS = 5_000  # of the topic's end, in one read


class NotesReader:
    """Use from one thread at a time.

    Args:
        app: The name of the app.
        clients: For Kafka.
        clock: The clock.
    """

    def __init__(self, app: str, clients: Clients, clock: Clock) -> None:
        self._app = app
        self._clients = clients
        self._clock = clock
        self._place = TopicPartition(workers_topic(app), 0)
        self._position = 0
        self._moves = Moves()

    def read(self) -> Moves:
        """The history up to now. Raises PipelineError."""
        if not self._position and not self._clients.cluster.describe([self._place.topic]):
            return self._moves  # no worker has ever started
        reader = self._clients.reader
        bounds = reader.bounds(self._place)
        if bounds.stable_end < self._position:
            self._position, self._moves = 0, Moves()  # the topic was created again
        start = max(bounds.start, self._position, bounds.stable_end - _MOST_OFFSETS)
        last = last_committed(reader, self._place, start, bounds.stable_end)
        if last is not None:
            with closing(self._clients.sources.open(JOURNAL_READER)) as source:
                for record in read_topic(source, self._clock, {self._place: start}, {self._place: last}):
                    note = decode_note(self._app, record.value() or b"")
                    if note is not None:
                        self._moves.take(max(0, record.timestamp()[1]), *note)
        self._position = bounds.stable_end
        return self._moves
