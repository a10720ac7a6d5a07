"""A driver of the flights app."""

from __future__ import annotations

import pytest

from pipeline.testing import TestDriver
from tests.testing.flights import app


@pytest.fixture
def driver() -> TestDriver:
    """Nothing has been sent to it."""
    return TestDriver(app)
