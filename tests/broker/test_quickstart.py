"""Quick starts: what becomes of a recording that failed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline.broker import install
from pipeline.broker.node import JavaRuntime
from pipeline.broker.reporting import BrokerError, silent

RUNTIME = JavaRuntime(Path("java"), ())


class Recordings:
    """In place of a node that is run to be recorded: fails, or leaves a recording."""

    def __init__(self) -> None:
        self.made = 0
        self.fail = True

    def __call__(self, recorder: JavaRuntime, _runtime: JavaRuntime, _directory: Path, _version: str) -> None:
        self.made += 1
        if self.fail:
            raise BrokerError("it did not serve in time")
        output = Path(recorder.options[0].partition("=")[2])
        output.write_bytes(b"classes")


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> Recordings:
    """No node is run."""
    made = Recordings()
    monkeypatch.setattr(install, "_run_once", made)
    monkeypatch.setattr("pipeline.broker.checks.require_memory", lambda **_: None)
    monkeypatch.setattr("pipeline.broker.checks.require_disk", lambda _: None)
    return made


def _options(root: Path) -> tuple[str, ...]:
    return install.with_quick_start(
        RUNTIME, root, kafka_version="4", java_version="25", report=silent
    ).options


def test_a_recording_is_made_once_and_used_by_every_start(recordings: Recordings, tmp_path: Path) -> None:
    """It takes longer than the start that it saves."""
    recordings.fail = False
    wanted = (f"-XX:AOTCache={tmp_path / 'quick-start-25.aot'}",)
    assert [_options(tmp_path), _options(tmp_path)] == [wanted, wanted]
    assert recordings.made == 1


def test_a_recording_that_failed_is_tried_again_the_next_day(recordings: Recordings, tmp_path: Path) -> None:
    """It can fail once on a busy machine; without this, every later start would be slow."""
    assert [_options(tmp_path), _options(tmp_path)] == [(), ()]
    assert recordings.made == 1
    recordings.fail = False
    yesterday = time.time() - 25 * 3600
    os.utime(tmp_path / "quick-start-25.aot", (yesterday, yesterday))
    assert _options(tmp_path) != ()
    assert recordings.made == 2
