"""Errors of a command line, such as an unknown option, in the words and the layout of all other errors.

Typer would print a usage line and its own words. Here each of its errors gets a message that names the command, and a
hint. Unknown names get the name that was probably meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pipeline.cli.help import EXAMPLES, parameter_name
from pipeline.core.suggestions import closest

__all__ = ["describe"]

# Parts of Typer's messages, and what replaces them.
_WORDING = [
    (re.compile(pattern), text)
    for pattern, text in (
        (r"^Value error, ", ""),
        (r"^Input should be a valid integer.*", "is not a whole number"),
        (r"^Input should be a valid number.*", "is not a number"),
        (r"^Input should be ", "must be "),
        (r"greater than or equal to", "at least"),
        (r"less than or equal to", "at most"),
        (r"^Option '(.+)' requires an argument", r"\1 requires a value"),
        (r"^Option '(.+)' does not take a value", r"\1 does not take a value"),
        (r"^Got unexpected extra arguments?(?:\(s\))? \((.+)\)", r"there are too many arguments: \1"),
    )
]


def describe(error: Any) -> tuple[str, str | None]:
    """The message and the hint for an error of Typer's parser, or for a `typer.BadParameter` of ours.

    Args:
        error: A `UsageError`. Its classes are private, so they are told apart by their names.
    """
    command = error.ctx.command_path if error.ctx is not None else "pipeline"
    hint = f"see {command} --help"
    match type(error).__name__:
        case "NoSuchOption":
            name = error.option_name
            return f"{command} has no option {name}{_option_meant(name, error.ctx)}", hint
        case "MissingParameter":
            example = EXAMPLES.get(command.partition(" ")[2])
            missing = parameter_name(error.param, error.ctx)
            return f"{command} requires {missing}", f"for example: {example}" if example else hint
        case "BadParameter":
            given, reason = _given(error), _reason(error)
            separator = " " if reason.startswith(("must ", "is not ")) else ": "
            return f"{given}{separator}{reason}" if given else reason, hint
    return _reason(error), hint


def _option_meant(name: str, context: Any) -> str:
    """The end of the message. The dashes are not compared: all options have them, so short names would be alike."""
    options = {option.lstrip("-"): option for option in _options(context)}
    found = closest(name.lstrip("-"), options)
    return f"; did you mean {options[found]!r}?" if found is not None else ""


def _options(context: Any) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        if parameter.param_type_name == "option" and not parameter.hidden:
            yield from (*parameter.opts, *parameter.secondary_opts)


def _given(error: Any) -> str | None:
    """The option or the argument whose value is wrong."""
    if error.param_hint is not None:
        return str(error.param_hint)
    if error.param is None:
        return None
    if error.param.param_type_name == "argument":
        return parameter_name(error.param, error.ctx)
    return str(error.param.opts[-1])


def _reason(error: Any) -> str:
    """Typer's message in our words."""
    text: str = error.message.rstrip(".")
    for pattern, replacement in _WORDING:
        text = pattern.sub(replacement, text)
    return text
