"""What a call of an async handler acts through: `AsyncContext`, and the `Row` of its event's key.

Each attempt at a record has a context of its own, with a write buffer. The runtime moves the buffers into tables and
outputs, in the order of the records. Processing thread only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from pipeline.api.context import OutputContext, not_a_table_of_the_group
from pipeline.api.declarations import DeclaredTable, Table
from pipeline.api.event import Event
from pipeline.api.table import RuntimeTable
from pipeline.errors import ConfigError, HandlerError

__all__ = ["AsyncContext", "Row", "Written", "ended"]

K = TypeVar("K")
V = TypeVar("V")

# Bytes and decoded value of a written row, as `RuntimeTable.admit` returns them; two Nones delete it.
Written = dict[RuntimeTable[Any, Any], tuple[bytes | None, Any]]
_MISSING: Any = object()


class Row(Generic[V]):
    """The row of a call's key in a table. `ctx.row(table, event)` gives it; valid until the call ends.

    What is written counts when the call returns. Later calls of the same key see it.

    Example:
        ```python
        row = ctx.row(totals, event)
        row.value = row.get(0) + event.value.amount
        ```
    """

    __slots__ = ("_call", "_table")

    if TYPE_CHECKING:  # set by AsyncContext.row
        _call: AsyncContext
        _table: RuntimeTable[Any, V]

    @property
    def value(self) -> V | None:
        """The value; None if there is no row. Assigning None deletes the row.

        Raises:
            TypeError: The value has a wrong type, or the record has no key.
            ValueError: The value cannot be encoded.
            OverflowError: A number is too large for its encoding.
            HandlerError: The call has ended.
        """
        return cast("V | None", self._call._read(self._table, None))  # noqa: SLF001 - of this module

    @value.setter
    def value(self, value: V | None, /) -> None:
        self._call._write(self._table, value)  # noqa: SLF001 - of this module

    def get(self, default: V, /) -> V:
        """The value of the row.

        Args:
            default: What to return if there is no row.

        Returns:
            The value, or `default`.

        Raises:
            TypeError: The record has no key.
            HandlerError: The call has ended.

        Example:
            ```python
            count = ctx.row(counts, event).get(0)
            ```
        """
        found: V = self._call._read(self._table, default)  # noqa: SLF001 - of this module
        return found


class AsyncContext(OutputContext):
    """What an async handler acts through: the rows of its event's key, outputs and resources.

    Each call has its own. What it writes and sends belongs to its record once the handler returns, and is dropped if it
    raises or times out. After the call, every use of rows and `send` raises.

    Example:
        ```python
        @scoring.async_handler(orders, timeout_s=5.0, retries=3)
        async def score(event: Event[str, Order], ctx: AsyncContext) -> None:
            row = ctx.row(last_score, event)
            row.value = await ctx.resource(model).score(event.value, event.effect_key())
            ctx.send(scores, event.key, row.get(0.0))
        ```
    """

    __slots__ = ("_earlier", "_event", "_key", "_tables", "_written")

    if TYPE_CHECKING:  # set by the runtime's subclass
        _earlier: Mapping[Any, AsyncContext]  # by key: the last ended call that is not in the tables yet
        _event: Event[Any, Any] | None
        _key: Any
        _tables: Mapping[DeclaredTable[Any, Any], RuntimeTable[Any, Any]]
        _written: Written | None

    def row(self, table: Table[K, V], event: Event[K, Any], /) -> Row[V]:
        """The row of the event's key in a table of this group.

        Args:
            table: What `app.table(...)` or `group.table(...)` returned.
            event: The event of this call. Its key is the row's key.

        Returns:
            The row, valid until the call ends.

        Raises:
            ConfigError: The table belongs to another group, it is not a table, or the event is not that of the call.
                This stops the task, whatever `on_error` says.

        Example:
            ```python
            row = ctx.row(totals, event)
            row.value = row.get(0) + 1
            ```
        """
        if event is not self._event:
            raise ConfigError(
                f"ctx.row takes the event of its call, not {event!r}",
                hint="an async handler can use only the rows of its own key: pass the event that it was given",
            )
        try:
            found = self._tables[table]  # type: ignore[index]  # any other object is a KeyError
        except (KeyError, TypeError):
            raise not_a_table_of_the_group(table, "ctx.row") from None
        row: Row[V] = Row()
        row._call = self  # noqa: SLF001 - of this module
        row._table = found  # noqa: SLF001
        return row

    def _read(self, table: RuntimeTable[Any, Any], default: Any) -> Any:
        """A row as the call sees it: its own write, that of an earlier call of its key, or the table."""
        if self._outputs is _ENDED:
            ended()
        written = self._written
        if written is None or table not in written:
            earlier = self._earlier.get(self._key)
            written = earlier._written if earlier is not None else None  # noqa: SLF001 - of this class
            if written is None or table not in written:
                return table.get(self._key, default)
        data, decoded = written[table]
        return default if data is None else table.admitted(data, decoded)

    def _write(self, table: RuntimeTable[Any, Any], value: Any) -> None:
        if self._outputs is _ENDED:
            ended()
        admitted = table.admit(self._key, value)
        if self._written is None:
            self._written = {table: admitted}
        else:
            self._written[table] = admitted

    def _end(self) -> list[Any]:
        """Returns the outputs. From now on, rows and `send` raise."""
        outputs, self._outputs = self._outputs, _ENDED
        return outputs


def ended() -> NoReturn:
    """Raise the error for what a call does after its end."""
    raise HandlerError(
        "an async handler used its context after its call had ended, so the write or output belongs to no record",
        hint="in the handler, await every asyncio task that writes or sends",
    )


class _Ended(list[Any]):
    """The outputs of a call that has ended. So `send` needs no check of its own."""

    def append(self, _output: Any) -> NoReturn:
        ended()


_ENDED = _Ended()
