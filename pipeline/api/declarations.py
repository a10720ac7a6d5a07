"""What an app declares: `Topic`, `Table` and `Resource`, compared by identity, and `Dedup`.

Users keep a Topic, a Table or a Resource and hand it back; they see its name only. Each one is an object of a subclass
with what the package reads of it: `DeclaredTopic`, `DeclaredTable`, `DeclaredResource`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar

from pipeline.api.codecs import ValueCodec
from pipeline.api.event import Event
from pipeline.api.keys import KeyCodec, parse_key
from pipeline.core.event_time import ClockState
from pipeline.core.records import Record
from pipeline.errors import ConfigError

__all__ = [
    "Declaration",
    "DeclaredResource",
    "DeclaredTable",
    "DeclaredTopic",
    "Dedup",
    "Resource",
    "StepTopic",
    "Table",
    "Topic",
    "declared_table",
    "declared_topic",
]

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")
K_contra = TypeVar("K_contra", contravariant=True)
V_contra = TypeVar("V_contra", contravariant=True)

LONGEST_TTL_S = 10 * 366 * 24 * 3600


class Dedup(Generic[K_contra, V_contra]):
    """Drops an event whose id was seen before, also if another producer sent it: `app.topic(..., dedup=Dedup(...))`.

    Each group that handles the topic remembers ids of its own, and each task those of its partition. So a duplicate
    under another key is not found if that key belongs to another partition.

    Args:
        ttl_s: How long an id is remembered, in seconds from the event that was processed first, by the timestamps of
            the topic's records. From 0.001 to ten years.
        id: Gives an event's id: bytes, or a str (encoded as UTF-8), not empty. Default: the record's header
            `event-id`, as `Producer` and `pipeline produce --id` write it. A record without an id is an error of
            that record.
        duplicates_to: A topic of the app to which dropped records are sent, unchanged.

    Attributes:
        ttl_ms: `ttl_s` in milliseconds.
        id: The function that gives an event's id, or None.
        duplicates_to: The topic for dropped records, or None.

    Raises:
        ConfigError: An argument cannot be used.

    Example:
        ```python
        payments = app.topic("payments", key=str, value=Payment, dedup=Dedup(ttl_s=24 * 3600))
        ```
    """

    __slots__ = ("duplicates_to", "id", "ttl_ms")

    def __init__(
        self,
        *,
        ttl_s: float,
        id: Callable[[Event[K_contra, V_contra]], bytes | str] | None = None,  # noqa: A002 - the field's own word
        duplicates_to: Topic[Any, Any] | None = None,
    ) -> None:
        if type(ttl_s) not in {int, float} or not 0.001 <= ttl_s <= LONGEST_TTL_S:
            raise ConfigError(
                f"Dedup: ttl_s is {ttl_s!r}; it must be a number of seconds, 0.001 to {LONGEST_TTL_S:,}",
                hint="choose it above the longest time after which an event may be sent again",
            )
        if id is not None and not callable(id):
            raise ConfigError(f"Dedup: id is {id!r}; it must be a function of the event, or left out")
        if duplicates_to is not None and not isinstance(duplicates_to, Topic):
            raise ConfigError(
                f"Dedup: duplicates_to is {duplicates_to!r}; it must be what app.topic(...) returned"
            )
        self.ttl_ms = round(ttl_s * 1000)
        self.id = id
        self.duplicates_to = duplicates_to


class Topic(Generic[K, V]):
    """A topic of an app, for input, output or both. Made by `app.topic(...)`; compared by identity."""

    __slots__ = ("_name",)

    if TYPE_CHECKING:  # set by DeclaredTopic
        _name: str

    @property
    def name(self) -> str:
        """The topic's name in Kafka."""
        return self._name

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"


class DeclaredTopic(Topic[K, V]):
    """A topic with its codecs.

    `key_type` and `value_type`: the declared types, to compare with annotations. `event_time_ms`: gives the event time
    of an event; None: the record's timestamp.
    """

    __slots__ = ("dedup", "event_time_ms", "key", "key_type", "value", "value_type")

    def __init__(
        self,
        name: str,
        key: KeyCodec[K],
        value: ValueCodec[V],
        dedup: Dedup[K, V] | None = None,
        *,
        key_type: Any = Any,
        value_type: Any = Any,
        event_time_ms: Callable[[Event[K, V]], int] | None = None,
    ) -> None:
        self._name = name
        self.key = key
        self.value = value
        self.dedup = dedup
        self.key_type = key_type
        self.value_type = value_type
        self.event_time_ms = event_time_ms


class StepTopic(DeclaredTopic[K, V]):
    """The pseudo-topic of due steps: no topic of Kafka has its name. Its function gets another object than an Event.

    `given`: the class of that object, for the names of the app and the group. `time_of`: the event time of a step;
    None: the timestamp of its record.
    """

    __slots__ = ("given", "time_of")

    def __init__(
        self,
        name: str,
        key: KeyCodec[K],
        value: ValueCodec[V],
        types: tuple[Any, Any],
        given: Callable[[str, str], type[Any]],
        time_of: Callable[[Record], int] | None = None,
    ) -> None:
        super().__init__(name, key, value, key_type=types[0], value_type=types[1])
        self.given = given
        self.time_of = time_of


def declared_topic(topic: Topic[K, V]) -> DeclaredTopic[K, V]:
    """The same topic, as the package reads it. Raises ConfigError for anything that no app has declared."""
    if not isinstance(topic, DeclaredTopic):
        raise ConfigError(f"{topic!r} is not a topic", hint="use what app.topic(...) returned")
    return topic


class Declaration:
    """What is stored under a name of a group: a declaration without rows, compared by identity."""

    __slots__ = ("_group", "_name")

    _kind: ClassVar[str] = ""  # the public class

    if TYPE_CHECKING:  # set by DeclaredTable
        _group: str
        _name: str

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def group(self) -> str:
        """The name of its group."""
        return self._group

    def __repr__(self) -> str:
        return f"{self._kind}({self.group}.{self.name})"


class Table(Declaration, Generic[K, V]):
    """A table of a group: a declaration without rows. Made by `app.table(...)`; compared by identity.

    In a handler, `ctx.table(table)` gives the rows of the task.
    """

    __slots__ = ()

    _kind = "Table"


class DeclaredTable(Table[K, V]):
    """A table with its codecs."""

    __slots__ = ("key", "upgrade", "value")

    def __init__(
        self,
        group: str,
        name: str,
        key: KeyCodec[K],
        value: ValueCodec[V],
        upgrade: Callable[[Any], V] | None = None,
    ) -> None:
        self._group = group
        self._name = name
        self.key = key
        self.value = value
        self.upgrade = upgrade

    @property
    def label(self) -> str:
        """The table in messages."""
        return f"table {self.group}.{self.name}"

    @property
    def is_table(self) -> bool:
        """Whether `ctx.table` opens it. Other declarations store rows of their own kind."""
        return True

    @property
    def fingerprint(self) -> str:
        """Changes when stored bytes would be read differently."""
        return f"{self.key_fingerprint}{self.value.schema}"

    @property
    def key_fingerprint(self) -> str:
        """What the fingerprint begins with."""
        return f"{self.key.schema}->"

    @property
    def key_codec(self) -> KeyCodec[Any]:
        """The codec of the keys that users declare. The key of a row may have more."""
        return self.key

    @property
    def value_codec(self) -> ValueCodec[Any]:
        """The codec of the values that users declare. A row may have several of them."""
        return self.value

    @property
    def fades(self) -> bool:
        """Whether rows, or parts of them, are hidden by the event clock before they are deleted: see `visible`."""
        return False

    def visible(self, data: bytes, clock: ClockState) -> bytes | None:  # noqa: ARG002 - of those that fade
        """What `value` decodes of a stored row, at a state of the event clock; None if it is hidden."""
        return data

    def converted(self, data: bytes, convert: Callable[[bytes], bytes]) -> bytes:
        """The stored row with other encoded values."""
        return convert(data)

    def decoded_by(self, data: bytes, decode: Callable[[bytes], Any]) -> Any:
        """A stored row for people. `decode`: of a value of the codec of that time."""
        return decode(data)

    def parse_key(self, text: str) -> Any:
        """A key from the command line. Raises InputError."""
        return parse_key(self.key, text)

    def table_rows(self, key: bytes, data: bytes) -> Iterator[tuple[Any, Any]]:
        """Keys and values of a stored row that is visible: one, or each session of a window."""
        yield self.key.decode(key), self.value.decode(data)

    def shown(self, key: bytes, data: bytes) -> Iterator[tuple[Any, Any]]:
        """`table_rows` for people: also each value of a history."""
        return self.table_rows(key, data)

    def _no_rows(self, *_: object) -> NoReturn:
        raise ConfigError(
            f"table {self.group}.{self.name} is a declaration and holds no rows",
            hint="in a handler, ctx.table(...) returns the rows: table = ctx.table(totals); table[key] = value",
        )

    # For programs that no type checker has seen: `Table` has none of these.
    __getitem__ = __setitem__ = __delitem__ = __contains__ = __iter__ = __len__ = _no_rows
    get = get_many = items = update = _no_rows

    def __bool__(self) -> bool:
        return True


def declared_table(table: Table[K, V]) -> DeclaredTable[K, V]:
    """The same table, as the package reads it. Raises ConfigError for anything that no app has declared."""
    if not isinstance(table, DeclaredTable):
        raise ConfigError(f"{table!r} is not a table", hint="use what app.table(...) returned")
    return table


class Resource(Generic[R]):
    """An object that handlers share, made once for each worker. Made by `app.resource(...)`.

    In a handler, `ctx.resource(resource)` gives the worker's object.
    """

    __slots__ = ()


class DeclaredResource(Resource[R]):
    """A resource with the function that makes it."""

    __slots__ = ("factory",)

    def __init__(self, factory: Callable[[], R]) -> None:
        self.factory = factory
