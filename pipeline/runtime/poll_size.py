"""How many records the next poll of a group may return: `PollSize`.

An aggregating batch handler writes a row and an output for each key of a batch. So the more records a batch has, the
fewer writes there are for each record. While records wait, a group with only batch handlers takes more of them at once.
They were in the client's memory before; their size is bounded, because the client fetches others for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.api.bindings import Binding
from pipeline.config import WorkerSettings
from pipeline.ports import Record

__all__ = ["PollSize"]

_LARGE_BYTES = 8 * 1024 * 1024  # of the values of a poll above `max_poll_records`
_SAMPLE = 64  # records whose size is read


class PollSize:
    """For one group. Processing thread only."""

    def __init__(self, bindings: Sequence[Binding], settings: WorkerSettings) -> None:
        kinds = {binding.batch for binding in bindings}
        self._usual = settings.max_poll_records
        if True in kinds:
            self._usual = min(self._usual, settings.max_batch_records)
        self.largest = settings.max_batch_records if kinds == {True} else self._usual
        self.limit = self._usual

    def polled(self, records: Sequence[Record]) -> bool:
        """A poll has returned these records. Returns whether others wait, as far as is known."""
        if len(records) < self._usual:
            self.limit = self._usual
            return False
        if self._usual < self.largest:
            sample = records[:: max(1, len(records) // _SAMPLE)]
            size = sum([len(record.value() or b"") for record in sample]) / len(sample)
            self.limit = max(self._usual, min(self.largest, int(_LARGE_BYTES / max(size, 1))))
        return True
