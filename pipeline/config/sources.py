"""The content of settings files and variables, before it becomes settings: sections, values and names.

`msgspec` checks each value against the type of its setting, constraints included. A file has types: a value of another
type is refused, and a quoted number is a string. A variable is always a string, and is parsed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from pipeline.core.suggestions import did_you_mean
from pipeline.errors import ConfigError, InvariantError

__all__ = [
    "OTHER_VARIABLES",
    "PREFIX",
    "REPLACED",
    "check_fields",
    "checked",
    "is_service_link",
    "kinds_of",
    "names_a_service",
    "parsed",
    "properties_in",
    "read_toml",
    "refuse_unknown_variables",
    "section_of",
]

PREFIX = "PIPELINE_"

# Variables with this prefix that are not settings of a process, and what reads them.
OTHER_VARIABLES: Mapping[str, str] = {
    "PIPELINE_APP": "pipeline table show",
    "PIPELINE_CACHE_DIR": "pipeline broker",
    "PIPELINE_IMAGE": "docker-compose.yml",
}

# Settings of earlier releases, and what to set instead.
REPLACED: Mapping[str, str] = {
    "cache_entries": "set cache_bytes: it limits the memory of all tables of the process together, in bytes. About 400 "
    "bytes hold a value with a few fields",
}

# Kubernetes sets these in every pod of a namespace that has a service named `pipeline` or `pipeline-...`.
_SERVICE_LINK = re.compile(
    r"\w+_SERVICE_(HOST|PORT(_\w+)?)|\w+_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?"
)


def is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes has set the variable.

    A service `pipeline-http` gives every pod of its namespace the variable `PIPELINE_HTTP_PORT` with a value such as
    `tcp://10.0.0.1:80`, which is not the setting of that name.
    """
    return bool(_SERVICE_LINK.fullmatch(variable)) and value.partition("://")[0] in {"tcp", "udp", "sctp"}


def names_a_service(variable: str) -> bool:
    """Whether Kubernetes sets a variable of this name, for a service whose name begins with `pipeline`."""
    return _SERVICE_LINK.fullmatch(variable) is not None


def read_toml(path: Path, *, required: bool) -> dict[str, object]:
    """The document of the file. Empty if the file does not exist and is not required. Raises ConfigError."""
    if not required and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the settings file {path}: {error.strerror}",
            hint="give the path of a file that this user can read",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not valid TOML: {error}",
            hint=f'correct {path}: sections as in [worker], settings as in worker_id = "orders-1"',
        ) from error


def section_of(document: Mapping[str, object], name: str, path: Path) -> Mapping[str, object]:
    """A section of the document. Empty if the document does not have it. Raises ConfigError."""
    section = document.get(name, {})
    if not isinstance(section, dict):
        raise ConfigError(
            f"{path}: {name} must be a section, [{name}]",
            hint=f"write the line [{name}], and its settings below it",
        )
    return section


def properties_in(section: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The properties of a section. TOML reads a name with dots as nested sections; their names are joined again."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from properties_in(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value).lower() if isinstance(value, bool) else str(value)


def kinds_of(owner: type) -> Mapping[str, object]:
    """The type of each setting of a class, with its constraints, by its name."""
    return get_type_hints(owner, include_extras=True)


def check_fields(settings: object, section: str) -> None:
    """Check each field against its type and its constraints, whether a file or a program gave it."""
    for name, kind in kinds_of(type(settings)).items():
        checked(kind, f"{section}.{name}", getattr(settings, name))


def checked(kind: object, name: str, value: object) -> Any:
    """The value of a setting, converted to its type.

    Args:
        kind: The setting's type, with its constraints. `msgspec.Meta(description=...)` says what is accepted.
        name: The setting's whole name, as in `worker.weight`.
        value: What a file, a flag or a program gave.

    Raises:
        ConfigError: The value has another type, or is outside the constraints.
    """
    return _converted(kind, name, value, strict=True)


def parsed(kind: object, name: str, text: str) -> Any:
    """The value of a setting from a variable, which is always a text: names are separated by commas. Otherwise as
    `checked`.
    """
    if get_origin(_bare(kind)) is tuple:
        return _converted(
            kind, name, [part.strip() for part in text.split(",") if part.strip()], strict=False
        )
    is_text = kind in {str, Path}
    return _converted(kind, name, text if is_text else text.strip(), strict=False)


def _bare(kind: object) -> object:
    """A type without its constraints."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def refuse_unknown_variables(environ: Mapping[str, str], known: Iterable[str]) -> None:
    """Raise ConfigError when the environment has a variable of this prefix that nothing reads.

    Otherwise a misspelled variable would be ignored, and the default would apply.
    """
    names = {*known, *OTHER_VARIABLES}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in names or names_a_service(variable):
            continue
        replaced = REPLACED.get(variable.removeprefix(PREFIX).lower())
        if replaced is not None:
            raise ConfigError(f"the setting {variable} was replaced", hint=f"unset it. If needed, {replaced}")
        raise ConfigError(
            f"there is no setting {variable!r}{did_you_mean(variable, names)}",
            hint=f"unset {variable}, or rename it: names that begin with {PREFIX} are settings",
        )


def _converted(kind: object, name: str, value: object, *, strict: bool) -> Any:
    try:
        return msgspec.convert(value, kind, strict=strict, dec_hook=_path)
    except msgspec.ValidationError:
        unquoted = ", without quotes" if strict and _is_quoted_number(kind, value) else ""
        raise ConfigError(f"{name} is {value!r}; it must be {_accepted(kind)}{unquoted}") from None


def _path(kind: type, value: object) -> Path:
    """Convert a path, a type that msgspec does not know. No shell has expanded the `~` of a settings file."""
    if kind is Path and isinstance(value, str | Path):
        return Path(value).expanduser()
    raise TypeError


def _is_quoted_number(kind: object, value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        msgspec.convert(value, kind, strict=False, dec_hook=_path)
    except msgspec.ValidationError:
        return False
    return True


def _accepted(kind: object) -> str:
    """What a setting of this type accepts, in words."""
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    for part in (kind, *get_args(kind)):  # the constraints of `float | None` are those of its first part
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, msgspec.Meta) and meta.description:
                return meta.description
    if kind in {str, Path}:
        return "a text"
    raise InvariantError(f"a setting of type {kind} does not say what it accepts")
