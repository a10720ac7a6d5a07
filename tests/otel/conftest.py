"""A collector for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.otel import telemetry
from tests.support.otel.receiver import Receiver


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """It gets all that waits at the end of an export, also on a busy machine."""
    monkeypatch.setattr(telemetry, "CLOSE_S", 60.0)
    opened = Receiver()
    yield opened
    opened.close()
