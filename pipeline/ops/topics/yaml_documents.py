"""Parses and writes the YAML documents of topic declarations. The only module that imports ruamel.yaml.

- `parse` gives the nodes of a document with their lines. Scalars have the types that the core schema of YAML 1.2
  gives them, as in editors: `no` and `12:30` are texts.
- `load` gives a document that `dump` writes again with its comments, its order and its quotes. All its scalars are
  texts (the failsafe schema of YAML), so no scalar changes its spelling.

Pure.
"""

from __future__ import annotations

import re
from enum import StrEnum
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

__all__ = [
    "NUMBERS_AND_FLAGS",
    "CommentedMap",
    "MappingNode",
    "Node",
    "NotYamlError",
    "ScalarKind",
    "ScalarNode",
    "dump",
    "kind_of",
    "kind_of_text",
    "load",
    "parse",
    "quoted",
    "whole_number",
]

_DEPTH = 20  # a declaration has 2 levels
_WIDTH = 1_000_000  # no line is folded
_LONGEST_NUMBER = 18


class NotYamlError(Exception):
    """A text is not a YAML document. `line` counts from 1."""

    def __init__(self, problem: str, line: int = 1) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


class ScalarKind(StrEnum):
    """The type of a node by the core schema. OTHER: a mapping, a sequence, or a custom type."""

    NULL = "tag:yaml.org,2002:null"
    FLAG = "tag:yaml.org,2002:bool"
    INTEGER = "tag:yaml.org,2002:int"
    FLOAT = "tag:yaml.org,2002:float"
    TEXT = "tag:yaml.org,2002:str"
    OTHER = ""


NUMBERS_AND_FLAGS = frozenset({ScalarKind.INTEGER, ScalarKind.FLOAT, ScalarKind.FLAG})

# Section 10.3.2 of YAML 1.2.2. The own rules of ruamel.yaml also match dates, 1_000 and 0b1, which are texts.
_CORE = (
    (ScalarKind.NULL, r"~|null|Null|NULL|", "~nN"),
    (ScalarKind.FLAG, r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (ScalarKind.INTEGER, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (ScalarKind.FLOAT, r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    (ScalarKind.FLOAT, r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
)


class _CoreResolver(VersionedResolver):
    """The core schema, whichever version of YAML the document says it has."""

    versioned_resolver = {  # noqa: RUF012 - what ruamel.yaml computes there
        first: [(kind.value, re.compile(rf"(?:{rule})\Z")) for kind, rule, firsts in _CORE if first in firsts]
        for first in ("", *"~nNtTfF-+.0123456789")
    }


class _FailsafeResolver(VersionedResolver):
    """No rules: every scalar is a text."""

    versioned_resolver: dict[str, Any] = {}  # noqa: RUF012 - what ruamel.yaml computes there


def parse(text: str) -> Node | None:
    """The root of a document; None if the document is empty. Raises NotYamlError."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _CoreResolver
    yaml.max_depth = _DEPTH
    yaml.composer.warn_double_anchors = False
    try:
        root = yaml.compose(text)
    except MaxDepthExceededError as error:
        raise NotYamlError("nested too deeply", _line(error)) from error
    except MarkedYAMLError as error:
        raise NotYamlError(str(error.problem or error.context), _line(error)) from error
    except ReaderError as error:
        raise NotYamlError(
            f"unacceptable character #x{error.character:04x}", _line_at(text, error)
        ) from error
    except YAMLError as error:
        raise NotYamlError(str(error)) from error
    _place_empty_values(root)
    return root  # type: ignore[no-any-return]


def _place_empty_values(root: Node | None) -> None:
    """Set the position of an empty value to that of its key: ruamel.yaml sets it to the start of the next entry."""
    for key, value in _entries_of(root):
        for at, each in ((key, value), *_entries_of(value)):
            if each.start_mark.index == each.end_mark.index:
                each.start_mark = each.end_mark = at.end_mark


def _entries_of(node: Node | None) -> list[tuple[Node, Node]]:
    return node.value if isinstance(node, MappingNode) else []


def kind_of(node: Node) -> ScalarKind:
    """The kind of a node of `parse`. A quoted scalar is a text. OTHER if it has a tag that its text does not imply."""
    if not isinstance(node, ScalarNode):
        return ScalarKind.OTHER
    if node.tag == ScalarKind.TEXT:
        return ScalarKind.TEXT
    kind = kind_of_text(node.value)
    return kind if node.tag == kind else ScalarKind.OTHER


def kind_of_text(text: str) -> ScalarKind:
    """What a plain scalar with this text would be."""
    return ScalarKind(str(_CoreResolver().resolve(ScalarNode, text, (True, False))))


def whole_number(node: Node | None) -> int | None:
    """The value of a node that holds a whole number of up to 18 characters, as in 12, +12, 0xC, 12.0; else None."""
    if node is None or kind_of(node) not in {ScalarKind.INTEGER, ScalarKind.FLOAT}:
        return None
    if len(node.value) > _LONGEST_NUMBER:
        return None
    number = YAML(typ="safe", pure=True).constructor.construct_document(node)
    return int(number) if float(number).is_integer() else None


def load(text: str) -> CommentedMap:
    """A document that is a mapping, to be changed and written again. `text`: one that `parse` accepts."""
    return _round_trip().load(text)  # type: ignore[no-any-return]


def dump(document: CommentedMap, *, indent: int = 2) -> str:
    """The document as text. `indent`: the indentation of a mapping in another one."""
    yaml, text = _round_trip(), StringIO()
    yaml.map_indent = indent
    yaml.dump(document, text)
    return text.getvalue()


def quoted(text: str) -> str:
    """The text as `dump` expects it: quoted if a reader of YAML 1.1 or 1.2 would read it as another type."""
    old = VersionedResolver(version=(1, 1)).resolve(ScalarNode, text, (True, False))
    is_text = kind_of_text(text) is ScalarKind.TEXT and str(old) == ScalarKind.TEXT
    return text if is_text and text.isprintable() else DoubleQuotedScalarString(text)


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.Resolver = _FailsafeResolver
    yaml.composer.warn_double_anchors = False
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    return yaml


def _line(error: MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark is not None else 1


def _line_at(text: str, error: ReaderError) -> int:
    return text.count("\n", 0, error.position) + 1
