"""A processor to hand records to."""

from __future__ import annotations

import pytest

from tests.runtime.processor_rig import Rig


@pytest.fixture
def rig() -> Rig:
    """Not started yet."""
    return Rig()
