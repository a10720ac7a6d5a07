"""Fixtures of the worker tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.kafka.workbench import Workbench


@pytest.fixture
def bench(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Workbench]:
    """Topics, state directory and processes of one test."""
    workbench = Workbench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
    yield workbench
    workbench.close()
