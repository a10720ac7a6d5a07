"""Finds the files of a load, in order: the arguments of the command, with folders replaced by their files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pipeline.errors import InputError
from pipeline.ops.loading.formats.compression import STANDARD_INPUT, logical_name, unreadable
from pipeline.ops.loading.formats.readers import file_format
from pipeline.ops.loading.positions import Format

__all__ = ["InputFile", "find_files", "one_format"]


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file. `name`: its name in the position of the load. `size`: bytes on disk; None if unknown."""

    path: str
    name: str
    size: int | None

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return "standard input" if self.path == STANDARD_INPUT else self.path


def find_files(named: Sequence[str]) -> list[InputFile]:
    """The files of a load. Raises InputError.

    A folder stands for all files in it and below, sorted by path, except those whose names begin with `.` or `_`, as
    in `_SUCCESS`.
    """
    paths = [path for name in named for path in _below(name)]
    if len(paths) > 1 and STANDARD_INPUT in paths:
        raise InputError(
            "standard input cannot be combined with files", hint="load it separately, under another --name"
        )
    seen: dict[tuple[int, int], str] = {}
    found = []
    for path in paths:
        if path == STANDARD_INPUT:
            found.append(InputFile(path, path, None))
            continue
        facts = _facts(path)
        regular = stat.S_ISREG(facts.st_mode)
        if not regular and len(paths) > 1:
            raise InputError(
                f"{path} is a pipe or a device, which cannot be combined with other files",
                hint="load it separately, under another --name",
            )
        inode = facts.st_dev, facts.st_ino
        if inode in seen:
            what = "is given twice" if seen[inode] == path else f"is the same file as {seen[inode]}"
            raise InputError(f"{path} {what}: its rows would be loaded twice", hint="give each file once")
        seen[inode] = path
        found.append(InputFile(path, logical_name(path), facts.st_size if regular else None))
    return found


def one_format(files: Sequence[InputFile], given: Format | None) -> Format | None:
    """The format of all files: `given`, or from their names; None if the only file's name does not show it.

    Raises InputError.
    """
    if given is not None:
        return given
    first = None
    for file in files:
        form = file_format(file.path)
        if form is None:
            return None if len(files) == 1 else _unknown(file)
        if first is not None and first[1] != form:
            raise InputError(
                f"{first[0].path} is {first[1]} and {file.path} is {form}: all files of a load must have one format",
                hint="load them under two names, or give the format of all files with --format",
            )
        first = first or (file, form)
    return first[1] if first is not None else None


def _unknown(file: InputFile) -> NoReturn:
    raise InputError(
        f"the name of {file.path} does not show its format",
        hint="leave the file out, or give the format of all files with --format",
    )


def _below(name: str) -> Iterable[str]:
    folder = Path(name)
    if name == STANDARD_INPUT or not folder.is_dir():
        return [name]
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part[0] in "._" for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise InputError(
            f"the folder {name} has no file to load",
            hint="files whose names begin with . or _ are ignored; check the path",
        )
    return map(str, paths)


def _facts(path: str) -> os.stat_result:
    try:
        path.encode()
        facts = Path(path).stat()
        if not os.access(path, os.R_OK):
            raise PermissionError(13, "Permission denied")
    except UnicodeEncodeError as error:
        raise InputError(
            f"the name of {path!r} is not UTF-8, and cannot be stored in the position of the load",
            hint="rename the file",
        ) from error
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return facts
