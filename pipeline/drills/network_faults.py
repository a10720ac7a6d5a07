"""The fault of a network drill: a file that the driller writes and a proxy reads. `NetworkFault`, `ProxyPlace`.

The proxy looks at the file every 0.1 s. A fault has a deadline, at which the proxy ends it by itself, also if the
driller was killed and did not delete the file. To end a fault earlier, delete the file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from pipeline.directories import make_private
from pipeline.drills.directory import usable
from pipeline.drills.workers import Process

__all__ = ["NetworkFault", "ProxyNote", "ProxyPlace"]


class NetworkFault(msgspec.Struct, frozen=True):
    """What happens to the connections of these processes until `until_ms`.

    `slow`: each request and each answer is delayed by `delay_ms`. `cut`: connections are closed, and new ones, too.
    """

    kind: Literal["slow", "cut"]
    pids: list[int]
    until_ms: int
    delay_ms: int = 0

    def over(self) -> bool:
        """Whether its deadline has passed."""
        return time.time() * 1000 >= self.until_ms


class ProxyNote(msgspec.Struct, frozen=True):
    """What a proxy writes of itself. `affected`: connections cut, or frames delayed, by the last fault."""

    process: Process
    servers: str
    kafka: str
    ports: list[int]
    fault: str = ""
    affected: int = 0


class ProxyPlace:
    """The directory of a proxy in the drills' directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path / "proxy.json"
        self.fault_file = path / "fault.json"

    @staticmethod
    def of_port(directory: Path, port: int) -> ProxyPlace:
        """The place of the proxy on this port."""
        return ProxyPlace(directory / f"proxy-{port}")

    @staticmethod
    def running(directory: Path) -> Iterator[tuple[ProxyPlace, ProxyNote]]:
        """The proxies that run."""
        for path in sorted(directory.glob("proxy-*")):
            place = ProxyPlace(path)
            note = place.note()
            if note is not None and note.process.alive:
                yield place, note

    def note(self) -> ProxyNote | None:
        """What the proxy wrote last; None if nothing can be read."""
        with suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._note.read_bytes(), type=ProxyNote)
        return None

    def write_note(self, note: ProxyNote) -> None:
        """Write what a reader of `note` gets. Raises InputError."""
        with usable(self.path.parent):
            make_private(self.path)
            _replace(self._note, msgspec.json.encode(note))

    def fault(self) -> NetworkFault | None:
        """The fault that is not over; None if there is none."""
        with suppress(OSError, msgspec.MsgspecError):
            found = msgspec.json.decode(self.fault_file.read_bytes(), type=NetworkFault)
            return None if found.over() else found
        return None

    def begin(self, fault: NetworkFault) -> None:
        """Write the fault."""
        _replace(self.fault_file, msgspec.json.encode(fault))

    def end(self) -> bool:
        """Delete the fault. Returns whether there was one."""
        there = self.fault_file.exists()
        self.fault_file.unlink(missing_ok=True)
        return there


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.replace(path)
