"""A driver of the flights app."""

from __future__ import annotations

import pytest

from pipeline.testing import TestDriver
from tests.support.afterwards import memory_records_are_verified
from tests.support.testing.flights import app

__all__ = ["memory_records_are_verified"]


@pytest.fixture
def driver() -> TestDriver:
    """Nothing has been sent to it."""
    return TestDriver(app)
