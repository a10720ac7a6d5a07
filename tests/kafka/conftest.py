"""Fixtures of the worker tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.afterwards import committed_records, committed_records_are_verified
from tests.support.kafka.harness import Workbench
from tests.support.kafka.proxy import Proxy
from tests.support.kafka.troubled_harness import TroubledBench

__all__ = ["committed_records", "committed_records_are_verified"]


@pytest.fixture
def bench(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Workbench]:
    """The topics, the state directory and the processes of one test."""
    workbench = Workbench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
    yield workbench
    workbench.close()


@pytest.fixture
def several(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Workbench]:
    """As `bench`, with tasks that own two or three partitions."""
    name = unique_name[-40:].strip("-")
    workbench = Workbench(kafka.bootstrap_servers, name, tmp_path, partitions=5, tasks=2)
    yield workbench
    workbench.close()


@pytest.fixture
def proxy(kafka: KafkaUnderTest) -> Iterator[Proxy]:
    """A proxy to the broker that can delay requests and drop answers."""
    proxy = Proxy(kafka.bootstrap_servers)
    yield proxy
    proxy.close()


@pytest.fixture
def troubled(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[TroubledBench]:
    """The bench for workers with an injected error."""
    made = TroubledBench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
    yield made
    made.close()
