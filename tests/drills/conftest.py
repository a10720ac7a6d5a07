"""The live app of the drills' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.drills.live import LiveApp


@pytest.fixture
def live(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[LiveApp]:
    """Two workers with input that does not end."""
    app = LiveApp(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
    yield app
    app.close()


@pytest.fixture
def live_2(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[LiveApp]:
    """The same with two tasks, which own two partitions each."""
    app = LiveApp(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path, tasks=2)
    yield app
    app.close()
