"""Creates the directory of a new project: an app, its topics, a test, sample data and settings that work unchanged.

The files are in `project_template/`, next to this module and in the wheel. Their names end in `.txt`, so that no tool
treats them as code of this package. `@NAME@` in a file or its name is replaced by the name of the project.

The files are written to a temporary directory, which is then renamed. So a failure leaves no incomplete project.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from pipeline.errors import InputError

__all__ = ["check_project_name", "create_project"]

_TEMPLATE = "project_template"
_SUFFIX = ".txt"
_PLACEHOLDER = "@NAME@"
_MOST_CHARACTERS = 40
_NAME = re.compile(rf"[a-z][a-z0-9-]{{0,{_MOST_CHARACTERS - 1}}}")
_RESERVED = frozenset({"pipeline"})  # `App` refuses this name


def create_project(name: str, parent: Path) -> tuple[str, ...]:
    """Create `parent/name` with the files of a project.

    Args:
        name: The name of the directory and of the app; the topics are `name-orders` and `name-totals`.
        parent: The directory in which it is created.

    Returns:
        The files, relative to the new directory, sorted.

    Raises:
        InputError: The name is not valid, or the directory exists and is not empty, or cannot be written.
    """
    check_project_name(name)
    target = parent / name
    _check_target(target)
    files = _files_of(name)
    unfinished = parent / f".{name}.{os.getpid()}.new"
    try:
        for path, text in files.items():
            file = unfinished / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        unfinished.rename(target)  # replaces an empty directory only
    except OSError as error:
        raise InputError(
            f"cannot create {target}: {error.strerror}",
            hint="run the command in a directory that you can write",
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return tuple(sorted(files))


def check_project_name(name: str) -> None:
    """Raise InputError, with a name that is valid, unless `name` can be the name of an app, a directory and topics."""
    if name in _RESERVED:
        raise InputError(
            f"{name!r} is reserved for this package", hint=f"for example: pipeline new my-{name}"
        )
    if _NAME.fullmatch(name):
        return
    raise InputError(
        f"{name!r} cannot be the name of a project: a name has lower-case letters, digits and hyphens, begins with a "
        f"letter, and has at most {_MOST_CHARACTERS} characters",
        hint=f"for example: pipeline new {_valid_name_like(name)}",
    )


def _valid_name_like(name: str) -> str:
    """A valid name that is similar to `name`; `my-app` if no part of it can be used."""
    found = re.sub(r"[^a-z0-9]+", "-", Path(name).name.lower()).lstrip("0123456789-")
    found = found[:_MOST_CHARACTERS].rstrip("-")
    return found if found and found not in _RESERVED else "my-app"


def _check_target(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError(f"{target} exists and is not a directory", hint="choose another name, or remove it")
    try:
        empty = not target.exists() or next(target.iterdir(), None) is None
    except OSError as error:
        raise InputError(
            f"cannot read the directory {target}: {error.strerror}", hint="choose another name"
        ) from error
    if not empty:
        raise InputError(f"the directory {target} exists and is not empty", hint="choose another name")


def _files_of(name: str) -> Mapping[str, str]:
    """The text of each file of a project, by its path in the project."""
    root = resources.files("pipeline.ops").joinpath(_TEMPLATE)
    return {
        path.removesuffix(_SUFFIX).replace(_PLACEHOLDER, name): file.read_text(encoding="utf-8").replace(
            _PLACEHOLDER, name
        )
        for path, file in _walk(root, "")
    }


def _walk(directory: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in directory.iterdir():
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        elif path.endswith(_SUFFIX):
            yield path, entry
