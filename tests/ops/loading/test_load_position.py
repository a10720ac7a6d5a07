"""The durable position of a load, and the decisions taken from it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.core.recovery import CommitOutcome
from pipeline.errors import CorruptStateError, InputError, InvariantError
from pipeline.ops.loading.decisions import (
    LoadRequest,
    LoadStep,
    SequencePosition,
    advance,
    check_prefix,
    judge,
    plan,
)
from pipeline.ops.loading.finished_files import NO_FINISHED_FILES
from pipeline.ops.loading.formats.lines import ReadPosition
from pipeline.ops.loading.positions import LoadOptions, LoadPosition, decode_position, encode_position

OPTIONS = LoadOptions(format="csv", key="k")
REQUEST = LoadRequest(name="n", topic="t", topic_id="id-1", options=OPTIONS)
POSITION = LoadPosition(
    name="n",
    run=1,
    seq=3,
    nonce="abc",
    topic="t",
    topic_id="id-1",
    file="f.csv",
    options=OPTIONS,
    offset=100,
    line=10,
    records=9,
    skipped=0,
    prefix_hash="hash",
    finished=False,
    text_columns=("a",),
)


def _changed(**fields: Any) -> LoadPosition:
    return msgspec.structs.replace(POSITION, **fields)


def _place(mark: ReadPosition) -> SequencePosition:
    return SequencePosition("f.csv", mark, NO_FINISHED_FILES, ("a",))


def _asked(**fields: Any) -> LoadRequest:
    return msgspec.structs.replace(REQUEST, **fields)


def test_a_position_survives_the_way_through_its_durable_form() -> None:
    """The next loader continues from the position that was written."""
    assert decode_position(encode_position(POSITION), "n") == POSITION


def test_positions_of_other_loads_are_skipped_even_in_another_version() -> None:
    """All loads share one topic: another's future must not stop this one."""
    data = encode_position(POSITION).replace(b'"version":2', b'"version":9')
    assert decode_position(data, "other") is None


def test_a_position_of_another_version_is_refused() -> None:
    """Guessing at an unknown format would lose or double records."""
    with pytest.raises(CorruptStateError, match="version 9"):
        decode_position(encode_position(POSITION).replace(b'"version":2', b'"version":9'), "n")


def test_every_changed_byte_of_the_body_is_noticed() -> None:
    """A flipped digit in the offset would skip or repeat rows."""
    data = encode_position(POSITION)
    begin = data.index(b'"load":') + len(b'"load":')
    for index in range(begin, len(data) - 1):
        broken = data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]
        with pytest.raises(CorruptStateError):
            decode_position(broken, "n")


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"null", b'{"version":2}'])
def test_a_record_that_is_no_position_is_refused(data: bytes) -> None:
    """It might have been ours."""
    with pytest.raises(CorruptStateError, match="cannot be continued"):
        decode_position(data, "n")


@pytest.mark.parametrize(
    "fields", [{"offset": -1}, {"records": -1}, {"seq": 0}, {"run": 0}, {"nonce": ""}, {"line": 101}]
)
def test_an_impossible_position_is_never_written(fields: dict[str, Any]) -> None:
    """A bug must stop before it becomes durable."""
    with pytest.raises(InvariantError):
        encode_position(_changed(**fields))


@pytest.mark.parametrize(
    ("previous", "request_", "expected"),
    [
        (None, REQUEST, None),
        (None, _asked(restart=True), None),
        (POSITION, _asked(restart=True), None),
        (_changed(topic="other"), _asked(restart=True), None),
        (POSITION, REQUEST, POSITION),
        (_changed(finished=True), REQUEST, _changed(finished=True)),
        (_changed(file="moved/f.csv"), REQUEST, _changed(file="moved/f.csv")),
    ],
)
def test_plan_starts_or_continues(
    previous: LoadPosition | None, request_: LoadRequest, expected: LoadPosition | None
) -> None:
    """One row each of the table in the module."""
    assert plan(previous, request_) == expected


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (_asked(topic="u"), "it loads into topic 't', not 'u'"),
        (_asked(topic_id="id-2"), "deleted and created again"),
        (_asked(options=LoadOptions(format="jsonl", key="k")), "--format 'csv', not 'jsonl'"),
        (_asked(options=LoadOptions(format="csv")), r"--key 'k', not \(none\)"),
        (_asked(options=LoadOptions(format="csv", key="k", id="i")), "--id"),
        (_asked(options=LoadOptions(format="csv", key="k", timestamp="x")), "--timestamp"),
        (_asked(options=LoadOptions(format="csv", key="k", null=("NA",))), r"--null \(none\), not 'NA'"),
        (_asked(options=LoadOptions(format="csv", key="k", text=("a",))), "--text"),
    ],
)
def test_plan_refuses_and_says_what_differs(request_: LoadRequest, what: str) -> None:
    """Half a load read one way and half another is no load."""
    with pytest.raises(InputError, match=what):
        plan(POSITION, request_)


def test_a_changed_beginning_is_refused_and_the_same_one_is_not() -> None:
    """The rows behind a changed beginning are not the rows that are missing."""
    check_prefix(POSITION, ReadPosition(100, 10, "hash"))
    with pytest.raises(InputError, match="60 bytes, but 100 were loaded: it was truncated"):
        check_prefix(POSITION, ReadPosition(60, 10, "other"))
    with pytest.raises(InputError, match="changed within the part that was loaded"):
        check_prefix(POSITION, ReadPosition(100, 10, "other"))


@pytest.mark.parametrize(
    ("previous", "found", "outcome"),
    [
        (None, None, CommitOutcome.ABORTED),
        (POSITION, POSITION, CommitOutcome.ABORTED),
        (POSITION, _changed(seq=4, nonce="mine"), CommitOutcome.COMMITTED),
        (None, _changed(seq=1, nonce="mine"), CommitOutcome.COMMITTED),
        (POSITION, _changed(seq=4, nonce="theirs"), CommitOutcome.SUPERSEDED),
        (POSITION, _changed(seq=2, nonce="older"), CommitOutcome.SUPERSEDED),
        (POSITION, None, CommitOutcome.SUPERSEDED),
        (None, POSITION, CommitOutcome.SUPERSEDED),
    ],
)
def test_judge(previous: LoadPosition | None, found: LoadPosition | None, outcome: CommitOutcome) -> None:
    """A wrong answer loses or doubles a whole transaction."""
    assert judge(previous, _changed(seq=4, nonce="mine"), found) is outcome


def test_advance_counts_on_within_a_run_and_afresh_in_the_next() -> None:
    """`seq` counts transactions in all runs of a name; `records` counts those of this run."""
    step = LoadStep(5, 1, _place(ReadPosition(150, 16, "next")), finished=True)
    same = advance(POSITION, REQUEST, 1, step, "m")
    assert (same.seq, same.records, same.skipped, same.offset, same.finished) == (4, 14, 1, 150, True)
    again = advance(POSITION, REQUEST, 2, step, "m")
    assert (again.seq, again.records, again.run) == (4, 5, 2)
    assert advance(None, REQUEST, 1, step, "m").seq == 1


def test_a_position_never_goes_back() -> None:
    """Positions that fall would load rows twice."""
    with pytest.raises(InvariantError, match="the position fell from byte 100"):
        advance(POSITION, REQUEST, 1, LoadStep(1, 0, _place(ReadPosition(99, 9, "x")), False), "m")
