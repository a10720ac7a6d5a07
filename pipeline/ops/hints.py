"""What a mistyped name is answered with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pipeline.errors import ConfigError

__all__ = ["did_you_mean", "no_topic"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'flights'?` where something known looks like `name`; else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def no_topic(name: str, known: Iterable[str]) -> ConfigError:
    """The error for a topic that is not in the cluster. `known`: those that are."""
    return ConfigError(
        f"there is no topic {name!r}{did_you_mean(name, known)}",
        hint=f"declare it in topics/{name}.yaml and run: pipeline topics apply",
    )
