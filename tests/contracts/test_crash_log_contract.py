"""What a crash log promises: the same for files and for memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import InvariantError
from pipeline.ports import CrashLog
from pipeline.rocksdb.crash_files import CrashFiles
from pipeline.testing.memory_store import MemoryCrashLog

Open = Callable[[], CrashLog]
LONG = b"x" * 900


@pytest.fixture(params=["memory", "files"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the log as the next process on the same disk does."""
    if request.param == "memory":
        log = MemoryCrashLog()
        return lambda: log
    (tmp_path / "app").mkdir()
    return lambda: CrashFiles(tmp_path)


def begin(open_log: Open, process: str) -> CrashLog:
    log = open_log()
    log.previous("app")
    log.begin(process)
    return log


def test_the_first_process_has_none_before_it(opened: Open) -> None:
    """Nothing is made up of an empty directory."""
    log = opened()
    assert log.previous("app") is None
    assert log.load() == b""


def test_what_was_being_handled_outlives_the_process(opened: Open) -> None:
    """The process is gone without another word."""
    log = begin(opened, "1-one")
    log.handling(b"first", 1, 9)
    log.handling(LONG, 10, 2**40)
    log.handling(b"a place", 11, 12)
    ending = opened().previous("app")
    assert ending is not None
    assert (ending.process, ending.left, ending.trace) == ("1-one", False, "")
    assert (ending.place, ending.first, ending.last) == (b"a place", 11, 12)


def test_between_batches_nothing_is_being_handled(opened: Open) -> None:
    """A crash there is not a record's."""
    log = begin(opened, "1-one")
    log.handling(b"a place", 11, 12)
    log.handled()
    ending = opened().previous("app")
    assert ending is not None
    assert ending.place == b""


def test_a_process_that_leaves_says_so_and_the_next_one_begins_anew(opened: Open) -> None:
    """Each process has its own end."""
    begin(opened, "1-one").leave()
    log = opened()
    ending = log.previous("app")
    assert ending is not None
    assert (ending.process, ending.left) == ("1-one", True)
    log.begin("2-two")
    log.handling(b"x", 0, 0)
    log.handled()
    ending = opened().previous("app")
    assert ending is not None
    assert (ending.process, ending.left, ending.place) == ("2-two", False, b"")


def test_what_is_saved_is_replaced_and_outlives_processes(opened: Open) -> None:
    """Suspicions of several lives are in it."""
    log = opened()
    log.previous("app")
    log.save(b"one")
    log.begin("1-one")
    log.save(b"the second")
    after = opened()
    after.previous("app")
    assert after.load() == b"the second"


def test_records_before_the_beginning_are_a_bug(opened: Open) -> None:
    """They would be noted for the process before."""
    log = opened()
    log.previous("app")
    with pytest.raises(InvariantError):
        log.handling(b"x", 0, 0)
