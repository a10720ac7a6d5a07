"""How this package is installed: its optional dependencies, and the directory of its runbooks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

__all__ = ["install_hint", "runbooks_dir"]

_PACKAGE = "exactly-once-pipeline"

_PACKAGE_DIR = Path(__file__).parent


def install_hint(extra: str) -> str:
    """A command that installs what the extra needs, wherever this package itself was installed from."""
    from importlib.metadata import PackageNotFoundError, requires  # noqa: PLC0415 - slow to load, for an error only

    try:
        found = requires(_PACKAGE) or []
    except PackageNotFoundError:
        found = []
    of_extra = re.compile(rf"extra *== *['\"]{extra}['\"]")
    needed = [text.partition(";")[0].strip() for text in found if of_extra.search(text)]
    if not needed:
        return f"install {_PACKAGE} again, with its extra `{extra}`"
    return f"pip install {shlex.join(needed)}"


def runbooks_dir() -> Path:
    """The directory of the runbooks: in an installed package, or next to the package in a checkout."""
    beside = _PACKAGE_DIR.parent / "runbooks"
    return beside if (beside / "poison-record.md").exists() else _PACKAGE_DIR / "runbooks"
