"""The runbooks of the package: `runbooks_dir`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["runbooks_dir"]

_PACKAGE = Path(__file__).parents[1]


def runbooks_dir() -> Path:
    """The directory of the runbooks: in an installed package, or next to the package in a checkout."""
    beside = _PACKAGE.parent / "runbooks"
    return beside if (beside / "poison-record.md").exists() else _PACKAGE / "runbooks"
