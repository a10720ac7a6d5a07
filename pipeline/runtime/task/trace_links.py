"""The `traceparent` headers of input records, and of outputs: `TraceLinks` and `with_traceparent`.

A commit handles many records, so its span is linked to their traces and is not part of one. Only the first records of a
commit are looked at. So the cost of a commit is bounded, and a record costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice

from pipeline.core.headers import readable_headers
from pipeline.core.names import TRACEPARENT_HEADER
from pipeline.ports import Output, Record

__all__ = ["TRACEPARENT_BYTES", "TraceLinks", "with_traceparent"]

# As `Accepted.check_size` counts a header: the name, 55 characters of value, and 8 bytes.
TRACEPARENT_BYTES = len(TRACEPARENT_HEADER) + 55 + 8


class TraceLinks:
    """The `traceparent` headers of the first `most` records of the open commit of a task. Processing thread only."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most
        self._found: dict[str, None] = {}  # records of one cause have equal headers

    def look(self, records: Sequence[Record], count: int) -> None:
        """Look at the first `count` of these records, which belong to the open commit."""
        if not self._left:
            return
        for record in islice(records, min(count, self._left)):
            self._left -= 1
            parent = _traceparent_of(record)
            if parent:
                self._found[parent] = None

    def take(self) -> Sequence[str]:
        """Those of the commit that is sealed. The next one starts without any."""
        found, self._found, self._left = list(self._found), {}, self._most
        return found


def _traceparent_of(record: Record) -> str:
    """The header of a record, as it came; empty without one."""
    headers, _ = readable_headers(record)
    value = next((value for name, value in headers if name == TRACEPARENT_HEADER), None)
    return (value or b"").decode("ascii", "replace")


def with_traceparent(
    outputs: Sequence[Output], traceparent: str, excluded: Collection[str]
) -> Sequence[Output]:
    """The outputs, each with this `traceparent`, except those that have one and those to `excluded` topics."""
    header = TRACEPARENT_HEADER, traceparent.encode()
    return [
        output
        if output[0] in excluded or any(name == TRACEPARENT_HEADER for name, _ in output[4])
        else Output(output[0], output[1], output[2], output[3], (*output[4], header))
        for output in outputs
    ]
