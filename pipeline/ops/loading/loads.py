"""Lists the loads of a cluster with their positions. Reads `pipeline.loads` and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import CorruptStateError
from pipeline.ops.loading.loader import LOADS
from pipeline.ops.loading.positions import LoadPosition, decode_position, position_name
from pipeline.ports import JournalReader

__all__ = ["KnownLoad", "known_loads"]


@dataclass(frozen=True, slots=True)
class KnownLoad:
    """The last committed position of a load. `fault`: why it cannot be read; `position` is then None."""

    name: str
    position: LoadPosition | None
    fault: CorruptStateError | None = None

    @property
    def state(self) -> str:
        """`complete` (its last run reached the end of the files), `begun`, or `unreadable`.

        It does not show whether a loader is running now.
        """
        if self.position is None:
            return "unreadable"
        return "complete" if self.position.finished else "begun"


def known_loads(reader: JournalReader) -> list[KnownLoad]:
    """All loads, sorted by name. A record without a readable name is skipped. Raises UnreachableError."""
    bounds = reader.bounds(LOADS)
    found: dict[str, KnownLoad] = {}
    for _, data in reader.read(LOADS, bounds.start, bounds.stable_end):
        name = position_name(data)
        if name is None:
            continue
        try:
            found[name] = KnownLoad(name, decode_position(data, name))
        except CorruptStateError as error:
            found[name] = KnownLoad(name, None, error)
    return [found[name] for name in sorted(found)]
