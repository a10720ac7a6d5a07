"""A real PostgreSQL for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.afterwards import (
    committed_records,
    committed_records_are_verified,
    memory_records_are_verified,
)
from tests.support.sinks.server import PostgresUnderTest

__all__ = ["committed_records", "committed_records_are_verified", "memory_records_are_verified"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresUnderTest]:
    """One server for the session, started by the first test that asks; take a database of your own."""
    server = PostgresUnderTest()
    yield server
    server.close()


@pytest.fixture
def dsn(postgres: PostgresUnderTest) -> str:
    """An empty database."""
    return postgres.create_database()
