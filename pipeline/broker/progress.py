"""What a long step tells whoever waits for it. Installing and starting take one callable and nothing more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Report", "StepProgress", "silent"]


@dataclass(frozen=True, slots=True)
class StepProgress:
    """One step, and how far it is in bytes where that can be said (`total_bytes` above 0)."""

    step: str
    done_bytes: int = 0
    total_bytes: int = 0

    def __str__(self) -> str:
        if not self.total_bytes:
            return self.step
        return f"{self.step}: {self.done_bytes / 1e6:.0f} of {self.total_bytes / 1e6:.0f} MB"


Report = Callable[[StepProgress], None]


def silent(progress: StepProgress) -> None:
    """A report that nobody reads."""
