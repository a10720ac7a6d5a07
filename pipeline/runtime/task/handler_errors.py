"""Errors of user code: what each belongs to, and a short description of it that cannot fail.

| raised                                                | belongs to                                        |
|-------------------------------------------------------|---------------------------------------------------|
| `ENDING`: Ctrl-C, or a bug in this package             | the process, which ends                           |
| `LEAVING`: SystemExit, a cancellation, GeneratorExit   | the task, which stops under every policy          |
| any other, also one that is not an `Exception`         | the record (or the batch): its policy is applied  |

Libraries raise their own subclasses of BaseException, for example for a panic in Rust.
"""

from __future__ import annotations

import os
import traceback
from asyncio import CancelledError
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from traceback import StackSummary, TracebackException
from typing import Any

from pipeline.api.bindings import Binding
from pipeline.api.declarations import DeclaredTopic
from pipeline.errors import InvariantError, PipelineError
from pipeline.ports import Record

__all__ = [
    "ENDING",
    "LEAVING",
    "UncommonError",
    "error_place",
    "error_text",
    "error_traceback",
    "function_place",
    "handler_name",
    "only_exceptions",
    "plainly",
    "user_error_fields",
]

_PACKAGE = f"{Path(__file__).parents[2]}{os.sep}"
_MOST_CAUSES = 20
ENDING = (KeyboardInterrupt, InvariantError)
LEAVING = (SystemExit, CancelledError, GeneratorExit)


class UncommonError(Exception):
    """Represents an error that is not an Exception. Its text names the class."""


def only_exceptions(function: Callable[..., None]) -> Callable[..., None]:
    """Wrap the function so that uncommon errors become Exceptions, for code on an executor's thread."""

    @wraps(function)
    def call(*arguments: Any) -> None:
        try:
            function(*arguments)
        except (Exception, *ENDING, *LEAVING):
            raise
        except BaseException as error:
            raise UncommonError(f"{type(error).__name__}: {error}") from error

    return call


def handler_name(binding: Binding) -> str:
    """The qualified name of the handler's function."""
    return str(getattr(binding.function, "__qualname__", binding.function))


def plainly(error: BaseException, topic: DeclaredTopic[Any, Any], record: Record) -> BaseException:
    """Return `error`, or a clearer TypeError for an undecodable null value."""
    if record.value() is not None or topic.value.allows_none or not isinstance(error, TypeError):
        return error
    try:
        topic.value.read(record)
    except TypeError:
        text = f"the record has no value, and the value type of topic {topic.name} does not include None"
        return TypeError(text).with_traceback(error.__traceback__)
    except ENDING:
        raise
    except BaseException:  # noqa: BLE001 - a user's codec may raise anything
        return error
    return error


def error_text(error: BaseException) -> str:
    """The text `ValueError: message`, also for an error whose `__str__` raises."""
    return f"{type(error).__name__}: {_message(error)}"


def user_error_fields(error: BaseException) -> dict[str, Any]:
    """The fields of a log event that describe an error of user code: `error` (its class) and `message`."""
    return {"error": type(error).__name__, "message": _message(error)}


def _message(error: BaseException) -> str:
    if isinstance(error, PipelineError):
        return error.message
    try:
        return str(error)
    except ENDING:
        raise
    except BaseException:  # noqa: BLE001 - it is the user's own class
        return "(it has no text: its __str__ raises)"


def error_place(error: BaseException) -> str:
    """The handler's own line, the innermost line that it called, and the error.

    Lines of this package are last resort.
    """
    theirs = _theirs(traceback.extract_tb(error.__traceback__))
    shown = theirs[:1] + theirs[1:][-1:]
    # The message of a PipelineError is already in the text, and its hint follows.
    last = [] if isinstance(error, PipelineError) else traceback.format_exception_only(error)
    return "".join(traceback.format_list(shown) + last).strip()


def function_place(function: Callable[..., Any]) -> str:
    """The line where a function begins, as in a traceback; empty if it has none."""
    code = getattr(function, "__code__", None)
    return (
        f'File "{code.co_filename}", line {code.co_firstlineno}, in {code.co_name}'
        if code is not None
        else ""
    )


def error_traceback(error: BaseException) -> str:
    """The whole traceback with causes: the user's frames, or those of this package if there are no others."""
    whole = TracebackException.from_exception(error)
    one: TracebackException | None = whole
    for _ in range(_MOST_CAUSES):
        if one is None:
            break
        one.stack = StackSummary.from_list(_theirs(one.stack))
        one = one.__cause__ or one.__context__
    return "".join(whole.format()).rstrip()


def _theirs(frames: StackSummary) -> list[traceback.FrameSummary]:
    return [frame for frame in frames if not frame.filename.startswith(_PACKAGE)] or frames[-1:]
