"""Outputs of a replay beside the live ones, which continue to grow meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.core.names import TopicPartition
from pipeline.drills.shadow_outputs import OutputComparison, compare_outputs
from pipeline.drills.shadow_spec import SOURCE_HEADER
from pipeline.ports import Output, Record
from pipeline.testing.memory_log import MemoryRecord

_LIVE, _SHADOW = "sums", "shadow-sums"


def _record(
    topic: str,
    offset: int,
    key: bytes | None,
    value: str | None,
    task: str = "",
    *,
    partition: int = 0,
    headers: Sequence[tuple[str, bytes | None]] = (),
) -> Record:
    own = [(SOURCE_HEADER, task.encode())] if task else []
    output = Output(topic, key, value.encode() if value is not None else None, 1_000, [*headers, *own])
    return MemoryRecord(TopicPartition(topic, partition), offset, output)


def _live(*values: str, key: bytes | None = b"k", start: int = 0) -> list[Record]:
    return [_record(_LIVE, start + n, key, value) for n, value in enumerate(values)]


def _shadow(*values: str, key: bytes | None = b"k", task: str = "main/0") -> list[Record]:
    return [_record(_SHADOW, n, key, value, task) for n, value in enumerate(values)]


def _compared(
    live: Sequence[Record],
    shadow: Sequence[Record],
    certain: int,
    *,
    whole_replay: bool = True,
    whole_topic: bool = True,
) -> OutputComparison:
    ends = {TopicPartition(_LIVE, 0): certain}
    return compare_outputs(live, shadow, ends, whole_replay=whole_replay, whole_topic=whole_topic)


def _is_equal(*arguments: object, **options: bool) -> bool:
    return not _compared(*arguments, **options).differences  # type: ignore[arg-type]


@pytest.mark.parametrize("replayed", [2, 3, 4])
def test_outputs_of_later_commits_may_be_missing_from_the_replay(replayed: int) -> None:
    """The live app continues, so its last outputs may be of entries after the end of the replay."""
    values = "1", "2", "3", "4"
    assert _is_equal(_live(*values), _shadow(*values[:replayed]), 2)


def test_an_output_that_is_certain_must_be_in_the_replay() -> None:
    """Otherwise a handler that sends less would pass."""
    (found,) = _compared(_live("1", "2", "3", "4"), _shadow("1"), 2).differences
    assert (found.number, found.live, found.shadow) == (2, (0, 1), None)


def test_an_output_that_the_live_app_has_not_is_found() -> None:
    """Otherwise a handler that sends more would pass."""
    (found,) = _compared(_live("1", "2"), _shadow("1", "2", "3"), 2).differences
    assert (found.number, found.live, found.shadow) == (3, None, (0, 2))
    (found,) = _compared([], _shadow("1", key=b"new"), 0).differences
    assert (found.key, found.live, found.shadow) == (b"new", None, (0, 0))


def test_the_first_different_output_of_a_key_is_found_with_both_places() -> None:
    """The report reads both records from there."""
    (found,) = _compared(_live("1", "2", "3", "4"), _shadow("1", "x", "y"), 3).differences
    assert (found.number, found.live, found.shadow) == (2, (0, 1), (0, 1))
    live, shadow = _live("2")[0], _shadow("x")[0]
    assert found.describe(live, shadow) == "output 2 of key k: live 2, replayed x"


def test_a_null_output_is_not_described_as_a_missing_one() -> None:
    """A handler that sends a tombstone instead of nothing is wrong in another way."""
    (found,) = _compared(_live(""), [_record(_SHADOW, 0, b"k", None, "main/0")], 1).differences
    null, one = _record(_SHADOW, 0, b"k", None, "main/0"), _live("1")[0]
    assert found.describe(one, null) == "output 1 of key k: live 1, replayed null value"
    assert found.describe(one, None) == "output 1 of key k: live 1, replayed no output"
    assert found._replace(key=None).describe(None, one).startswith("output 1 of the null key: live no output")


def test_outputs_differ_by_headers_and_partition_too() -> None:
    """A reader of the topic gets both, and a changed partition changes the order of a key."""
    made: list[tuple[str, bytes | None]] = [("made", b"x")]
    live = [_record(_LIVE, 0, b"k", "1", headers=made)]
    assert _is_equal(live, [_record(_SHADOW, 0, b"k", "1", "main/0", headers=made)], 1)
    for headers in ([], [("made", b"y")], [("made", None)], [("other", b"x")], made * 2):
        assert not _is_equal(live, [_record(_SHADOW, 0, b"k", "1", "main/0", headers=headers)], 1), headers
    assert not _is_equal(live, [_record(_SHADOW, 0, b"k", "1", "main/0", partition=1, headers=made)], 1)


def test_an_order_within_a_key_is_compared_only_for_one_task() -> None:
    """Several tasks that write one key do so in any order, in the live app, too."""
    live, swapped = _live("1", "2"), _shadow("2", "1")
    assert not _is_equal(live, swapped, 2)
    mixed = [*_shadow("2"), _record(_SHADOW, 1, b"k", "1", "main/1")]
    result = _compared(live, mixed, 2)
    assert (result.differences, result.unordered) == ([], 1)
    wrong = [*_shadow("2"), _record(_SHADOW, 1, b"k", "x", "main/1")]
    assert len(_compared(live, wrong, 2).differences) == 1
    assert _is_equal(_live("1", "2", key=None), _shadow("2", "1", key=None), 2)


def test_a_replay_from_a_later_entry_is_compared_with_the_last_outputs() -> None:
    """The outputs before its start are not of the replay, and where they end is not recorded."""
    live = _live("1", "2", "3", "4", "5")
    assert _is_equal(live, _shadow("3", "4"), 4, whole_replay=False)
    assert _is_equal(live, _shadow("3", "4", "5"), 4, whole_replay=False)
    assert _is_equal(live, _shadow(), 4, whole_replay=False)
    assert not _is_equal(live, _shadow("2", "3"), 4, whole_replay=False)
    (found,) = _compared(live, _shadow("3", "x"), 4, whole_replay=False).differences
    assert (found.live, found.shadow) == ((0, 3), (0, 1))


def test_outputs_that_retention_has_deleted_are_not_missed() -> None:
    """The replay makes them again, and there is nothing to compare them with."""
    kept = _live("3", "4", start=2)
    assert _is_equal(kept, _shadow("1", "2", "3", "4"), 4, whole_topic=False)
    assert not _is_equal(kept, _shadow("1", "2", "x", "4"), 4, whole_topic=False)
    assert _is_equal([], _shadow("1"), 0, whole_topic=False)


def test_the_trace_context_of_an_output_is_not_compared() -> None:
    """The live app may add it to each output, and a replay has no trace."""
    live = [_record(_LIVE, 0, b"k", "1", headers=[("made", b"x"), ("traceparent", b"00-1-1-01")])]
    assert _is_equal(live, [_record(_SHADOW, 0, b"k", "1", "main/0", headers=[("made", b"x")])], 1)
