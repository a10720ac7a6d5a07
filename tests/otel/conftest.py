"""A collector for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.otel.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.close()
