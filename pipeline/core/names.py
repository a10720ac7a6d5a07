"""Durable names: what a task and the things it owns in Kafka and on disk are called. Pure.

These strings outlive any release: a changed one is a lost journal. They are built here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from pipeline.errors import ConfigError

__all__ = [
    "EVENT_ID_HEADER",
    "LOADS_TOPIC",
    "NEVER_DECLARED",
    "GroupId",
    "TaskId",
    "TopicPartition",
    "check_name",
    "checkpoint_clock",
    "checkpoint_manifest",
    "checkpoint_object",
    "checkpoint_prefix",
    "copy_name",
    "held_by_the_pipeline",
    "is_replays",
    "journal_group",
    "letter_counts_topic",
    "load_transactional_id",
    "never_declared",
    "producer_transactional_id",
    "replay_marks_topic",
    "workers_app",
    "workers_group",
    "workers_topic",
]

EVENT_ID_HEADER = "event-id"
LOADS_TOPIC = "pipeline.loads"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
# Names of the package itself: `pipeline.load.<name>` fences a load, `<app>.workers` is a Kafka group.
_RESERVED = frozenset({("app", "pipeline"), ("group", "workers")})
_PRODUCER = re.compile(r"[A-Za-z0-9._-]{1,200}")
_JOURNAL = re.compile(rf"{_NAME.pattern}\.{_NAME.pattern}\.journal")
_REPLAYS = re.compile(rf"{_NAME.pattern}\.{_NAME.pattern}\.replays")

# Topics that no file declares, and why: patterns of whole names.
NEVER_DECLARED: Mapping[str, str] = {
    _JOURNAL.pattern: "is the name of a journal, which its workers create and configure",
    rf"{_NAME.pattern}\.{_NAME.pattern}\.dead-letters": "is the name of dead letters, which their workers create",
    _REPLAYS.pattern: "is the name of replayed dead letters, which their workers create",
    r"pipeline\..*": "is a name that the pipeline keeps for itself",
    r"__.*": "is the name of a topic of Kafka's own",
}


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class GroupId(NamedTuple):
    """One handler group of one app."""

    app: str
    group: str

    @property
    def consumer_group(self) -> str:
        """The Kafka group that mirrors this group's positions for lag tools."""
        return f"{self.app}.{self.group}"

    @property
    def journal_topic(self) -> str:
        return f"{self.app}.{self.group}.journal"

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.app}.{self.group}.dead-letters"

    @property
    def replays_topic(self) -> str:
        """One more input of the group: dead letters that are to be handled again, by partition of their task."""
        return f"{self.app}.{self.group}.replays"

    @property
    def replay_transactional_id(self) -> str:
        """The fence of a replay: of two at once, the older one can write nothing more."""
        return f"pipeline.replay.{self.app}.{self.group}"

    @property
    def genesis_transactional_id(self) -> str:
        return f"{self.app}.{self.group}.genesis"


class TaskId(NamedTuple):
    """The unit of ownership: one partition number across a group's input topics."""

    app: str
    group: str
    partition: int

    @property
    def group_id(self) -> GroupId:
        return GroupId(self.app, self.group)

    @property
    def journal(self) -> TopicPartition:
        return TopicPartition(self.group_id.journal_topic, self.partition)

    @property
    def transactional_id(self) -> str:
        """Static: a successor's init under this id is the fence."""
        return f"{self.app}.{self.group}.{self.partition}"

    def __str__(self) -> str:
        return f"{self.app}/{self.group}/{self.partition}"


def check_name(kind: str, name: str) -> str:
    """Return `name` when it can be part of a durable name.

    Dots are refused because they separate the parts: app `a.b` and group `c` would share a journal with
    app `a` and group `b.c`.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{kind} name {name!r} cannot be used: 1 to 80 letters, digits, '-' or '_'",
            hint=f"rename the {kind}",
        )
    if (kind, name) in _RESERVED:
        raise ConfigError(f"{kind} name {name!r} is reserved", hint=f"rename the {kind}")
    return name


def checkpoint_prefix(cluster_id: str, task: TaskId | GroupId) -> str:
    """Where the checkpoints of a task, or of a group's tasks, are within a store. It ends with a slash.

    The cluster's id is part of it: an app of the same name on another cluster keeps its own.
    """
    return "/".join([cluster_id, *map(str, task)]) + "/"


def checkpoint_manifest(seq: int, nonce: bytes) -> str:
    """A manifest's name behind its task's prefix; in the order of the states it describes."""
    return f"manifests/{seq:020d}-{nonce.hex()}"


def checkpoint_clock(nonce: bytes) -> str:
    """Behind a group's prefix: an object that is written to learn the time of the store, and deleted."""
    return f"clock/{nonce.hex()}"


def checkpoint_object(digest: bytes, nonce: bytes) -> str:
    """An object's name behind its task's prefix: what is in it, and which upload made it."""
    return f"objects/{digest.hex()}-{nonce.hex()}"


def held_by_the_pipeline(topic: str) -> str | None:
    """What nobody else may write to, in words: a journal, or a topic of the package. None for other topics.

    One foreign record ends a journal for good. Dead letters are none of these: nothing is rebuilt from them.
    """
    if _JOURNAL.fullmatch(topic):
        return "is the name of a journal, which only its workers may write"
    if is_replays(topic):
        return (
            "is a name for dead letters on their way back, which only `pipeline deadletters replay` may write"
        )
    if topic.startswith("pipeline."):
        return "is a name that the pipeline keeps for itself"
    return None


def never_declared(topic: str) -> str | None:
    """Why nobody declares this topic, in words; None for one that anybody may."""
    return next((why for pattern, why in NEVER_DECLARED.items() if re.fullmatch(pattern, topic)), None)


def journal_group(app: str, topic: str) -> str | None:
    """The group whose journal the topic is; None when it is no journal of the app."""
    prefix, suffix = f"{app}.", ".journal"
    group = topic[len(prefix) : -len(suffix)]
    return group if topic == f"{prefix}{group}{suffix}" and _NAME.fullmatch(group) else None


def workers_group(app: str) -> str:
    """The Kafka group whose dynamic members are the workers of an app."""
    return f"{app}.workers"


def workers_topic(app: str) -> str:
    """Where the workers of an app tell each other what they run."""
    return f"pipeline.workers.{app}"


def workers_app(topic: str) -> str | None:
    """The app whose workers' topic it is; None for any other topic."""
    app = topic.removeprefix(workers_topic(""))
    return app if topic == workers_topic(app) and _NAME.fullmatch(app) else None


def is_replays(topic: str) -> bool:
    """Whether the topic is that of a group's replays."""
    return _REPLAYS.fullmatch(topic) is not None


def replay_marks_topic(app: str) -> str:
    """Where it is kept which dead letters of an app have been replayed."""
    return f"pipeline.replays.{app}"


def letter_counts_topic(app: str) -> str:
    """Where it is kept how many records of each group of an app failed and are open."""
    return f"pipeline.letter-counts.{app}"


def copy_name(topic: str) -> str:
    """The app that copies another topic into `topic`: readable, and different for each topic."""
    readable = re.sub(r"[^A-Za-z0-9_-]", "-", topic)[:60]
    return f"copy-{readable}-{blake2b(topic.encode(), digest_size=4).hexdigest()}"


def load_transactional_id(load: str) -> str:
    """The fence of a load: of two loaders under one name, the older one can write nothing more."""
    return f"pipeline.load.{load}"


def producer_transactional_id(name: str) -> str:
    """The fence of a program's transactional producer; apart from those of tasks, whatever it is called."""
    if not _PRODUCER.fullmatch(name):
        raise ConfigError(
            f"the transactional id {name!r} cannot be used: 1 to 200 letters, digits, '.', '-' or '_'",
            hint="give each running instance of the service an id of its own, which it keeps when it restarts",
        )
    return f"pipeline.producer.{name}"
