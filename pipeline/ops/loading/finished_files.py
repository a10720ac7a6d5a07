"""The files that a load has finished, in a record that stays small however many they are. Pure.

`chain` is a hash over name, size and content hash of every finished file, in their order: one value tells whether a
list begins with exactly these. Which file differs is told by waypoints, the chain's value after some of the files:
after each one while there are few, after every 2nd, 4th, 8th ... when there are more, and always after the last. So a
difference among the first 32 files is named exactly, and one among 10,000 within a few hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from pipeline.ops.loading.formats.lines import ReadPosition

__all__ = ["NOTHING_PASSED", "FinishedFiles", "Waypoint", "altered", "misplaced"]

_WAYPOINTS = 32


class Waypoint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The chain after file `number` (from 1) of the list, whose name and size (see `ReadPosition.offset`) these are."""

    number: int
    name: str
    size: int
    chain: str


class FinishedFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many files are finished, and what they were."""

    count: int = 0
    chain: str = ""
    waypoints: tuple[Waypoint, ...] = ()

    def after(self, name: str, end: ReadPosition) -> FinishedFiles:
        """These files and one more, which `end` is the end of."""
        number = self.count + 1
        fields = "\0".join((self.chain, name, str(end.offset), end.digest))
        chain = blake2b(fields.encode(), digest_size=16).hexdigest()
        stride = 1
        while number // stride > _WAYPOINTS:
            stride *= 2
        kept = tuple(waypoint for waypoint in self.waypoints if waypoint.number % stride == 0)
        return FinishedFiles(number, chain, (*kept, Waypoint(number, name, end.offset, chain)))

    def fault(self) -> str | None:
        """What cannot be right about it."""
        numbers = [waypoint.number for waypoint in self.waypoints]
        if self.count < 0 or bool(self.count) != bool(self.chain):
            return "a number of finished files that does not fit their hash"
        if numbers != sorted(set(numbers)) or numbers[-1:] != ([self.count] if self.count else []):
            return "waypoints that do not lead to its finished files"
        if self.waypoints and self.waypoints[-1].chain != self.chain:
            return "a last waypoint that is not the hash of its finished files"
        return None


NOTHING_PASSED = FinishedFiles()


def misplaced(passed: FinishedFiles, current: str, names: Sequence[str]) -> str | None:
    """What the names alone say against going on with this list, in words; None when nothing.

    `current` is the name of the file behind the finished ones, which the load had begun last.
    """
    known = [(w.number, w.name) for w in passed.waypoints] + [(passed.count + 1, current)]
    for number, name in known:
        found = names[number - 1] if number <= len(names) else None
        if found == name:
            continue
        said = f"{name} was file {number} of the list, "
        if name in names:
            return said + f"and is now file {names.index(name) + 1}"
        if found is None:
            return said + f"and is missing; the list has {len(names)} now"
        return said + f"and is missing; {found} is there now"
    return None


def altered(passed: FinishedFiles, walked: FinishedFiles, shown: Sequence[str], unit: str) -> str | None:
    """What differs in the files walked so far from those that were finished, in words; None when nothing.

    To be asked after each file: `walked` is the chain over the beginning of the list as it is now.
    `shown`: what messages call the files of the list; `unit`: what sizes count, in the plural.
    """
    known = {waypoint.number: waypoint for waypoint in passed.waypoints}
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
    said = f"{shown[first - 1]}, file {first} of the list, has changed since it was loaded: "
    if was.size != is_now.size:
        return said + f"{was.size:,} {unit} then, {is_now.size:,} now"
    return said + "as long as it was, with other content"
