"""Progress reports of long steps. The installation and the start call one function with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Report", "StepProgress", "silent"]


@dataclass(frozen=True, slots=True)
class StepProgress:
    """One step, with its progress in bytes if it is known (`total_bytes` above 0)."""

    step: str
    done_bytes: int = 0
    total_bytes: int = 0

    def __str__(self) -> str:
        if not self.total_bytes:
            return self.step
        return f"{self.step}: {self.done_bytes / 1e6:.0f} of {self.total_bytes / 1e6:.0f} MB"


Report = Callable[[StepProgress], None]


def silent(progress: StepProgress) -> None:
    """Discard the report."""
