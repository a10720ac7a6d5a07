"""The files of a load, in their order: what was named on the command line, folders read, mistakes told."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.ops.loading.formats.opening import STANDARD_INPUT, file_format, logical_name, unreadable

__all__ = ["InputFile", "find_files", "one_format"]


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file: where it is, the name that a list knows it by, its bytes on the disk (None: not known)."""

    path: str
    name: str
    size: int | None

    @property
    def shown(self) -> str:
        """What messages call it."""
        return "standard input" if self.path == STANDARD_INPUT else self.path


def find_files(named: Sequence[str]) -> list[InputFile]:
    """The files that are named, those of a folder by their paths. Raises InputError.

    Of a folder, all files in it and below count, except those whose names begin with . or _ (as _SUCCESS does).
    """
    paths = [path for name in named for path in _below(name)]
    if len(paths) > 1 and STANDARD_INPUT in paths:
        raise InputError(
            "standard input cannot be combined with files", hint="load it under a name of its own"
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
            raise InputError(f"{path} is no file, but a pipe or a device: it can only be loaded alone")
        inode = facts.st_dev, facts.st_ino
        if inode in seen:
            what = "is named twice" if seen[inode] == path else f"is the same file as {seen[inode]}"
            raise InputError(f"{path} {what}: its rows would be loaded twice")
        seen[inode] = path
        found.append(InputFile(path, logical_name(path), facts.st_size if regular else None))
    return found


def one_format(files: Sequence[InputFile], given: str | None) -> str | None:
    """The format of all files, `given` or by their names; None when these do not say. Raises InputError."""
    if given is not None:
        return given
    first = None
    for file in files:
        form = file_format(file.path)
        if form is None:
            return None if len(files) == 1 else _unknown(file)
        if first is not None and first[1] != form:
            raise InputError(
                f"{first[0].path} is {first[1]} and {file.path} is {form}: a load has one format",
                hint="load them under two names, or say with --format what they all are",
            )
        first = first or (file, form)
    return first[1] if first is not None else None


def _unknown(file: InputFile) -> str:
    raise InputError(
        f"the name of {file.path} does not say its format",
        hint="leave it out, or say with --format what all files are",
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
        raise InputError(f"the folder {name} holds no file to load")
    return map(str, paths)


def _facts(path: str) -> os.stat_result:
    try:
        path.encode()
        facts = Path(path).stat()
        if not os.access(path, os.R_OK):
            raise PermissionError(13, "Permission denied")
    except UnicodeEncodeError as error:
        raise InputError(f"the name of {path!r} is not UTF-8: it could not be remembered") from error
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return facts
