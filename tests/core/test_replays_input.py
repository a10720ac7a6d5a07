"""What an acquire entry says about the topic of replays: every row of `core.dead_letters.acquired_identity`."""

from __future__ import annotations

import pytest

from pipeline.core.dead_letters import acquired_identity
from pipeline.core.journal_format import (
    NO_CHAIN,
    Entry,
    EntryKind,
    Identity,
    InputFacts,
    assemble,
    encode_entry,
)
from pipeline.core.position import AppliedPosition
from pipeline.core.recovery import check_identity
from pipeline.errors import ConfigError, FatalTaskError

TOPIC = "app.main.replays"
IN = InputFacts("id-1", 4)
OLD, NEW = InputFacts("old", 4), InputFacts("new", 4)
ABSENT = InputFacts("old", 4, absent=True)
REPLACED = InputFacts("new", 4, replaced=True)


def identity(replays: InputFacts | None) -> Identity:
    inputs = {"in": IN} if replays is None else {"in": IN, TOPIC: replays}
    return Identity("cluster", "murmur2_random", inputs, {}, "topology")


def position(replays: InputFacts | None, at: int | None) -> AppliedPosition:
    positions = {"in": 7} if at is None else {"in": 7, TOPIC: at}
    return AppliedPosition(2, 4, 5, bytes(16), positions, identity(replays))


@pytest.mark.parametrize(
    ("before", "at", "now", "end", "expected"),
    [
        (OLD, 5, OLD, 9, OLD),
        (None, None, NEW, 9, NEW),
        (OLD, 5, None, 9, ABSENT),
        (ABSENT, 5, None, 9, ABSENT),
        (ABSENT, 5, OLD, 9, OLD),
        (ABSENT, 5, NEW, 9, REPLACED),
        (None, 5, NEW, 4, REPLACED),
        (None, 5, NEW, 5, NEW),
        (REPLACED, 1, NEW, 9, NEW),
    ],
    ids=["1 read", "1 never seen", "2", "3", "4", "5", "6 ends before", "6 may be the same", "after 5"],
)
def test_an_acquire_entry_says_what_became_of_the_topic(
    before: InputFacts | None, at: int | None, now: InputFacts | None, end: int, expected: InputFacts
) -> None:
    """Offsets of a deleted topic must not skip records of the topic that replaced it."""
    found = position(before, at)
    check_identity("task", found.identity, identity(now))
    acquired = acquired_identity(found, identity(now), lambda _topic, offset: end < offset)
    assert acquired.inputs == {"in": IN, TOPIC: expected}


def test_another_topic_is_refused_after_an_owner_that_read_the_old_one() -> None:
    """That owner may have read records of the new topic by old offsets, so it is not known where to begin."""
    with pytest.raises(ConfigError, match="was deleted and created again"):
        check_identity("task", identity(OLD), identity(NEW))


@pytest.mark.parametrize(
    ("kind", "replays", "refused"),
    [
        (EntryKind.ACQUIRE, REPLACED, False),
        (EntryKind.ACQUIRE, NEW, True),
        (EntryKind.COMMIT, REPLACED, True),
    ],
)
def test_a_position_falls_only_where_the_entry_says_replaced(
    kind: EntryKind, replays: InputFacts, refused: bool
) -> None:
    """Everywhere else a position that falls is damage."""
    first = Entry(EntryKind.GENESIS, 1, "", b"", {"in": 7, TOPIC: 5}, identity=identity(OLD))
    second = Entry(kind, 2, "w", b"n", {"in": 7, TOPIC: 0}, identity=identity(replays))
    chunks, chain = encode_entry(first, NO_CHAIN, 1024)
    journal = list(enumerate([*chunks, *encode_entry(second, chain, 1024)[0]]))
    if refused:
        with pytest.raises(FatalTaskError, match=f"the position of {TOPIC} falls from 5 to 0"):
            list(assemble(journal, "journal"))
    else:
        assert [entry.entry.seq for entry in assemble(journal, "journal")] == [1, 2]
