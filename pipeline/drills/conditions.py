"""Abort conditions: `NAME OP NUMBER`, several of them joined by `or`. Pure.

lag > 100000
failed_tasks > 0 or elapsed_s > 120
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.suggestions import did_you_mean
from pipeline.errors import InputError

__all__ = ["MEASURES", "Condition", "parse_conditions"]

MEASURES: Mapping[str, str] = {
    "lag": "input records that are not processed, of all tasks",
    "failed_tasks": "tasks that have failed",
    "live_tasks": "tasks that are live",
    "unaffected_pause_s": "the longest time without a commit of a task that the fault should not affect",
    "elapsed_s": "seconds since the fault",
    "dead_letters": "open dead letters",
}
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}
_FORM = re.compile(r"(\w+)\s*(>=|<=|==|>|<)\s*([0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison."""

    measure: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.measure} {self.sign} {self.limit:g}"

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether it is true. A value that is not known yet makes it false."""
        return self.measure in values and _OPERATORS[self.sign](values[self.measure], self.limit)


def parse_conditions(text: str) -> Sequence[Condition]:
    """The comparisons of an expression. Raises InputError."""
    found = []
    for part in re.split(r"\bor\b", text):
        match = _FORM.fullmatch(part.strip())
        if match is None:
            raise InputError(
                f"the abort condition {part.strip()!r} cannot be understood",
                hint="write NAME > NUMBER, as in --abort-if 'lag > 100000 or failed_tasks > 0'",
            )
        measure, sign, limit = match.groups()
        if measure not in MEASURES:
            raise InputError(
                f"there is no measure {measure!r}{did_you_mean(measure, list(MEASURES))}",
                hint=f"the measures are {', '.join(MEASURES)}",
            )
        found.append(Condition(measure, sign, float(limit)))
    return found
