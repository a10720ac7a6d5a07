"""Declarations as text: a new file, or an old one changed in place so that its comments stay. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

import yaml

from pipeline.ops.topics.declarations import TopicDeclaration
from pipeline.ops.topics.fields import SCHEMA_LINE
from pipeline.ops.topics.scalars import ScalarKind, scalar_kind

__all__ = ["edited", "render"]

_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9._,'/() -]*[A-Za-z0-9._'/()-])?")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})  # flags to other readers of YAML
_UNSEEN = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")


def render(topic: TopicDeclaration) -> str:
    """A new file, whose first line tells editors where its schema is."""
    lines = [f"name: {_scalar(topic.name)}", f"partitions: {topic.partitions}"]
    if topic.replication:
        lines.append(f"replication: {topic.replication}")
    lines += [f"{name}: {_scalar(getattr(topic, name))}" for name in ("owner", "key", "value")]
    if topic.id:
        lines.append(f"id: {_scalar(topic.id)}")
    if topic.config:
        lines += ["config:", *(f"  {name}: {_setting(value)}" for name, value in topic.config.items())]
    return SCHEMA_LINE + "\n".join(lines) + "\n"


class _Edit(NamedTuple):
    """The characters from `start` to `end` become `text`."""

    start: int
    end: int
    text: str


def edited(text: str, topic: TopicDeclaration) -> str | None:
    """The file `text` with the partitions, replication and settings of `topic`, everything else as it is.

    None where that is not easily done: the caller looks what came of it, and makes a new file if need be.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return None
    fields = _values(root)
    edits: list[_Edit] = []
    partitions, replication, config = (fields.get(name) for name in ("partitions", "replication", "config"))
    if partitions is None:
        return None
    edits.append(_replaced(partitions, str(topic.partitions)))
    if replication is not None:
        edits.append(_replaced(replication, str(topic.replication)))
    elif topic.replication:
        edits.append(_after(text, partitions, f"replication: {topic.replication}\n"))
    if config is None:
        block = "".join(f"  {name}: {_setting(value)}\n" for name, value in topic.config.items())
        edits.append(_at_end(text, f"config:\n{block}" if block else ""))
    elif isinstance(config, yaml.MappingNode):
        edits += _flow(config, topic.config) if config.flow_style else _block(text, config, topic.config)
    else:
        return None
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _flow(node: yaml.MappingNode, config: Mapping[str, str]) -> list[_Edit]:
    settings = ", ".join(f"{name}: {_setting(value, flow=True)}" for name, value in config.items())
    return [_replaced(node, f"{{{settings}}}")]


def _block(text: str, node: yaml.MappingNode, config: Mapping[str, str]) -> list[_Edit]:
    found = _values(node)
    edits = []
    for key, value in node.value:
        if key.value not in config:
            edits.append(
                _Edit(_line_start(text, key.start_mark.index), _line_end(text, value.end_mark.index), "")
            )
        elif str(value.value).strip() != config[key.value]:
            edits.append(_replaced(value, _setting(config[key.value])))
    indent = " " * node.start_mark.column
    new = "".join(
        f"{indent}{name}: {_setting(value)}\n" for name, value in config.items() if name not in found
    )
    if new:
        edits.append(_after(text, node.value[-1][1], new))
    return edits


def _values(node: yaml.MappingNode) -> dict[str, yaml.Node]:
    return {str(key.value): value for key, value in node.value}


def _replaced(node: yaml.Node, text: str) -> _Edit:
    return _Edit(node.start_mark.index, node.end_mark.index, text)


def _after(text: str, node: yaml.Node, lines: str) -> _Edit:
    place = _line_end(text, node.end_mark.index)
    return _Edit(place, place, lines if text[:place].endswith("\n") else f"\n{lines}")


def _at_end(text: str, lines: str) -> _Edit:
    return _Edit(len(text), len(text), lines if text.endswith("\n") or not lines else f"\n{lines}")


def _line_start(text: str, index: int) -> int:
    return text.rfind("\n", 0, index) + 1


def _line_end(text: str, index: int) -> int:
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1


def _scalar(text: str) -> str:
    """A text that is read back as it is, and as a text."""
    if _PLAIN.fullmatch(text) and _kind_of(text) is ScalarKind.TEXT and text.lower() not in _WORDS:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found.group()):04x}", quoted)


def _setting(value: str, *, flow: bool = False) -> str:
    """A setting's value: numbers and flags are written as such."""
    if _kind_of(value) in {ScalarKind.NUMBER, ScalarKind.FLAG}:
        return value
    return json.dumps(value) if flow else _scalar(value)


def _kind_of(text: str) -> ScalarKind:
    return scalar_kind(yaml.ScalarNode("tag:yaml.org,2002:str", text))
