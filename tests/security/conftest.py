"""A Kafka with TLS, passwords and an authorizer for the tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import broker_directory
from tests.support.secure.kafka import SecureKafka, secure_kafka
from tests.support.secure.site import SecureSite


@pytest.fixture(scope="module")
def secure() -> Iterator[SecureKafka]:
    """One for the tests of a file. Tests share it: take names from `unique_name`."""
    directory = broker_directory("secure")
    with secure_kafka(directory) as running:
        yield running
    shutil.rmtree(directory)


@pytest.fixture
def site(secure: SecureKafka, unique_name: str, tmp_path: Path) -> Iterator[SecureSite]:
    """An app with topics of its own, and a directory for its commands."""
    made = SecureSite(secure, unique_name[-30:].strip("-"), tmp_path)
    yield made
    made.close()
