"""Reads and checks declarations, `topics/*.yaml`.

One file declares one topic:

    name: flights-by-carrier        # the name of the file without .yaml
    partitions: 4
    replication: 3                  # optional; default: 3, or the number of brokers if there are fewer
    owner: flight operations        # who to ask
    key: the carrier's code, text   # descriptions of keys and values, for readers
    value: one flight, a JSON object with the columns of the file
    id: carrier, number and time    # optional; description of the event id, by which duplicates are dropped
    config:                         # optional; topic settings of Kafka
      retention.ms: 604800000
    deleted: false                  # optional; true: delete the topic

All mistakes of all files are reported, each with its line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.names import never_declared
from pipeline.core.suggestions import did_you_mean
from pipeline.errors import ConfigError
from pipeline.ops.topics.fields import FIELDS, SETTING_NAME, TOPIC_NAME, FieldKind
from pipeline.ops.topics.yaml_documents import (
    NUMBERS_AND_FLAGS,
    MappingNode,
    Node,
    NotYamlError,
    ScalarKind,
    ScalarNode,
    kind_of,
    parse,
    whole_number,
)
from pipeline.ports import TopicSpec

__all__ = ["TopicDeclaration", "declaration_files", "parse_topic", "read_topic_file", "read_topics"]

WHAT_IS_DECLARED = "for all fields of a declaration, run: pipeline topics schema"


@dataclass(frozen=True, slots=True)
class TopicDeclaration:
    """The declaration of one topic.

    `replication`: 0 if the cluster decides. `id`: empty if events need no id. `deleted`: the topic is to be deleted.
    """

    name: str
    partitions: int
    owner: str
    key: str
    value: str
    id: str = ""
    replication: int = 0
    config: Mapping[str, str] = field(default_factory=dict)
    deleted: bool = False

    @property
    def spec(self) -> TopicSpec:
        return TopicSpec(self.name, self.partitions, self.replication, self.config)


def declaration_files(directory: Path) -> list[Path]:
    """The files that declare topics, sorted by name. Raises ConfigError if the directory does not exist."""
    if not directory.is_dir():
        raise ConfigError(
            f"there is no directory {directory}",
            hint="run the command in the directory that contains topics/, or give the directory with --dir",
        )
    return sorted(path for path in directory.iterdir() if path.suffix in {".yaml", ".yml"})


def declaration_file(topic: str, directory: Path) -> Path | None:
    """The file that declares a topic; None if there is none."""
    paths = (directory / f"{topic}.yaml", directory / f"{topic}.yml")
    return next((path for path in paths if path.exists()), None)


def read_topics(directory: Path) -> list[TopicDeclaration]:
    """All declarations in the directory, sorted by file. Raises ConfigError with all mistakes."""
    topics: dict[str, TopicDeclaration] = {}
    mistakes: list[str] = []
    for path in declaration_files(directory):
        topic, wrong = read_topic_file(path)
        mistakes += wrong
        if topic is None:
            continue
        if topic.name in topics:
            mistakes.append(f"{path}: {topic.name!r} is declared twice")
        topics[topic.name] = topic
    if mistakes:
        raise ConfigError(
            "\n  ".join(["the topic declarations are not valid:", *mistakes]), hint=WHAT_IS_DECLARED
        )
    if not topics:
        raise ConfigError(
            f"the directory {directory} has no topic declaration",
            hint="add a file NAME.yaml for each topic, or export those of a cluster: pipeline topics export",
        )
    return list(topics.values())


def read_topic_file(path: Path) -> tuple[TopicDeclaration | None, list[str]]:
    """The declaration in one file, None if it has mistakes; and the mistakes."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return None, [f"{path}: cannot be read: {error}"]
    topic, mistakes = parse_topic(text, str(path))
    if topic is not None and topic.name != path.stem:
        mistakes.append(f"{path}: declares {topic.name!r}; rename the file to {topic.name}.yaml")
    return (None if mistakes else topic), mistakes


def parse_topic(text: str, file: str) -> tuple[TopicDeclaration | None, list[str]]:
    """The declaration, None if it has mistakes; and the mistakes, each as `file:line: text`."""
    try:
        root = parse(text)
    except NotYamlError as error:
        return None, [f"{file}:{error.line}: not valid YAML: {error.problem}"]
    return _Reader(file).topic(root)


class _Reader:
    """Reads the nodes of one file, and records each mistake with its line."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.mistakes: list[str] = []

    def topic(self, root: Node | None) -> tuple[TopicDeclaration | None, list[str]]:
        if not isinstance(root, MappingNode):
            self._wrong(root, f"a declaration must have the fields {', '.join(FIELDS)}")
            return None, self.mistakes
        fields = self._mapping(root)
        for name, node in fields.items():
            if name not in FIELDS:
                self._wrong(
                    node,
                    f"there is no field {name!r}{did_you_mean(name, FIELDS)}; the fields are {', '.join(FIELDS)}",
                )
        deleted = self._flag(fields.get("deleted"), "deleted")
        for name, what in FIELDS.items():
            if what.required and name not in fields and (name == "name" or not deleted):
                self._wrong(root, f"{name!r} is missing")
        topic = TopicDeclaration(
            name=self._name(fields.get("name")),
            partitions=self._number(fields.get("partitions"), "partitions"),
            owner=self._text(fields.get("owner"), "owner"),
            key=self._text(fields.get("key"), "key"),
            value=self._text(fields.get("value"), "value"),
            id=self._text(fields.get("id"), "id"),
            replication=self._number(fields.get("replication"), "replication"),
            config=self._config(fields.get("config")),
            deleted=deleted,
        )
        return (None if self.mistakes else topic), self.mistakes

    def _mapping(self, node: MappingNode) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, ScalarNode) else ""
            if name in found:
                self._wrong(key, f"{name!r} is given twice")
            found[name] = value
        return found

    def _name(self, node: Node | None) -> str:
        name = self._text(node, "name")
        if node is None or not name:
            return ""
        if not re.fullmatch(TOPIC_NAME, name) or name in {".", ".."}:
            self._wrong(
                node, f"{name!r} is not a valid topic name: use at most 249 letters, digits, '.', '_' or '-'"
            )
        why = never_declared(name)
        if why:
            self._wrong(node, f"{name!r} {why}")
        return name

    def _number(self, node: Node | None, name: str) -> int:
        if node is None:
            return 0
        number, most = whole_number(node), FIELDS[name].most
        if number is None or not 1 <= number <= most:
            self._wrong(node, f"{name} must be a whole number from 1 to {most}")
            return 0
        return number

    def _text(self, node: Node | None, name: str) -> str:
        if node is None:
            return ""
        kind = kind_of(node)
        if kind is ScalarKind.TEXT and node.value.strip():
            # White space around a name is kept, so that the check of the name reports it.
            return str(node.value) if FIELDS[name].kind is FieldKind.NAME else str(node.value).strip()
        quote = f': quote it, "{node.value}"' if kind in NUMBERS_AND_FLAGS else ""
        self._wrong(node, f"{name} must be a text{quote}")
        return ""

    def _flag(self, node: Node | None, name: str) -> bool:
        if node is None:
            return False
        if kind_of(node) is not ScalarKind.FLAG:
            self._wrong(node, f"{name} must be true or false")
            return False
        return str(node.value).lower() == "true"

    def _config(self, node: Node | None) -> Mapping[str, str]:
        if node is None:
            return {}
        if not isinstance(node, MappingNode):
            self._wrong(node, "config must be a list of settings, one `name: value` per line")
            return {}
        found = self._mapping(node)
        for name, value in found.items():
            if not re.fullmatch(SETTING_NAME, name):
                self._wrong(value, f"{name!r} is not a valid name of a setting")
            elif kind_of(value) is ScalarKind.OTHER:
                self._wrong(value, f'config {name} must be a text or a number; write a list as "a,b"')
            elif kind_of(value) is ScalarKind.NULL:
                self._wrong(value, f'config {name} has no value; write an empty value as ""')
        return {name: str(value.value).strip() for name, value in found.items()}

    def _wrong(self, node: Node | None, what: str) -> None:
        line = node.start_mark.line + 1 if node is not None else 1
        self.mistakes.append(f"{self._file}:{line}: {what}")
