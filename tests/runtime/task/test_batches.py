"""Batches: all at once, halved until the guilty record stands alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import OnError
from pipeline.runtime.task.record_errors import PoisonError
from tests.support.runtime.processor_rig import BAD, Rig, start

inputs = st.lists(st.sampled_from([1, 2, 3, BAD]), max_size=12)


def test_a_batch_handler_gets_all_records_at_once(rig: Rig) -> None:
    """The point of it: one call of numpy instead of a thousand."""
    start(rig, "stop", batch=True).process(1, 2, 3)
    assert rig.calls == [[1, 2, 3]]
    assert rig.rows == {"k": 6}
    assert {output[3] for output in rig.context.outputs} == {5_000}  # the latest of its records


def test_an_empty_batch_is_not_handed_over(rig: Rig) -> None:
    """A handler may rely on a first record."""
    start(rig, "stop", batch=True).process()
    assert rig.calls == []


def test_a_batch_is_halved_until_the_guilty_record_stands_alone(rig: Rig) -> None:
    """Everything before it is kept, nothing after it has run."""
    start(rig, "stop", batch=True)
    with pytest.raises(PoisonError) as caught:
        rig.process(1, 2, 3, 4, 5, BAD, 7, 8)
    assert caught.value.offset == 105
    assert rig.calls == [[1, 2, 3, 4, 5, BAD, 7, 8], [1, 2, 3, 4], [5, BAD, 7, 8], [5, BAD], [5], [BAD]]
    assert rig.rows == {"k": 15}
    assert [value for _, value in rig.sent] == [b"1", b"3", b"6", b"10", b"15"]


def test_a_record_that_cannot_be_decoded_is_found_by_halving(rig: Rig) -> None:
    """The handler never sees a batch with it."""
    start(rig, "skip", batch=True).process(1, b"{", 3)
    assert rig.calls == [[1], [3]]
    assert rig.rows == {"k": 4}


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("policy", ["stop", "skip", "dead_letter"])
@given(values=inputs)
def test_results_are_those_of_the_good_records(policy: OnError, batch: bool, values: list[int]) -> None:
    """However many are bad and wherever they stand: outputs and rows equal a fold over the others."""
    rig = start(Rig(), policy, batch=batch)
    good = values[: values.index(BAD)] if policy == "stop" and BAD in values else values
    if policy == "stop" and BAD in values:
        with pytest.raises(PoisonError) as caught:
            rig.process(*values)
        assert caught.value.offset == 100 + values.index(BAD)
    else:
        rig.process(*values)
    expected, total, letters = [], 0, []
    for value in good:
        if value == BAD:
            letters.append(b"13")
        else:
            total += value
            expected.append(str(total).encode())
    assert [value for topic, value in rig.sent if topic == "out"] == expected
    assert rig.rows.get("k", 0) == total
    sent_letters = [value for topic, value in rig.sent if topic == "app.main.dead-letters"]
    assert sent_letters == (letters if policy == "dead_letter" else [])
    assert rig.processor.rejected.skipped == (len(letters) if policy == "skip" else 0)
    assert rig.overlay.undo == []
