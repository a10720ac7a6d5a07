"""What a scalar of a YAML file is, as editors read it: by the core schema of YAML 1.2.

PyYAML follows YAML 1.1, where `no` is a flag and `12:30` a number. Pure.
"""

from __future__ import annotations

import re
from enum import Enum

import yaml

__all__ = ["ScalarKind", "scalar_kind", "whole_number"]


class ScalarKind(Enum):
    """What kind of value a node is. OTHER: a mapping or a sequence."""

    NULL = "null"
    FLAG = "flag"
    NUMBER = "number"
    TEXT = "text"
    OTHER = "other"


_KINDS = (
    (ScalarKind.NULL, re.compile(r"(?:|~|null|Null|NULL)")),
    (ScalarKind.FLAG, re.compile(r"true|True|TRUE|false|False|FALSE")),
    (ScalarKind.NUMBER, re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")),
    (ScalarKind.NUMBER, re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")),
    (ScalarKind.NUMBER, re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")),
)


def scalar_kind(node: yaml.Node) -> ScalarKind:
    """The kind of a node. What is quoted is text."""
    if not isinstance(node, yaml.ScalarNode):
        return ScalarKind.OTHER
    if node.style is not None:
        return ScalarKind.TEXT
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(node.value)), ScalarKind.TEXT)


def whole_number(node: yaml.Node | None) -> int | None:
    """The node's value where it is a whole number of up to 18 letters: 12, +12, 0xC, 12.0; else None."""
    if node is None or scalar_kind(node) is not ScalarKind.NUMBER or len(node.value) > 18:
        return None
    text = str(node.value)
    if text.startswith(("0x", "0o")):
        return int(text, 0)
    try:
        number = float(text)
    except ValueError:  # .inf, .nan
        return None
    return int(number) if number.is_integer() else None
