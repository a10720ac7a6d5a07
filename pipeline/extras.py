"""The optional dependencies of this package, and the command that installs those of one extra."""

from __future__ import annotations

import re
import shlex

__all__ = ["install_hint"]

_PACKAGE = "exactly-once-pipeline"


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
