"""Nothing broken on purpose."""

from __future__ import annotations

import pytest

from tests.support.breaking import Copy


@pytest.mark.parametrize(
    "test",
    ["tests/runtime/commit/test_doubtful_commits.py unknown_outcome", "tests/core/test_journal_format.py"],
)
def test_what_is_not_broken_passes(copied: Copy, test: str) -> None:
    """A copy in which tests fail whatever they find would notice every broken rule."""
    copied.assert_passes(test)
