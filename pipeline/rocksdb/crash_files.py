"""The log that survives a crash of the process, in files below `<state_dir>/<app>/.crashes`: `CrashFiles`.

    note       4 KiB, mapped into memory: the process, its processing thread, and the records that it is handling. The
               kernel keeps the memory when the process ends, however it ends. It is never synced
    trace      Python's fault handler writes here at a fatal signal, from within the signal handler. The disk blocks are
               allocated at the start, so that a full disk does not hide a crash
    suspects   the bytes of `save`, replaced with a synced rename

A process has only one fault handler. While a worker runs, its trace goes to this file, not to standard error, and the
next start logs it. Forked children do not write here.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import struct
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from pipeline.errors import ConfigError, InvariantError
from pipeline.forks import Held, in_children
from pipeline.ports import Ending
from pipeline.rocksdb.errors import disk_hint, why

__all__ = ["FATAL_SIGNALS", "NOTE", "CrashFiles", "process_in", "process_in_note"]

FATAL_SIGNALS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT})

_DIRECTORY = ".crashes"
NOTE = f"{_DIRECTORY}/note"  # below `<state_dir>/<app>`
_NOTE_BYTES = 4096
_TRACE_BYTES = 64 * 1024
_VERSION = 1
# At offset 0: version, whether the process left, its thread, the length of its name, and the name.
_HEAD = struct.Struct("<B?QB64s")
# At offset 128: the length of the place (0: nothing is being handled), the first and last offset, and the place.
_AT = 128
_HANDLING = struct.Struct("<Hqq")
_PLACE = _AT + _HANDLING.size
_NOTHING = b"\0\0"


def process_in(directory: Path) -> str | None:
    """The name of the process that runs, or ran last, in `<state_dir>/<app>`; None if it cannot be read."""
    try:
        return process_in_note((directory / NOTE).read_bytes())
    except OSError:
        return None


def process_in_note(note: bytes) -> str | None:
    """The name of the process in the content of the file `NOTE`; None if it cannot be understood."""
    if len(note) != _NOTE_BYTES:
        return None
    version, _, _, length, name = _HEAD.unpack_from(note)
    return name[:length].decode(errors="replace") if version == _VERSION and length else None


class CrashFiles:
    """`ports.CrashLog`. `ended_by`: the signal that ended the previous process, if a supervisor saw it."""

    def __init__(self, state_dir: Path, ended_by: signal.Signals | None = None) -> None:
        self._root = state_dir
        self._ended_by = ended_by
        self._directory = state_dir
        self._map: mmap.mmap | None = None
        self._place = b""
        _LOGS.add(self)

    def previous(self, app: str) -> Ending | None:
        """How the previous process ended; None if there was none."""
        self._directory = self._root / app / _DIRECTORY
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            note = self._read("note")
            trace = self._read("trace").strip(b"\0").decode(errors="replace")
        except OSError as error:
            self._fail(error)
        if len(note) != _NOTE_BYTES:
            return None
        version, left, thread, length, name = _HEAD.unpack_from(note)
        if version != _VERSION or not length:
            return None
        if not trace and not left and self._ended_by in FATAL_SIGNALS:
            trace = f"Fatal Python error: {self._ended_by.name}, seen by the supervisor\n"
        size, first, last = _HANDLING.unpack_from(note, _AT)
        process = name[:length].decode(errors="replace")
        return Ending(process, left, note[_PLACE : _PLACE + size], first, last, thread, trace)

    def load(self) -> bytes:
        """The bytes of the last `save`; empty if there was none."""
        try:
            return self._read("suspects")
        except OSError as error:
            self._fail(error)

    def save(self, data: bytes) -> None:
        """Replace the saved bytes atomically; they survive a power loss."""
        path = self._directory / "suspects"
        new = path.with_name("suspects.new")
        try:
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.rename(path)
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            self._fail(error)

    def begin(self, process: str) -> None:
        """Discard the record of the previous process, and start recording this one."""
        name = process.encode()[:64]
        head = _HEAD.pack(_VERSION, False, threading.get_ident(), len(name), name)
        try:
            trace = self._open("trace", _TRACE_BYTES)
            note = self._open("note", _NOTE_BYTES)
            try:
                self._map = mmap.mmap(note, _NOTE_BYTES)
            finally:
                os.close(note)
        except OSError as error:
            self._fail(error)
        self._map[: len(head)] = head
        _watch(trace)
        self._ended = weakref.finalize(self, _unwatch, trace)

    def handling(self, place: bytes, first: int, last: int) -> None:
        """Record that the handling of `first` to `last` begins. Survives the process, not a power loss."""
        note = self._map
        if note is None:
            raise InvariantError("records are handled before the crash log has begun")
        if place is not self._place:  # usually the same object
            size = len(place)
            if _PLACE + size > _NOTE_BYTES:
                raise InvariantError(f"{size} bytes do not fit into the crash log")
            note[_AT : _AT + 2] = _NOTHING
            note[_PLACE : _PLACE + size] = place
            self._place = place
        _HANDLING.pack_into(note, _AT, len(place), first, last)

    def handled(self) -> None:
        """Record that the handling ended."""
        if self._map is not None:
            self._map[_AT : _AT + 2] = _NOTHING

    def leave(self) -> None:
        """Record an orderly exit of this process. Does nothing before `begin`."""
        if self._map is None:
            return
        self._map[1] = 1
        self._map.close()
        self._map = None
        self._ended()

    def forked(self) -> None:
        """Stop recording: this process is a forked child."""
        self._map = None

    def _read(self, name: str) -> bytes:
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return b""

    def _open(self, name: str, size: int) -> int:
        """Create a file of `size` zero bytes with allocated disk blocks."""
        file = os.open(self._directory / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
        except BaseException:
            os.close(file)
            raise
        return file

    def _fail(self, error: OSError) -> NoReturn:
        raise ConfigError(
            f"cannot use the crash log {self._directory}: {why(self._directory, error)}",
            hint=disk_hint(self._directory, error),
        ) from error


_LOGS: weakref.WeakSet[CrashFiles] = weakref.WeakSet()
_watched: list[Held] = []
_was_enabled = False


def _watch(trace: int) -> None:
    """Direct the fault handler to this file. The worker that began last in the process has it."""
    global _was_enabled  # noqa: PLW0603 - the fault handler is global to the process
    if not _watched:
        _was_enabled = faulthandler.is_enabled()
    _watched.append(Held(trace))
    faulthandler.enable(trace, all_threads=True)


def _unwatch(trace: int) -> None:
    for held in [held for held in _watched if held.fd == trace]:
        _watched.remove(held)
        if _watched:
            faulthandler.enable(_watched[-1].fd)


def _restore() -> None:
    """Restore the fault handler's state before the first worker: disabled, or to standard error."""
    faulthandler.disable()
    if _was_enabled:
        # These are raised if standard error has no file descriptor.
        with suppress(AttributeError, OSError, RuntimeError, ValueError):
            faulthandler.enable()


def _forked() -> None:
    for log in list(_LOGS):
        log.forked()
    if _watched:
        _watched.clear()
        _restore()


in_children(_forked)
