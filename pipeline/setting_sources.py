"""The content of settings files and variables, before it becomes settings: sections, values and names.

A file has types, and a value whose type is not the setting's is refused: a quoted number is a string. A variable is
always a string, and is parsed.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pipeline.errors import ConfigError

__all__ = [
    "OTHER_VARIABLES",
    "PREFIX",
    "Kind",
    "parsed",
    "properties_in",
    "read_toml",
    "refuse_unknown_variables",
    "section_of",
    "typed",
]

PREFIX = "PIPELINE_"

# Variables of this prefix that are no settings of a process: who reads them.
OTHER_VARIABLES: Mapping[str, str] = {
    "PIPELINE_APP": "pipeline table show",
    "PIPELINE_CACHE_DIR": "pipeline broker",
    "PIPELINE_IMAGE": "docker-compose.yml",
}

# Kubernetes sets these in every pod of a namespace that has a service named `pipeline` or `pipeline-...`.
_SERVICE_LINK = re.compile(
    r"\w+_SERVICE_(HOST|PORT(_\w+)?)|\w+_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?"
)


Kind = type[int] | type[float] | type[str] | type[Path]


def read_toml(path: Path, *, required: bool) -> dict[str, object]:
    """The document; an empty one where there is no file and none is required. Raises ConfigError."""
    if not required and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def section_of(document: Mapping[str, object], name: str, path: Path) -> Mapping[str, object]:
    """A section of the document, empty where it is left out. Raises ConfigError."""
    section = document.get(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: {name} must be a section, [{name}]")
    return section


def properties_in(section: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names with dots are sections to TOML unless they are quoted; to us they are names."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from properties_in(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value).lower() if isinstance(value, bool) else str(value)


def typed(kind: Kind, name: str, value: object) -> object:
    """The value of a setting from a file or a caller, as `kind`. Raises ConfigError when it has another type."""
    if issubclass(kind, Path):
        if isinstance(value, str | Path):
            return Path(value).expanduser()
    elif kind is str:
        if isinstance(value, str):
            return value
    elif not isinstance(value, bool) and isinstance(value, int if kind is int else int | float):
        return kind(value)
    raise _refused(kind, name, value)


def parsed(kind: Kind, name: str, text: str) -> object:
    """The value of a setting from a variable, as `kind`. Raises ConfigError when the text is not one."""
    if issubclass(kind, Path):
        return Path(text).expanduser()
    try:
        return kind(text)
    except ValueError as error:
        raise _refused(kind, name, text) from error


def refuse_unknown_variables(environ: Mapping[str, str], known: Iterable[str]) -> None:
    """Raise ConfigError when the environment has a variable of this prefix that nothing reads.

    A misspelt variable would otherwise leave the default in force without a word.
    """
    names = {*known, *OTHER_VARIABLES}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in names or _SERVICE_LINK.fullmatch(variable):
            continue
        close = difflib.get_close_matches(variable, names, n=1)
        raise ConfigError(
            f"there is no setting {variable}" + (f"; did you mean {close[0]}?" if close else ""),
            hint=f"unset {variable}, or rename it: names that begin with {PREFIX} are settings",
        )


def _refused(kind: Kind, name: str, value: object) -> ConfigError:
    if issubclass(kind, str | Path):
        return ConfigError(f"{name} is {value!r}; it must be a text")
    if isinstance(value, str) and _is_number(value) and (kind is float or value.isdigit()):
        wanted = "a number, without quotes"
    else:
        wanted = "a whole number" if kind is int and _is_number(value) else "a number"
    return ConfigError(f"{name} is {value!r}; it must be {wanted}")


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    try:
        float(str(value))
    except ValueError:
        return False
    return True
