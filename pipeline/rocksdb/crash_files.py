"""What outlives a process that crashes, in files: `CrashFiles`, below `<state_dir>/<app>/.crashes`.

    note       4 KiB, mapped into memory: the process, its processing thread, and what that is handling. The kernel
               keeps what was stored there when the process ends, in whatever way; nothing is synced
    trace      Python's fault handler writes here at a fatal signal, from within the signal handler. Its blocks are
               allocated at the start, so that a full disk does not hide a crash
    suspects   what `save` wrote, replaced by a rename that is synced

The fault handler belongs to the whole process. While a worker runs, its trace goes here and not to standard error;
the next start logs it. Children that are forked do not write here.
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
from pipeline.ports import Ending
from pipeline.rocksdb.forks import Held, in_children

__all__ = ["FATAL_SIGNALS", "CrashFiles"]

FATAL_SIGNALS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT})

_DIRECTORY = ".crashes"
_NOTE_BYTES = 4096
_TRACE_BYTES = 64 * 1024
_VERSION = 1
# At 0: version, whether the process left, its thread, the length of its name, and the name.
_HEAD = struct.Struct("<B?QB64s")
# At 128: how long the place is (0: nothing is being handled), from and to which offset; the place follows.
_AT = 128
_HANDLING = struct.Struct("<Hqq")
_PLACE = _AT + _HANDLING.size
_NOTHING = b"\0\0"


class CrashFiles:
    """`ports.CrashLog`. `ended_by`: the signal that ended the process before this one, where a supervisor saw it."""

    def __init__(self, state_dir: Path, ended_by: signal.Signals | None = None) -> None:
        self._root = state_dir
        self._ended_by = ended_by
        self._directory = state_dir
        self._map: mmap.mmap | None = None
        self._place = b""
        _LOGS.add(self)

    def previous(self, app: str) -> Ending | None:
        """How the process before this one ended; None when there was none."""
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
        """What was saved last; empty when nothing was."""
        try:
            return self._read("suspects")
        except OSError as error:
            self._fail(error)

    def save(self, data: bytes) -> None:
        """Replace what is saved, as a whole, so that it survives a power loss."""
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
        """Forget how the process before this one ended, and record this one from now on."""
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
        """Records from `first` to `last` are about to be handled. Survives the process, not a power loss."""
        note = self._map
        if note is None:
            raise InvariantError("records are handled before the crash log has begun")
        if place is not self._place:  # mostly it is the same object
            size = len(place)
            if _PLACE + size > _NOTE_BYTES:
                raise InvariantError(f"{size} bytes do not fit into the crash log")
            note[_AT : _AT + 2] = _NOTHING
            note[_PLACE : _PLACE + size] = place
            self._place = place
        _HANDLING.pack_into(note, _AT, len(place), first, last)

    def handled(self) -> None:
        """They were handled."""
        if self._map is not None:
            self._map[_AT : _AT + 2] = _NOTHING

    def leave(self) -> None:
        """This process ends in order. Nothing happens when it has not begun."""
        if self._map is None:
            return
        self._map[1] = 1
        self._map.close()
        self._map = None
        self._ended()

    def forked(self) -> None:
        """This is a child: what it does is not the worker's."""
        self._map = None

    def _read(self, name: str) -> bytes:
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return b""

    def _open(self, name: str, size: int) -> int:
        """A file of zeros."""
        file = os.open(self._directory / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
        except BaseException:
            os.close(file)
            raise
        return file

    def _fail(self, error: OSError) -> NoReturn:
        raise ConfigError(
            f"cannot use the crash log {self._directory}: {error.strerror}",
            hint="see that this user may write to the state directory, and that its disk has room",
        ) from error


_LOGS: weakref.WeakSet[CrashFiles] = weakref.WeakSet()
_watched: list[Held] = []
_was_enabled = False


def _watch(trace: int) -> None:
    """Let the fault handler write to this file. The last worker of a process that begins has it."""
    global _was_enabled  # noqa: PLW0603 - the fault handler is the process's own
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
    """As it was before the first worker: off, or to standard error."""
    faulthandler.disable()
    if _was_enabled:
        with suppress(AttributeError, OSError, RuntimeError, ValueError):  # standard error is not a file
            faulthandler.enable()


def _forked() -> None:
    for log in list(_LOGS):
        log.forked()
    if _watched:
        _watched.clear()
        _restore()


in_children(_forked)
