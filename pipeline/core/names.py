"""Durable names: what a task and the things it owns in Kafka and on disk are called. Pure.

These strings are part of no release: a release that changed one would lose a journal. Only this module builds them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from pipeline.errors import ConfigError, InputError

__all__ = [
    "COPY_GROUP",
    "DEAD_LETTER_READER",
    "EVENT_ID_HEADER",
    "JOURNAL_READER",
    "LOADS_TOPIC",
    "NEVER_DECLARED",
    "RECORD_READER",
    "TRACEPARENT_HEADER",
    "GroupId",
    "TaskChoice",
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
    "known_apps",
    "letter_counts_topic",
    "load_transactional_id",
    "never_declared",
    "producer_transactional_id",
    "record_place",
    "replay_marks_topic",
    "shadow_app",
    "shadow_output",
    "topics_of_shadow",
    "workers_app",
    "workers_group",
    "workers_topic",
]

EVENT_ID_HEADER = "event-id"
TRACEPARENT_HEADER = "traceparent"  # of W3C Trace Context
LOADS_TOPIC = "pipeline.loads"
COPY_GROUP = "main"  # of an app that copies a topic

# Consumer groups of clients that read without committing offsets: the client requires a name.
JOURNAL_READER = "pipeline.journal-reader"
DEAD_LETTER_READER = "pipeline.deadletters"
RECORD_READER = "pipeline.consume"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_LONGEST_TOPIC = 249
# Names of the package itself: `pipeline.load.<name>` fences a load, `<app>.workers` is a Kafka group.
_RESERVED = frozenset({("app", "pipeline"), ("group", "workers")})
_PRODUCER = re.compile(r"[A-Za-z0-9._-]{1,200}")
_JOURNAL = re.compile(rf"{_NAME.pattern}\.{_NAME.pattern}\.journal")
_REPLAYS = re.compile(rf"{_NAME.pattern}\.{_NAME.pattern}\.replays")

# Topics that no file declares, and why: patterns of whole names.
NEVER_DECLARED: Mapping[str, str] = {
    _JOURNAL.pattern: "is the name of a journal, which its workers create and configure",
    rf"{_NAME.pattern}\.{_NAME.pattern}\.dead-letters": "is the name of a dead-letter topic, which its workers create",
    _REPLAYS.pattern: "is the name of a topic of replays, which its workers create",
    r"pipeline\..*": "starts with `pipeline.`, which is reserved",
    r"__.*": "is the name of an internal topic of Kafka",
}


_RECORD_PLACE = re.compile(r"([^/\[\]]+)(?:/([0-9]+)/([0-9]+)|\[([0-9]+)\]@([0-9]+))")


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


def record_place(text: str) -> tuple[TopicPartition, int] | None:
    """Parse the place of a record: `flights/0/17`, or `flights[0]@17` as dead letters show it. None for other text."""
    found = _RECORD_PLACE.fullmatch(text)
    if found is None:
        return None
    topic, *numbers = (part for part in found.groups() if part is not None)
    partition, offset = map(int, numbers)
    return TopicPartition(topic, partition), offset


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
        """An additional input of the group: the dead letters to replay, in the partition of their record."""
        return f"{self.app}.{self.group}.replays"

    @property
    def replay_transactional_id(self) -> str:
        """Fences replays: if two run at once, the older one can no longer write."""
        return f"pipeline.replay.{self.app}.{self.group}"

    @property
    def transactional_prefix(self) -> str:
        """The beginning of the transactional ids of the group's tasks and of its genesis."""
        return f"{self.app}.{self.group}."

    @property
    def genesis_transactional_id(self) -> str:
        return f"{self.transactional_prefix}genesis"


class TaskId(NamedTuple):
    """The unit of ownership: number `number` of a group's tasks."""

    app: str
    group: str
    number: int

    @property
    def group_id(self) -> GroupId:
        return GroupId(self.app, self.group)

    @property
    def journal(self) -> TopicPartition:
        return TopicPartition(self.group_id.journal_topic, self.number)

    @property
    def transactional_id(self) -> str:
        """Static: a successor's init under this id is the fence."""
        return f"{self.app}.{self.group}.{self.number}"

    def __str__(self) -> str:
        return f"{self.app}/{self.group}/{self.number}"


class TaskChoice(NamedTuple):
    """A task as an operator writes it: its number, or `GROUP/N` as reports print it. `group`: empty if not given."""

    number: int
    group: str = ""

    @classmethod
    def parse(cls, text: str) -> TaskChoice:
        """Parse what was written. Raises InputError."""
        group, slash, number = text.rpartition("/")
        valid = number.isdecimal() and number.isascii() and (_NAME.fullmatch(group) if slash else True)
        if not valid:
            raise InputError(
                f"{text!r} is not a task", hint="write its number, or GROUP/N as in reports: 1 or main/1"
            )
        return cls(int(number), group)

    def means(self, task: TaskId) -> bool:
        """Whether this is the task, or a task with this number if no group was given."""
        return task.number == self.number and self.group in {"", task.group}

    def __str__(self) -> str:
        return f"{self.group}/{self.number}" if self.group else str(self.number)


def check_name(kind: str, name: str) -> str:
    """Return `name` if it can be part of a durable name.

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
    """The prefix of the checkpoints of a task, or of all tasks of a group, in a store. It ends with a slash.

    It contains the cluster's id, so apps of the same name on two clusters have separate checkpoints.
    """
    return "/".join([cluster_id, *map(str, task)]) + "/"


def checkpoint_manifest(seq: int, nonce: bytes) -> str:
    """A manifest's name, relative to its task's prefix. Names sort in the order of the states."""
    return f"manifests/{seq:020d}-{nonce.hex()}"


def checkpoint_clock(nonce: bytes) -> str:
    """An object, relative to a group's prefix, that is written to read the store's clock, and deleted."""
    return f"clock/{nonce.hex()}"


def checkpoint_object(digest: bytes, nonce: bytes) -> str:
    """An object's name, relative to its task's prefix: its content's digest and the upload that made it."""
    return f"objects/{digest.hex()}-{nonce.hex()}"


def held_by_the_pipeline(topic: str) -> str | None:
    """Why only the package may write to a topic, in words: it is a journal or a topic of the package. None for others.

    One foreign record makes a journal unusable. Topics of dead letters are not included: no state is rebuilt from them.
    """
    if _JOURNAL.fullmatch(topic):
        return "is the name of a journal, which only its workers may write"
    if is_replays(topic):
        return "is the name of a topic of replays, which only `pipeline deadletters replay` may write"
    if topic.startswith("pipeline."):
        return "starts with `pipeline.`, which is reserved"
    return None


def never_declared(topic: str) -> str | None:
    """Why a user cannot declare this topic, in words; None if a user can."""
    return next((why for pattern, why in NEVER_DECLARED.items() if re.fullmatch(pattern, topic)), None)


def journal_group(app: str, topic: str) -> str | None:
    """The group whose journal the topic is; None if it is not a journal of the app."""
    prefix, suffix = f"{app}.", ".journal"
    group = topic[len(prefix) : -len(suffix)]
    return group if topic == f"{prefix}{group}{suffix}" and _NAME.fullmatch(group) else None


def workers_group(app: str) -> str:
    """The Kafka group whose dynamic members are the workers of an app."""
    return f"{app}.workers"


def workers_topic(app: str) -> str:
    """The topic of the notes of an app's workers."""
    return f"pipeline.workers.{app}"


def known_apps(topics: Iterable[str]) -> set[str]:
    """The apps that have one of these topics: that of their workers, or a journal."""
    found = set()
    for topic in topics:
        first = topic.partition(".")[0]
        app = first if journal_group(first, topic) is not None else workers_app(topic)
        if app is not None:
            found.add(app)
    return found


def workers_app(topic: str) -> str | None:
    """The app whose workers use the topic; None for any other topic."""
    app = topic.removeprefix(workers_topic(""))
    return app if topic == workers_topic(app) and _NAME.fullmatch(app) else None


def is_replays(topic: str) -> bool:
    """Whether the topic is the replays topic of a group."""
    return _REPLAYS.fullmatch(topic) is not None


def replay_marks_topic(app: str) -> str:
    """The topic that records which dead letters of an app have been replayed."""
    return f"pipeline.replays.{app}"


def letter_counts_topic(app: str) -> str:
    """The topic that holds the number of open records of each group of an app."""
    return f"pipeline.letter-counts.{app}"


def shadow_app(app: str, began_ms: int) -> str:
    """The name of the app that a drill runs beside `app` to process the same input again."""
    return f"{app[:60]}-shadow-{began_ms}"


def shadow_output(shadow: str, topic: str) -> str:
    """The topic to which a shadow app writes what its handlers send to `topic`. Never a name of a journal."""
    name = f"{shadow}-out-{topic}"
    if len(name) <= _LONGEST_TOPIC:
        return name
    digest = blake2b(topic.encode(), digest_size=8).hexdigest()
    return f"{name[: _LONGEST_TOPIC - len(digest) - 1]}-{digest}"


def topics_of_shadow(shadow: str, topics: Iterable[str]) -> list[str]:
    """Those of `topics` that belong to a shadow app. Its name contains the time of its drill, and so is unique."""
    own = {workers_topic(shadow), replay_marks_topic(shadow), letter_counts_topic(shadow)}
    return [name for name in topics if name in own or name.startswith((f"{shadow}.", f"{shadow}-out-"))]


def copy_name(topic: str) -> str:
    """The name of the app that copies another topic into `topic`: readable, and unique for each topic."""
    readable = re.sub(r"[^A-Za-z0-9_-]", "-", topic)[:60]
    return f"copy-{readable}-{blake2b(topic.encode(), digest_size=4).hexdigest()}"


def load_transactional_id(load: str) -> str:
    """Fences loads: of two loaders with one name, the older one can no longer write."""
    return f"pipeline.load.{load}"


def producer_transactional_id(name: str) -> str:
    """Fences a program's transactional producer. No such id equals that of a task."""
    if not _PRODUCER.fullmatch(name):
        raise ConfigError(
            f"the transactional id {name!r} cannot be used: 1 to 200 letters, digits, '.', '-' or '_'",
            hint="give each running instance of the service an id of its own, which it keeps when it restarts",
        )
    return f"pipeline.producer.{name}"
