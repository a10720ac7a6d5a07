"""Names that no other run uses: each name of an application begins with FAUST_PREFIX."""

from __future__ import annotations

import os

__all__ = ["PREFIX", "name"]

PREFIX = os.environ.get("FAUST_PREFIX", "")


def name(text: str) -> str:
    """The name of an application or a topic in this run."""
    return PREFIX + text
