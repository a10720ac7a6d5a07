"""What is said about an error of a handler: in words that are short, in the user's terms, and never fail."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from traceback import StackSummary, TracebackException
from typing import Any

from pipeline.api.bindings import Binding
from pipeline.api.declarations import Topic
from pipeline.errors import PipelineError
from pipeline.ports import Record
from pipeline.runtime.user_errors import ENDING

__all__ = ["error_place", "error_text", "error_traceback", "handler_name", "plainly"]

_PACKAGE = f"{Path(__file__).parents[2]}{os.sep}"
_MOST_CAUSES = 20


def handler_name(binding: Binding) -> str:
    """The handler's function as Python names it."""
    return str(getattr(binding.function, "__qualname__", binding.function))


def plainly(error: BaseException, topic: Topic[Any, Any], record: Record) -> BaseException:
    """The error, or of a null value that cannot be decoded one that says so: a decoder misses its bytes-like object."""
    if record.value() is not None or topic.value.allows_none or not isinstance(error, TypeError):
        return error
    try:
        topic.value.read(record)
    except TypeError:
        text = f"the record has no value; topic {topic.name} declares one without `| None`, which takes tombstones"
        return TypeError(text).with_traceback(error.__traceback__)
    except ENDING:
        raise
    except BaseException:  # noqa: BLE001 - a user's codec may raise anything
        return error
    return error


def error_text(error: BaseException) -> str:
    """`ValueError: what it says`, also for an error that cannot say anything."""
    if isinstance(error, PipelineError):
        return f"{type(error).__name__}: {error.message}"
    try:
        return f"{type(error).__name__}: {error}"
    except ENDING:
        raise
    except BaseException:  # noqa: BLE001 - it is the user's own class
        return f"{type(error).__name__}: (it has no text: its __str__ raises)"


def error_place(error: BaseException) -> str:
    """The handler's own line, the innermost one of what it called, and the error; our lines only without those."""
    theirs = _theirs(traceback.extract_tb(error.__traceback__))
    shown = theirs[:1] + theirs[1:][-1:]
    # An error of ours was told before this with its message, and its hint comes behind it.
    last = [] if isinstance(error, PipelineError) else traceback.format_exception_only(error)
    return "".join(traceback.format_list(shown) + last).strip()


def error_traceback(error: BaseException) -> str:
    """The whole traceback, with causes, of the user's frames; of ours only where there are no others."""
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
