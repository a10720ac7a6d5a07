"""A problem that is shown to the operator, without an error: `Problem`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem, and what to do about it."""

    text: str
    hint: str
