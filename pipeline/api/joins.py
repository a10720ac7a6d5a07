"""What an app declares for a join of two topics: `Join`, and `DeclaredJoin`, with its two sides.

Each side has a row for each key, with the events that wait (`core/joins.py`). The records of both topics are given to
the join like to a handler, so they have the undo log, the retries and the policy of any record. The calls for
unmatched events are due steps of two pseudo-topics, one for each side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, cast

import msgspec

from pipeline.api.bindings import Binding, RuntimeBinding, check_pair_function
from pipeline.api.context import Context
from pipeline.api.declarations import LONGEST_TTL_S, DeclaredTable, DeclaredTopic, StepTopic
from pipeline.api.event import Event
from pipeline.api.keys import KeyCodec, parse_key
from pipeline.core.joins import JOIN_SCHEMA, unpack_events
from pipeline.core.place_hash import place_hash
from pipeline.core.records import Record
from pipeline.errors import ConfigError

__all__ = [
    "MOST_EVENTS",
    "DeclaredJoin",
    "Join",
    "JoinBinding",
    "JoinSide",
    "Owner",
    "Policy",
    "SideName",
    "WaitingEvent",
]

K = TypeVar("K")
L = TypeVar("L")
R = TypeVar("R")

MOST_EVENTS = 1_000
_LIMIT_EVENTS = 1_000_000
SideName = Literal["left", "right"]
MatchFunction = Callable[[Event[K, L], Event[K, R], Context], None]
UnmatchedFunction = Callable[[Event[K, L], Context], None]


class Owner(NamedTuple):
    """The group that a join is declared in: its name, and what registers functions of joins by name."""

    group: str
    bind_match: Callable[[str, Binding], None]
    bind_unmatched: Callable[[str, SideName, Binding], None]


class Join(Generic[K, L, R]):
    """A join of two topics: pairs of events of one key whose times are close. Made by `app.join(...)`.

    Each event ends in one call of `on_match` for each partner, or in exactly one call of `on_unmatched_left` or
    `on_unmatched_right`. All three are optional.

    Example:
        ```python
        paid = app.join("paid", orders, payments, within_s=600, grace_s=60)


        @paid.on_match
        def settle(order: Event[str, Order], payment: Event[str, Payment], ctx: Context) -> None:
            ctx.send(settled, order.key, payment.value)
        ```
    """

    __slots__ = ()

    if TYPE_CHECKING:  # set by DeclaredJoin
        _name: str

    @property
    def name(self) -> str:
        """The join's name."""
        return self._name

    def on_match(self, function: MatchFunction[K, L, R], /) -> MatchFunction[K, L, R]:
        """Register the function that is called with each pair of events: a left one, a right one and a context.

        It is called when the second event of a pair is processed. What it sends has the later time of the two.

        Args:
            function: A function of two events and a `Context`.

        Returns:
            The function.

        Raises:
            ConfigError: The function does not accept these arguments, or the join already has such a function.

        Example:
            ```python
            @paid.on_match
            def settle(order: Event[str, Order], payment: Event[str, Payment], ctx: Context) -> None:
                ctx.send(settled, order.key, payment.value)
            ```
        """
        raise NotImplementedError

    def on_unmatched_left(self, function: UnmatchedFunction[K, L], /) -> UnmatchedFunction[K, L]:
        """Register the function that is called once for each left event without a partner.

        It is called when the event clock has passed the time of the event by more than `within_s + grace_s`. What it
        sends has the time of the event.

        Args:
            function: A function of an event and a `Context`.

        Returns:
            The function.

        Raises:
            ConfigError: The function does not accept these arguments, or the join already has such a function.

        Example:
            ```python
            @paid.on_unmatched_left
            def unpaid(order: Event[str, Order], ctx: Context) -> None:
                ctx.send(alerts, order.key, Alert("not paid"))
            ```
        """
        raise NotImplementedError

    def on_unmatched_right(self, function: UnmatchedFunction[K, R], /) -> UnmatchedFunction[K, R]:
        """As `on_unmatched_left`, for each right event without a partner.

        Args:
            function: A function of an event and a `Context`.

        Returns:
            The function.

        Raises:
            ConfigError: The function does not accept these arguments, or the join already has such a function.

        Example:
            ```python
            @paid.on_unmatched_right
            def unexpected(payment: Event[str, Payment], ctx: Context) -> None:
                ctx.send(refunds, payment.key, payment.value)
            ```
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"Join({self.name})"


class JoinBinding(RuntimeBinding):
    """The use of a topic by a join."""

    __slots__ = ()


class WaitingEvent(msgspec.Struct, frozen=True):
    """An event that waits, as `pipeline table show` prints it."""

    time_ms: int
    offset: int
    matched: bool
    value: Any


class Policy(NamedTuple):
    """The options of a join for records and events whose functions raise."""

    on_error: Any
    retries: int
    retry_delay_s: float


class JoinSide(DeclaredTable[Any, Any]):
    """One side of a join: the rows of its events that wait. As a table, it has lists of `WaitingEvent`.

    `topic`: its input. `unmatched`: the pseudo-topic of its events without a partner.
    """

    __slots__ = ("join", "side", "topic", "unmatched")

    def __init__(self, group: str, join: str, side: SideName, left: Any, right: Any) -> None:
        topic: DeclaredTopic[Any, Any] = left if side == "left" else right
        keys = replace(topic.key, schema=f"{JOIN_SCHEMA}{left.name}, {right.name}) {topic.key.schema}")
        values = replace(topic.value, decode=self._decoded, immutable=True, schema="events")
        super().__init__(group, f"{join}:{side}", keys, values)
        self.join = join
        self.side = side
        self.topic = topic
        name = f"@join/{join}/{side}"
        self.unmatched: StepTopic[Any, Any] = StepTopic(
            name,
            topic.key,
            topic.value,
            (topic.key_type, topic.value_type),
            lambda app, group: _unmatched_type(app, group, name, topic.name),
            self.time_of,
        )

    @property
    def label(self) -> str:
        """The join in messages."""
        return f"join {self.group}.{self.join}"

    @property
    def is_table(self) -> bool:
        """No handler opens it."""
        return False

    @property
    def key_codec(self) -> KeyCodec[Any]:
        """The codec of the keys of both topics."""
        codec: KeyCodec[Any] = self.topic.key
        return codec

    def parse_key(self, text: str) -> Any:
        """A key from the command line. Raises InputError."""
        return parse_key(self.topic.key, text)

    def time_of(self, record: Record) -> int:
        """The event time of an unmatched event, which may be a replay. Raises what the user's function raises."""
        known: int | None = getattr(record, "time_ms", None)
        if known is not None:
            return known
        time_of, topic = self.topic.event_time_ms, self.topic
        if time_of is None:
            found: int = record.timestamp()[1]
            return found
        return time_of(Event(topic.key.decode(record.key()), topic.value.read(record), record))

    def _decoded(self, data: bytes | None) -> list[WaitingEvent]:
        _, events = unpack_events(data or b"", self.label)
        return [WaitingEvent(each.time_ms, each.offset, each.matched, self._value(each)) for each in events]

    def _value(self, event: Any) -> Any:
        if self.topic.value.decode_message is not None:
            return None  # it needs the record
        try:
            return self.topic.value.decode(event.value)
        except Exception:  # noqa: BLE001 - a user's codec may raise anything
            return event.value  # the topic had another type then

    def shown(self, key: bytes, data: bytes) -> Iterator[tuple[Any, Any]]:
        """Each event that waits, with its key."""
        own = self.topic.key.decode(key)
        return ((own, each) for each in self._decoded(data))


class DeclaredJoin(Join[K, L, R]):
    """A join with what was declared for it."""

    __slots__ = ("_name", "_owner", "grace_ms", "left", "most", "policy", "right", "within_ms")

    def __init__(
        self,
        owner: Owner,
        name: str,
        left: object,
        right: object,
        policy: Policy,
        *,
        within_s: object,
        grace_s: object,
        max_events: object,
    ) -> None:
        group = owner.group
        where = f"join {group}.{name}"
        for topic in (left, right):
            if not isinstance(topic, DeclaredTopic):
                raise ConfigError(
                    f"{where}: {topic!r} is not a topic", hint="use what app.topic(...) returned"
                )
            if topic.key.allows_none:
                raise ConfigError(
                    f"{where}: topic {topic.name} may have records without a key, which can match nothing",
                    hint="declare the topic with key=; let a handler send records under a key to another topic",
                )
        first, second = cast("tuple[DeclaredTopic[K, L], DeclaredTopic[K, R]]", (left, right))
        if first is second:
            raise ConfigError(f"{where}: both sides are topic {first.name}; they must be different topics")
        if first.key.schema != second.key.schema:
            raise ConfigError(
                f"{where}: the keys of topic {first.name} are {first.key.schema}, those of topic {second.name} "
                f"{second.key.schema}: no key of one equals a key of the other",
                hint="declare both topics with the same key type, or send one under other keys to a third topic",
            )
        for what, seconds, least in (("within_s", within_s, 0), ("grace_s", grace_s, 0)):
            if type(seconds) not in {int, float} or not least <= seconds <= LONGEST_TTL_S:  # type: ignore[operator]
                raise ConfigError(
                    f"{where}: {what} is {seconds!r}; it must be a number of seconds, 0 to {LONGEST_TTL_S:,}",
                    hint="within_s is the longest time between two events of a pair, and grace_s how much longer an "
                    "event waits for partners that arrive out of order",
                )
        if type(max_events) is not int or not 1 <= max_events <= _LIMIT_EVENTS:
            raise ConfigError(
                f"{where}: max_events is {max_events!r}; it must be a whole number, 1 to {_LIMIT_EVENTS:,}",
                hint="it limits the events of one key that wait on each side",
            )
        self._owner = owner
        self._name = name
        self.within_ms = round(within_s * 1000)  # type: ignore[operator]
        self.grace_ms = round(grace_s * 1000)  # type: ignore[operator]
        self.most: int = max_events
        self.policy = policy
        self.left = JoinSide(group, name, "left", first, second)
        self.right = JoinSide(group, name, "right", first, second)

    @property
    def sides(self) -> tuple[JoinSide, JoinSide]:
        """Left and right."""
        return self.left, self.right

    def bindings(self) -> list[JoinBinding]:
        """The uses of both topics."""
        return [self._records_of(side) for side in self.sides]

    def on_match(self, function: MatchFunction[K, L, R], /) -> MatchFunction[K, L, R]:
        check_pair_function(self._owner.group, self.left.topic, self.right.topic, function)

        def call(pair: Any, ctx: Context) -> None:
            left, right = pair
            function(left, right, ctx)

        call.__qualname__ = getattr(function, "__qualname__", repr(function))
        self._owner.bind_match(self._name, Binding(self.left.topic, call, *self._options))
        return function

    def on_unmatched_left(self, function: UnmatchedFunction[K, L], /) -> UnmatchedFunction[K, L]:
        self._bind_unmatched(self.left, function)
        return function

    def on_unmatched_right(self, function: UnmatchedFunction[K, R], /) -> UnmatchedFunction[K, R]:
        self._bind_unmatched(self.right, function)
        return function

    @property
    def _options(self) -> tuple[Any, ...]:
        on_error, retries, retry_delay_s = self.policy
        return on_error, False, retries, retry_delay_s

    def _bind_unmatched(self, side: JoinSide, function: Callable[..., None]) -> None:
        binding = Binding(side.unmatched, function, *self._options)
        self._owner.bind_unmatched(self._name, side.side, binding)

    def _records_of(self, side: JoinSide) -> JoinBinding:
        def join(event: Event[Any, Any], ctx: Context) -> None:
            ctx._joins[self].handle(side.side, event)  # noqa: SLF001 - it is not for users

        join.__qualname__ = f"join {self._name}"
        return JoinBinding(side.topic, join, *self._options)


@cache
def _unmatched_type(app: str, group: str, name: str, topic: str) -> type[Event[Any, Any]]:
    """The class of unmatched events: they are those of their own topic, with effect keys of their own."""

    def effect_key(event: Any, n: int = 0) -> str:
        return place_hash(app, group, name, event.partition, event.offset, event.timestamp_ms, n)

    namespace = {
        "topic": property(lambda _event: topic),
        "effect_key": effect_key,
        "__module__": Event.__module__,
    }
    made = msgspec.defstruct(
        "Event", [], bases=(Event,), namespace=namespace, frozen=True, gc=False, eq=False
    )
    return cast("type[Event[Any, Any]]", made)
