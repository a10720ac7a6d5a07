"""Calls at regular times of the wall clock: `Tick`, as its function gets it, and what the runtime has (`TickTopic`).

The due times are the multiples of the period since the epoch, in each partition. Times that passed without a call give
one call.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, cast

import msgspec

from pipeline.api.codecs import resolve_value
from pipeline.api.declarations import LONGEST_TTL_S, StepTopic
from pipeline.api.keys import resolve_key
from pipeline.api.step_record import StepRecord
from pipeline.core.place_hash import place_hash
from pipeline.errors import ConfigError

__all__ = ["SHORTEST_S", "Tick", "TickRecord", "TickTopic", "tick_topic_name"]

SHORTEST_S = 1


class TickTopic(StepTopic[None, int]):
    """The pseudo-topic of calls every `every_ms`. The values are the numbers of missed times."""

    __slots__ = ("every_ms", "tick_name")

    def __init__(self, group: str, name: str, seconds: object) -> None:
        """Raises ConfigError for a period that cannot be used."""
        where = f"every {group}.{name}"
        if type(seconds) not in {int, float} or not SHORTEST_S <= seconds <= LONGEST_TTL_S:  # type: ignore[operator]
            raise ConfigError(
                f"{where}: the period is {seconds!r}; it must be a number of seconds, {SHORTEST_S} to "
                f"{LONGEST_TTL_S:,}",
                hint='write @app.every(60, name="report")',
            )
        super().__init__(
            tick_topic_name(name),
            resolve_key(None, where, tombstones=True),
            resolve_value(int, "json", where, tombstones=False),
            (None, int),
            lambda app, own_group: tick_type(app, own_group, name),
        )
        self.tick_name = name
        self.every_ms = round(seconds * 1000)  # type: ignore[operator]


class TickRecord(StepRecord):
    """A due time, as a record of the pseudo-topic `@every/NAME`.

    Its timestamp is the wall clock at the first attempt.
    """

    __slots__ = ("_wall_ms",)

    def __init__(self, topic: str, partition: int, due_ms: int, missed: int, wall_ms: int) -> None:
        super().__init__(topic, partition, due_ms, None, b"%d" % missed)
        self._wall_ms = wall_ms

    def timestamp(self) -> tuple[int, int]:
        kind, _ = super().timestamp()
        return kind, self._wall_ms

    @property
    def topic_id(self) -> str:
        """The identity of the call: a hash of the name and the due time."""
        return place_hash(self._topic, self._due_ms)


class Tick(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A due time of `every`. It stays valid after the call.

    What its function sends has the present as its timestamp by default.

    Attributes:
        missed: How many due times before this one passed without a call, because no worker ran, or the worker was busy.

    Example:
        ```python
        @app.every(60, name="size")
        def size(tick: Tick, ctx: Context) -> None:
            ctx.send(sizes, "orders", len(list(ctx.table(orders).items())))
        ```
    """

    _key: None
    missed: int
    _message: Any
    _scope: ClassVar[str] = ""

    @property
    def due_ms(self) -> int:
        """The due time, in milliseconds since the epoch: a multiple of the period."""
        return int(self._message.offset())

    def effect_key(self, n: int = 0) -> str:
        """A stable idempotency key, for an effect outside Kafka that this call causes.

        It is the same in each retry and replay of the due time. The key is a hash of app, group, name, partition, due
        time and `n`. After a crash, a later time may be due, whose key is another one.

        Args:
            n: The number of the effect, from 0.

        Returns:
            32 hexadecimal digits.

        Example:
            ```python
            http.post("/report", json=report, headers={"Idempotency-Key": tick.effect_key()})
            ```
        """
        return place_hash(self._scope, self._message.partition(), self.due_ms, n)


@cache
def tick_type(app: str, group: str, name: str) -> type[Tick]:
    """The class of what the function is given."""
    namespace = {"_scope": f"{app}\x00{group}\x00{tick_topic_name(name)}", "__module__": Tick.__module__}
    made = msgspec.defstruct("Tick", [], bases=(Tick,), namespace=namespace, frozen=True, gc=False, eq=False)
    return cast("type[Tick]", made)


def tick_topic_name(name: str) -> str:
    """The pseudo-topic of due times. No topic of Kafka has such a name."""
    return f"@every/{name}"
