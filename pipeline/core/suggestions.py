"""The wording of messages: counts with their nouns, the name that was probably meant, the next step for a `Problem`.

Every message that counts something or suggests a name uses this. Pure, and below everything that reads names from
people: settings, commands, topic declarations.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.core.names import TaskId, known_apps
from pipeline.errors import ConfigError, InputError

__all__ = ["Problem", "are", "closest", "counted", "did_you_mean", "no_app", "no_topic", "noun", "topic_hint"]

_SIMILARITY = 0.6  # difflib's ratio: below it, unrelated names are suggested


def closest(name: str, known: Iterable[str], *, similarity: float = _SIMILARITY) -> str | None:
    """The known name that is most like `name`.

    Args:
        name: The name that was typed.
        known: The names that exist.
        similarity: From 0, any name, to 1, only the same one.

    Returns:
        None if no known name is that similar.
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=similarity)
    return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message: `; did you mean 'flights'?`, or nothing if no known name is like `name`."""
    found = closest(name, known)
    return f"; did you mean {found!r}?" if found is not None else ""


def no_topic(name: str, known: Iterable[str]) -> ConfigError:
    """The error for a topic that the cluster does not have. `known`: the topics that it has."""
    suggestion = did_you_mean(name, known)
    return ConfigError(
        f"there is no topic {name!r}{suggestion}", hint=topic_hint([name], named=bool(suggestion))
    )


def no_app(name: str, topics: Iterable[str], *, advice: str = "") -> InputError:
    """The error for an app that the cluster does not have. `topics`: all that it has. `advice`: ends the hint."""
    return InputError(
        f"this Kafka has no app {name}{did_you_mean(name, known_apps(topics))}",
        hint="use the name in App(...), or MODULE:APP; an app exists in Kafka after its first worker has started"
        f"{advice}",
    )


def topic_hint(names: Sequence[str], *, named: bool) -> str:
    """What to do about missing topics. `named`: the message suggests another name, which is the likely mistake."""
    first = "correct the name. If it is correct, " if named else ""
    files = ", ".join(f"topics/{name}.yaml" for name in names)
    return f"{first}declare {'it' if len(names) == 1 else 'them'} in {files} and run: pipeline topics apply"


def counted(count: int, what: str) -> str:
    """The count with its noun: `1 record`, `1,000 records`, `2 entries`."""
    return f"{count:,} {noun(count, what)}"


def are(count: int) -> str:
    """The verb for so many: `is` for 1, else `are`."""
    return "is" if count == 1 else "are"


def noun(count: int, what: str) -> str:
    """The noun for so many: `record` for 1, else `records`; `entry`, `entries`."""
    if count == 1:
        return what
    return f"{what[:-1]}ies" if what.endswith("y") and what[-2] not in "aeiou" else f"{what}s"


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem, and what to do about it.

    `tasks`: the tasks that have it, if it is a problem of tasks. `cause`: then the text without their names.
    """

    text: str
    hint: str
    tasks: Sequence[TaskId] = ()
    cause: str = ""
