"""Faults that a test orders in advance: `Faults`. Nothing fails by itself or by chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Faults"]


@dataclass(slots=True)
class _Fault:
    call: str
    error: BaseException
    after: bool
    where: str | None
    skip: int


class Faults:
    """The faults ordered and not yet met, met in the order in which they were ordered."""

    def __init__(self) -> None:
        self._ordered: list[_Fault] = []

    def order(
        self,
        call: str,
        error: BaseException,
        *,
        after: bool = False,
        where: str | None = None,
        skip: int = 0,
    ) -> None:
        """Let the next `call` (at `where`, or anywhere) raise `error`: before it does anything, or `after` it.

        `skip`: so many of these calls succeed first.
        """
        self._ordered.append(_Fault(call, error, after, where, skip))

    def left(self) -> list[str]:
        """The calls whose faults have not happened: a test ends by checking that there are none."""
        return [fault.call for fault in self._ordered]

    @contextmanager
    def at(self, call: str, *where: str) -> Iterator[None]:
        """Surrounds what `call` does. `where`: the places that it concerns."""
        fault = self._take(call, where)
        if fault is not None and not fault.after:
            raise fault.error
        yield
        if fault is not None:
            raise fault.error

    def _take(self, call: str, where: Sequence[str]) -> _Fault | None:
        for index, fault in enumerate(self._ordered):
            if fault.call != call or (fault.where is not None and fault.where not in where):
                continue
            if fault.skip:
                fault.skip -= 1
                return None
            return self._ordered.pop(index)
        return None
