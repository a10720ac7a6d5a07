"""What an error in user code belongs to: its record, its task or the process.

| raised                                                | belongs to                                        |
|-------------------------------------------------------|---------------------------------------------------|
| `ENDING`: Ctrl-C, or a bug in this package             | the process, which ends                           |
| `LEAVING`: SystemExit, a cancellation, GeneratorExit   | the task, which stops under every policy          |
| any other, also one that is not an `Exception`         | the record (or the batch): its policy is applied  |

Libraries raise their own subclasses of BaseException, for example for a panic in Rust.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from functools import wraps
from typing import Any

from pipeline.errors import InvariantError

__all__ = ["ENDING", "LEAVING", "UncommonError", "only_exceptions"]

ENDING = (KeyboardInterrupt, InvariantError)
LEAVING = (SystemExit, CancelledError, GeneratorExit)


class UncommonError(Exception):
    """Stands for an error that is not an Exception; its text names the class."""


def only_exceptions(function: Callable[..., None]) -> Callable[..., None]:
    """The function, with uncommon errors turned into Exceptions: for code that runs on an executor's thread."""

    @wraps(function)
    def call(*arguments: Any) -> None:
        try:
            function(*arguments)
        except (Exception, *ENDING, *LEAVING):
            raise
        except BaseException as error:
            raise UncommonError(f"{type(error).__name__}: {error}") from error

    return call
