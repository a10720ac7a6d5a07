"""The contents of the topics of the random histories, across deletions and recreations: `Kept`, `read_all`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from pipeline.core.dead_letters import read_letter
from pipeline.testing import TestDriver
from tests.support.runtime.random_app import RandomApp, Seen, Sum

__all__ = ["Kept", "Topics", "topics_of"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """The values of one topic by key. `read`: reads the current contents of the topic."""

    def __init__(self, read: Callable[[], Mapping[K, list[V]]]) -> None:
        self.now = read
        self._gone: dict[K, list[V]] = {}
        self._forgotten: Counter[K] = Counter()

    def since(self) -> dict[K, list[V]]:
        """All values since `forget`, including those that were deleted with the topic."""
        return {
            key: values for key, found in self._all().items() if (values := found[self._forgotten[key] :])
        }

    def before_deletion(self) -> None:
        """Keep the values before the topic is deleted."""
        self._gone = self._all()

    def forget(self) -> None:
        """Start again without values, for a new history."""
        self._forgotten = Counter({key: len(values) for key, values in self._all().items()})

    def _all(self) -> dict[K, list[V]]:
        now = self.now()
        return {key: [*self._gone.get(key, ()), *now.get(key, ())] for key in {**self._gone, **now}}


class Topics(NamedTuple):
    """`letters`: offsets of the inputs, by partition."""

    sums: Kept[str, Sum]
    letters: Kept[int, int]
    reports: Kept[str, Seen | None]


def topics_of(driver: TestDriver, made: Callable[[], RandomApp]) -> Topics:
    """The topics of the app, in any version."""

    def by_key(topic: Callable[[RandomApp], Any]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = defaultdict(list)
        for event in driver.outputs(topic(made())):
            found[event.key].append(event.value)
        return found

    def letters() -> dict[int, list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for letter in driver.dead_letters():
            read = read_letter(letter.headers)
            assert read is not None
            found[read[0].origin.partition].append(read[0].origin.offset)
        return found

    return Topics(
        Kept(lambda: by_key(lambda app: app.sums)),
        Kept(letters),
        Kept(lambda: by_key(lambda app: app.reports)),
    )
