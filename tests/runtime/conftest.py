"""A processor to hand records to."""

from __future__ import annotations

import pytest

from tests.support.afterwards import memory_records_are_verified
from tests.support.runtime.processor_rig import Rig

__all__ = ["memory_records_are_verified", "rig"]


@pytest.fixture
def rig() -> Rig:
    """Not started yet."""
    return Rig()
