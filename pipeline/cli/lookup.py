"""Finds the user's App from MODULE:APP."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from pipeline.app import App
from pipeline.errors import ConfigError, PipelineError

__all__ = ["find_app"]

_PACKAGE = Path(__file__).parents[1]


def find_app(target: str) -> App:
    """The App that `target` names, as MODULE:NAME.

    The working directory is appended to the path, not put before it, so that a file of the user's called
    pipeline.py cannot shadow this package. Raises ConfigError.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{target!r} does not name an app", hint="write MODULE:APP, as in flights.app:app")
    module = _imported(module_name)
    value: object = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ConfigError(f"module {module_name} has no {attribute}", hint=_apps_of(module, attribute))
        value = getattr(value, part)
    if not isinstance(value, App):
        what = f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
        raise ConfigError(f"{target} is {what}, not an App", hint=_apps_of(module, attribute))
    return value


def _imported(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"there is no module {name} in {here} or on the Python path",
                hint="run the command where the module's file or package is",
            ) from error
        raise ConfigError(f"{name} needs the module {error.name}, which is not installed") from error
    except PipelineError:
        raise
    except SyntaxError as error:
        raise ConfigError(f"{_relative(error.filename or name)}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        raise ConfigError(f"{name} cannot be imported:\n{_as_the_user_sees_it(error)}") from error


def _as_the_user_sees_it(error: Exception) -> str:
    """The traceback without the frames of this package and of the import machinery."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen importlib", importlib.__path__[0]))
        and not Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    for frame in frames:
        frame.filename = _relative(frame.filename)
    lines = [*traceback.format_list(frames), *traceback.format_exception_only(error)]
    return "".join(lines).rstrip()


def _relative(file: str) -> str:
    """The file as seen from the working directory, where it lies below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def _apps_of(module: ModuleType, meant: str) -> str:
    found = [name for name, item in vars(module).items() if isinstance(item, App)]
    if not found:
        return f"{module.__name__} defines no App"
    close = difflib.get_close_matches(meant, found, n=1, cutoff=0)
    return f"try {module.__name__}:{close[0] if close else found[0]}"
