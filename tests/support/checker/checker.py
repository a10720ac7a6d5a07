"""Verifies the records of all apps on a Kafka: `Checker`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from tests.support.checker.journals import Journal, verify_begun
from tests.support.checker.loads import LOADS, Receipts
from tests.support.checker.log import LiveReader, Log, Place
from tests.support.checker.outputs import Promise, Results, verify_task

__all__ = ["Checker", "HistoryError"]

_PAUSE_S = 0.05


class HistoryError(AssertionError):
    """The committed records are not a history that the protocol allows."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("committed records break the protocol:\n" + "\n".join(problems))
        self.problems = list(problems)


class Checker:
    """Follows a log. `check` may be called at any time; it reads only new records and keeps the old ones.

    `promises`: the expected outputs of groups whose handlers trace them. Traced outputs without a promise are also
    verified. Between two calls, at most one incarnation of a topic may be created and deleted, and no reset may be
    truncated.
    """

    def __init__(self, log: Log, *promises: Promise) -> None:
        self._log = log
        self._promises = promises
        self._live = LiveReader(log)
        self._journals: dict[tuple[Place, str], Journal] = {}
        self._results = Results()
        self._receipts = Receipts()
        self._stale = True

    def check(self, *, settle_s: float = 0.0) -> None:
        """Read the new records and verify all. Raises HistoryError.

        `settle_s`: the maximum time until the markers of a decided transaction are in all of its partitions.
        """
        deadline = time.monotonic() + settle_s
        while problems := self._problems():
            if time.monotonic() >= deadline:
                raise HistoryError(problems)
            time.sleep(_PAUSE_S)

    def finish(self, fresh: Log, *, settle_s: float = 0.0) -> None:
        """`check` without running workers: also, no transaction is open, and a new reader sees the same records.

        Raises HistoryError.
        """
        self.check(settle_s=settle_s)
        deadline = time.monotonic() + settle_s
        while problems := self._live.open_ended():
            if time.monotonic() >= deadline:
                raise HistoryError(problems)
            time.sleep(_PAUSE_S)
            self.check(settle_s=settle_s)
        if problems := self._live.compare(fresh):
            raise HistoryError(problems)

    def _problems(self) -> list[str]:
        self._read()
        if not self._stale:
            return []
        problems = list(self._journal_problems()) or [
            *self._results.problems,
            *self._receipts.problems,
            *self._output_problems(),
        ]
        self._stale = bool(problems) or any(map(self._hidden, self._live.seen))
        return problems

    def _read(self) -> None:
        grown: list[Journal] = []
        for place, incarnation, records in self._live.poll():
            self._stale = True
            if place.topic.endswith(".journal"):
                journal = self._journals.setdefault(
                    (place, incarnation.topic_id), Journal(place, self._live.partitions[place.topic])
                )
                journal.add(records, incarnation.last.begin if incarnation.last is not None else 0)
                grown.append(journal)
            elif place.topic == LOADS:
                self._receipts.add(records, self._live.partitions)
            else:
                self._results.add(place, incarnation.topic_id, records)
        for journal in grown:  # the inputs are read as far as the journals now
            self._name_topics(journal)

    def _name_topics(self, journal: Journal) -> None:
        """Note which topics a truncated journal is about, before one of them is recreated: the current ones.

        If a position is beyond the end of its partition, all are of an earlier topic.
        """
        for topic, positions in journal.without_id().items():
            seen = {name: self._live.seen.get(journal.input(name)) for name in positions}
            ids = {
                found[-1].topic_id if found and positions[name] <= found[-1].next_offset else ""
                for name, found in seen.items()
            }
            if len(ids) == 1 and "" not in ids:
                journal.name_topic(topic, ids.pop())

    def _current(self) -> dict[str, list[Journal]]:
        """The current journals of each group."""
        found: dict[str, list[Journal]] = {}
        for place, incarnations in self._live.seen.items():
            if place.topic.endswith(".journal"):
                journal = self._journals.get((place, incarnations[-1].topic_id), Journal(place))
                found.setdefault(journal.group, []).append(journal)
        return found

    def _journal_problems(self) -> Iterator[str]:
        for journal in self._journals.values():
            incarnation = self._live.seen[journal.place][-1]
            if incarnation.last is not None:
                journal.verify_truncation(incarnation.last.begin)
            yield from journal.problems
        for journals in self._current().values():
            yield from verify_begun(journals, len(journals))

    def _output_problems(self) -> Iterator[str]:
        journals = self._current()
        for promise in self._all_promises():
            if promise.group not in journals and promise in self._results.outputs:
                yield f"{promise.output} holds outputs of {promise.topic}, but its group {promise.group} has no journal"
            topics = {promise.output, f"{promise.group}.dead-letters"}
            hidden = any(place.topic in topics and self._hidden(place) for place in self._live.seen)
            for journal in journals.get(promise.group, []):
                if self._deleted_unseen(journal):
                    continue
                for place in self._places(promise, journal):
                    inputs = self._live.seen.get(place, [])
                    yield from verify_task(
                        promise, journal, inputs, self._results, hidden=hidden, number=place.partition
                    )

    def _places(self, promise: Promise, journal: Journal) -> list[Place]:
        """The partitions of the promised topic that a task reads."""
        first = Place(promise.topic, journal.place.partition)
        others = [
            place
            for place in self._live.seen
            if place.topic == promise.topic and place != first and journal.name(place) is not None
        ]
        return [first, *others]

    def _hidden(self, place: Place) -> bool:
        last = self._live.seen[place][-1].last
        return last is not None and last.hidden

    def _deleted_unseen(self, journal: Journal) -> bool:
        """Whether dead letters or replays of the group were deleted before the checker saw them."""
        letters = (
            i for place, i in self._live.seen.items() if place.topic == f"{journal.group}.dead-letters"
        )
        if any(incarnations[0].first > 0 for incarnations in letters):
            return True
        for name, segments in journal.segments.items():
            if name.partition("/")[0] == f"{journal.group}.replays":
                found = self._live.seen.get(journal.input(name), [])
                seen = {incarnation.topic_id for incarnation in found}
                if any(each.end > (each.start or 0) and each.topic_id not in seen for each in segments):
                    return True
        return False

    def _all_promises(self) -> list[Promise]:
        named = {(p.group, p.topic, p.output) for p in self._promises}
        told = [p for p in self._results.outputs if (p.group, p.topic, p.output) not in named]
        return [*self._promises, *told]
