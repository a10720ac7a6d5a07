"""What is wrong and does not stop what found it: `Problem`. An error is raised, a problem is shown."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and what helps."""

    text: str
    hint: str
