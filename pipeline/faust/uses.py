"""The places where an application uses features: `Use`, `Place`, and the modules in which they are looked for."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from pipeline.faust.features import FEATURES, Feature

__all__ = [
    "Module",
    "Place",
    "Use",
    "area_of",
    "code_of",
    "feature_of",
    "modules_of",
    "place_of",
    "place_of_code",
]

_BY_KEY = {key: (area, feature) for area, features in FEATURES.items() for key, feature in features.items()}
_PACKAGE = Path(__file__).parents[1]  # this one, which a checkout does not install
_INSTALLED = tuple(
    Path(path).resolve() for path in {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
)


def feature_of(key: str) -> Feature:
    """The feature with this key."""
    return _BY_KEY[key][1]


def area_of(key: str) -> str:
    """The area that a feature belongs to."""
    return _BY_KEY[key][0]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of a source file."""

    file: str
    line: int

    def __str__(self) -> str:
        path = Path(self.file)
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"{shown}:{self.line}"


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a feature. `what`: the object or the expression. `place`: None if it is not known."""

    feature: Feature
    what: str
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the application with its syntax tree."""

    module: ModuleType
    file: str
    tree: ast.Module

    @property
    def names(self) -> dict[str, Any]:
        """The module's namespace."""
        return vars(self.module)


def modules_of(app: Any) -> list[Module]:
    """The imported modules that belong to an application: those with a Faust object, outside of installed packages."""
    found = []
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(module, ModuleType) or not file or not file.endswith(".py") or _is_installed(file):
            continue
        if any(value is app or _is_faust(value) for value in list(vars(module).values())):
            try:
                source = Path(file).read_text(encoding="utf-8")
                found.append(Module(module, file, ast.parse(source, file)))
            except (OSError, ValueError, SyntaxError):
                continue  # its objects are inspected all the same
    return sorted(found, key=lambda each: each.file)


def _is_installed(file: str) -> bool:
    path = Path(file).resolve()
    return path.is_relative_to(_PACKAGE) or any(path.is_relative_to(root) for root in _INSTALLED)


def _is_faust(value: object) -> bool:
    """Whether a value of a namespace is Faust itself, one of its objects, or a subclass of one of its classes."""
    if isinstance(value, ModuleType):
        return value.__name__.partition(".")[0] == "faust"
    kind = value if isinstance(value, type) else type(value)
    return any(base.__module__.partition(".")[0] == "faust" for base in kind.__mro__)


def code_of(function: Any) -> CodeType | None:
    """The code of the function that a user wrote, below decorators that keep it in `__wrapped__`."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def place_of_code(function: Any) -> Place | None:
    """Where a function begins, with its decorators."""
    code = code_of(function)
    return Place(code.co_filename, code.co_firstlineno) if code is not None else None


def place_of(wanted: Any, modules: list[Module]) -> Place | None:
    """Where a module assigns an object to a name. A window is the table that it wraps."""
    for module in modules:
        for name, line in _assigned(module.tree):
            value = module.names.get(name)
            if value is wanted or (value is not None and getattr(value, "table", None) is wanted):
                return Place(module.file, line)
    return None


def _assigned(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name):
                yield target.id, node.lineno  # type: ignore[attr-defined]
