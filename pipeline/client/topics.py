"""Topics as code: `topics/*.yaml` read and checked, and compared with what a cluster has.

One file declares one topic:

    name: flights-by-carrier        # as the file is called
    partitions: 4
    replication: 3                  # optional; left out: 3, or the number of brokers when there are fewer
    owner: flight operations        # who to ask
    key: the carrier's code, text   # what a key and a value hold, for people
    value: one flight, a JSON object with the columns of the file
    config:                         # optional; topic settings as Kafka names them
      retention.ms: 604800000

Reading reports every mistake of every file, each with its line. Comparing is pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import yaml

from pipeline.core.names import held_by_the_pipeline
from pipeline.errors import ConfigError
from pipeline.ports import TopicInfo, TopicSpec

__all__ = ["Difference", "State", "TopicDeclaration", "TopicState", "compare", "parse_topic", "read_topics"]

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_REQUIRED = ("name", "partitions", "owner", "key", "value")
_FIELDS = (*_REQUIRED, "replication", "config")
_MAX_PARTITIONS = 10_000
_MAX_REPLICATION = 100


@dataclass(frozen=True, slots=True)
class TopicDeclaration:
    """One topic as declared. `replication` 0: left to the cluster."""

    name: str
    partitions: int
    owner: str
    key: str
    value: str
    replication: int = 0
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> TopicSpec:
        return TopicSpec(self.name, self.partitions, self.replication, self.config)


class State(Enum):
    """A declared topic on a cluster."""

    MISSING = "missing"
    PRESENT = "present"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that is not as declared."""

    what: str
    declared: str
    actual: str

    def __str__(self) -> str:
        return f"{self.what}: declared {self.declared}, the cluster has {self.actual}"


@dataclass(frozen=True, slots=True)
class TopicState:
    """What a comparison found for one topic."""

    topic: TopicDeclaration
    state: State
    differences: Sequence[Difference] = ()


def compare(declared: Sequence[TopicDeclaration], actual: Mapping[str, TopicInfo]) -> list[TopicState]:
    """Each declared topic, in order, against the cluster. What is not declared is not looked at."""
    return [_compare_one(topic, actual.get(topic.name)) for topic in declared]


def _compare_one(topic: TopicDeclaration, actual: TopicInfo | None) -> TopicState:
    if actual is None:
        return TopicState(topic, State.MISSING)
    pairs = [("partitions", str(topic.partitions), str(actual.partitions))]
    if topic.replication:
        pairs.append(("replication", str(topic.replication), str(actual.replication)))
    pairs += [(name, value, actual.config.get(name, "nothing")) for name, value in topic.config.items()]
    differences = tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])
    return TopicState(topic, State.DIFFERS if differences else State.PRESENT, differences)


def read_topics(directory: Path) -> list[TopicDeclaration]:
    """Every declaration in the directory, by name. Raises ConfigError listing all mistakes."""
    if not directory.is_dir():
        raise ConfigError(
            f"there is no directory {directory}",
            hint="run this where your topics/ is, or say where with --dir",
        )
    paths = sorted(path for path in directory.iterdir() if path.suffix in {".yaml", ".yml"})
    topics: dict[str, TopicDeclaration] = {}
    mistakes: list[str] = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            mistakes.append(f"{path}: cannot be read: {error}")
            continue
        topic, wrong = parse_topic(text, str(path))
        mistakes += wrong
        if topic is None:
            continue
        if topic.name != path.stem:
            mistakes.append(f"{path}: declares {topic.name!r}; call the file {topic.name}.yaml")
        if topic.name in topics:
            mistakes.append(f"{path}: {topic.name!r} is declared twice")
        topics[topic.name] = topic
    if mistakes:
        raise ConfigError("\n  ".join(["the topic declarations are wrong:", *mistakes]))
    if not topics:
        raise ConfigError(f"{directory} declares no topic", hint="add a file NAME.yaml for each topic")
    return list(topics.values())


def parse_topic(text: str, file: str) -> tuple[TopicDeclaration | None, list[str]]:
    """The declaration, or None, and the mistakes, each as `file:line: what is wrong`."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return None, [f"{file}:{line}: not valid YAML: {error.problem}"]
    except yaml.YAMLError as error:
        return None, [f"{file}:1: not valid YAML: {error}"]
    return _Reader(file).topic(root)


class _Reader:
    """Walks the nodes of one file; notes each mistake with its line."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.mistakes: list[str] = []

    def topic(self, root: yaml.Node | None) -> tuple[TopicDeclaration | None, list[str]]:
        if not isinstance(root, yaml.MappingNode):
            self._wrong(root, f"a topic is declared by the fields {', '.join(_FIELDS)}")
            return None, self.mistakes
        fields = self._mapping(root)
        for name, node in fields.items():
            if name not in _FIELDS:
                self._wrong(node, f"there is no field {name!r}; the fields are {', '.join(_FIELDS)}")
        for name in _REQUIRED:
            if name not in fields:
                self._wrong(root, f"{name!r} is missing")
        topic = TopicDeclaration(
            name=self._name(fields.get("name")),
            partitions=self._number(fields.get("partitions"), "partitions", _MAX_PARTITIONS),
            owner=self._text(fields.get("owner"), "owner"),
            key=self._text(fields.get("key"), "key"),
            value=self._text(fields.get("value"), "value"),
            replication=self._number(fields.get("replication"), "replication", _MAX_REPLICATION),
            config=self._config(fields.get("config")),
        )
        return (None if self.mistakes else topic), self.mistakes

    def _mapping(self, node: yaml.MappingNode) -> dict[str, yaml.Node]:
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name in found:
                self._wrong(key, f"{name!r} is given twice")
            found[name] = value
        return found

    def _name(self, node: yaml.Node | None) -> str:
        name = self._text(node, "name")
        if node is not None and name and (not _NAME.fullmatch(name) or name in {".", ".."}):
            self._wrong(node, f"{name!r} is no topic name: up to 249 letters, digits, '.', '_' or '-'")
        held = held_by_the_pipeline(name)
        if node is not None and held:
            self._wrong(node, f"{name!r} {held}")
        return name

    def _number(self, node: yaml.Node | None, name: str, most: int) -> int:
        if node is None:
            return 0
        if isinstance(node, yaml.ScalarNode) and re.fullmatch(r"[0-9]{1,6}", node.value):
            number = int(node.value)
            if 1 <= number <= most:
                return number
        self._wrong(node, f"{name} must be a whole number from 1 to {most}")
        return 0

    def _text(self, node: yaml.Node | None, name: str) -> str:
        if node is None:
            return ""
        if isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:null" and node.value.strip():
            return str(node.value).strip()
        self._wrong(node, f"{name} must be a text")
        return ""

    def _config(self, node: yaml.Node | None) -> Mapping[str, str]:
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, "config must be a list of settings, one `name: value` a line")
            return {}
        return {name: self._text(value, f"config {name}") for name, value in self._mapping(node).items()}

    def _wrong(self, node: yaml.Node | None, what: str) -> None:
        line = node.start_mark.line + 1 if node is not None else 1
        self.mistakes.append(f"{self._file}:{line}: {what}")
