"""The finished files of a load, in a record whose size does not depend on their number. Pure.

`chain` is a hash over the name, the size and the content hash of every finished file, in order. This one value shows
whether a list starts with exactly these files.

Waypoints help to find the file that differs. A waypoint is the value of the chain after one of the files. There is one
after every file if there are few, after every 2nd, 4th, 8th ... file if there are more, and always after the last one.
So a difference is located exactly among the first 32 files, and to within a few hundred among 10,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from pipeline.ops.loading.formats.lines import ReadPosition

__all__ = ["NO_FINISHED_FILES", "FinishedFiles", "Waypoint", "altered", "misplaced"]

_WAYPOINTS = 32


class Waypoint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The chain after a file of the list. `number`: of the file, from 1. `size`: as in `ReadPosition.offset`."""

    number: int
    name: str
    size: int
    chain: str


class FinishedFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The number of finished files, their chain and its waypoints."""

    count: int = 0
    chain: str = ""
    waypoints: tuple[Waypoint, ...] = ()

    def after(self, name: str, end: ReadPosition) -> FinishedFiles:
        """These files and one more. `end`: the position at its end."""
        number = self.count + 1
        fields = "\0".join((self.chain, name, str(end.offset), end.digest))
        chain = blake2b(fields.encode(), digest_size=16).hexdigest()
        stride = 1
        while number // stride > _WAYPOINTS:
            stride *= 2
        kept = tuple(waypoint for waypoint in self.waypoints if waypoint.number % stride == 0)
        return FinishedFiles(number, chain, (*kept, Waypoint(number, name, end.offset, chain)))

    def fault(self) -> str | None:
        """Why this record is not valid; None if it is."""
        numbers = [waypoint.number for waypoint in self.waypoints]
        if self.count < 0 or bool(self.count) != bool(self.chain):
            return "a number of finished files that contradicts their hash"
        if numbers != sorted(set(numbers)) or numbers[-1:] != ([self.count] if self.count else []):
            return "waypoints that are not in order, or do not end at its last finished file"
        if self.waypoints and self.waypoints[-1].chain != self.chain:
            return "a last waypoint that differs from the hash of its finished files"
        return None


NO_FINISHED_FILES = FinishedFiles()


def misplaced(finished_files: FinishedFiles, current: str, names: Sequence[str]) -> str | None:
    """Why a load cannot continue with a list of these names; None if the names match.

    `current`: the name of the file that the load was reading, after the finished ones.
    """
    known = [(w.number, w.name) for w in finished_files.waypoints] + [(finished_files.count + 1, current)]
    for number, name in known:
        found = names[number - 1] if number <= len(names) else None
        if found == name:
            continue
        was = f"{name} was file {number} of the list, "
        if name in names:
            return was + f"and is now file {names.index(name) + 1}"
        if found is None:
            return was + f"and is missing; the list now has {len(names)}"
        return was + f"and is missing; file {number} is now {found}"
    return None


def altered(
    finished_files: FinishedFiles, walked: FinishedFiles, shown: Sequence[str], unit: str
) -> str | None:
    """How the first files of the list differ from those that were finished; None if they do not.

    Args:
        finished_files: The finished files.
        walked: The first files of the list as they are now. Call this function after each file.
        shown: The names of the files of the list in messages.
        unit: What sizes count, in the plural.
    """
    known = {waypoint.number: waypoint for waypoint in finished_files.waypoints}
    was = known.get(walked.count)
    if was is None or was.chain == walked.chain:
        return None
    is_now = walked.waypoints[-1]
    first = max((number for number in known if number < walked.count), default=0) + 1
    if first < walked.count:
        return (
            f"one of the files {first} to {walked.count} of the list, {shown[first - 1]} to"
            f" {shown[walked.count - 1]}, has changed, moved or is missing since it was loaded"
        )
    changed = f"{shown[first - 1]}, file {first} of the list, has changed since it was loaded: "
    if was.size != is_now.size:
        return changed + f"it had {was.size:,} {unit}, and has {is_now.size:,} now"
    return changed + "it has the same size and other content"
