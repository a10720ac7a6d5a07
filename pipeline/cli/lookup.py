"""Finds the user's App from MODULE:APP."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from pipeline.app import App
from pipeline.errors import ConfigError

__all__ = ["find_app"]


def find_app(target: str) -> App:
    """The App that `target` names, as MODULE:NAME.

    The working directory is appended to the path, not put before it, so that a file of the user's called
    pipeline.py cannot shadow this package. Raises ConfigError.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{target!r} does not name an app", hint="write MODULE:APP, as in flights.app:app")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(
                f"there is no module {module_name} in {here} or on the Python path",
                hint="run the command where the module's file or package is",
            ) from error
        raise ConfigError(f"{module_name} needs the module {error.name}, which is not installed") from error
    value: object = module
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if not isinstance(value, App):
        found = [name for name, item in vars(module).items() if isinstance(item, App)]
        raise ConfigError(
            f"{target}: {attribute} is {'not there' if value is None else 'no App'}",
            hint=f"try {module_name}:{found[0]}" if found else f"{module_name} defines no App",
        )
    return value
