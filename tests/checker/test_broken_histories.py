"""Histories that are broken by hand: the checker rejects each for its own reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.checker import HistoryError
from tests.support.checker.log import Place
from tests.support.histories import INPUT, JOURNAL, OUTPUT, History, check


def forked(history: History) -> None:
    """The end of the journal was not seen: 5 to 7 are written once more, over the same inputs."""
    history.step(4)
    history.step(5)
    history.seq, history.chain = 4, history.places[4][1]
    for offset in range(2, 5):
        history.output(offset, b"a", b"%d" % offset)
        history.position = offset + 1
        history.entry("commit", nonce=b"again-%d" % offset)


def lost_output(history: History) -> None:
    del history.log.records[OUTPUT][1]


def doubled_output(history: History) -> None:
    history.output(2, b"a", b"6")


def swapped_outputs(history: History) -> None:
    records = history.log.records[OUTPUT]
    one, other = records[0], records[1]
    records[:2] = [other._replace(offset=one.offset), one._replace(offset=other.offset)]


def output_of_nothing(history: History) -> None:
    history.output(4, b"a", b"6")


def output_of_an_aborted_input(history: History) -> None:
    history.log.skip(INPUT)
    history.output(4, b"a", b"6")
    history.position = 5
    history.entry("commit")


def output_beyond_the_position(history: History) -> None:
    history.output(history.input(4), b"a", b"10")


def output_in_two_partitions(history: History) -> None:
    history.log.partitions["other"] = 2
    history.log.append(Place("other", 0), b"k", b"", [("made-from", b"app.main another 0 1")])
    history.log.append(Place("other", 1), b"k", b"", [("made-from", b"app.main another 0 1")])


def lost_row(history: History) -> None:
    offset = history.input(4)
    history.output(offset, b"a", b"10")
    history.position = offset + 1
    history.entry("commit")


def another_row(history: History) -> None:
    history.entry("commit", delta={b"TTTTb": b"1"})


def row_of_before_a_reset(history: History) -> None:
    """The reset forgets the table; what is written on top of the old rows is a mixture of two histories."""
    history.position = 3
    history.entry("reset")
    history.entry("acquire")
    history.step(1, b"b")
    history.entry("commit", delta={b"TTTTa": b"6"})


def skipped_seq(history: History) -> None:
    history.entry("commit", seq=history.seq + 2)


def broken_chain(history: History) -> None:
    history.entry("commit", previous=bytes(range(16)))


def falling_position(history: History) -> None:
    history.position = 2
    history.entry("commit")


def replaced_input(history: History) -> None:
    """Only replays may be another topic of the same name."""
    identity = ["cluster", "p", {"numbers": ["id-2", 1, False, True]}, {}, "t"]
    history.position = 0
    history.entry("acquire", identity=identity)


def vanished_position(history: History) -> None:
    history.entry("commit", positions={})


def second_genesis(history: History) -> None:
    history.entry("genesis", positions={"numbers": history.position})


def no_genesis(history: History) -> None:
    history.log.records[JOURNAL] = []
    history.entry("acquire", seq=1, previous=bytes(16), journal_bytes=0)


def genesis_of_a_part(history: History) -> None:
    history.log.partitions[JOURNAL.topic] = 2


def repeated_nonce(history: History) -> None:
    history.entry("commit", nonce=b"nonce-2-2")


def foreign_commit(history: History) -> None:
    """A zombie commits behind the acquire entry of its successor."""
    history.entry("acquire", owner="successor")
    history.entry("commit", owner="w")


def commit_without_an_acquire(history: History) -> None:
    history.entry("release")
    history.entry("commit")


def going_on_behind_a_retirement(history: History) -> None:
    history.entry("retire")
    history.entry("acquire")


def torn_transaction(history: History) -> None:
    """Two entries in one transaction: the first has no marker behind it."""
    history.entry("commit", marker=False)
    history.entry("commit")


def half_an_entry(history: History) -> None:
    history.entry("commit", chunks=3)
    del history.log.records[JOURNAL][-1]


def lost_chunk(history: History) -> None:
    history.entry("commit", chunks=3)
    del history.log.records[JOURNAL][-2]


def flipped_bit(history: History) -> None:
    last = history.log.records[JOURNAL][-1]
    data = bytearray(last.value or b"")
    data[-1] ^= 1
    history.log.records[JOURNAL][-1] = last._replace(value=bytes(data))


def foreign_record(history: History) -> None:
    history.log.append(JOURNAL, None, b"something else")


def lost_tail(history: History) -> None:
    """Kafka loses the last committed entry; its output stays."""
    del history.log.records[JOURNAL][-1]


def wrong_bytes(history: History) -> None:
    history.entry("commit", journal_bytes=1)


def wrong_checkpoint(history: History) -> None:
    history.entry("checkpoint", extra=history.kept(2))
    history.entry("commit", checkpoint=0)


def checkpoint_of_another_history(history: History) -> None:
    history.places[3] = history.places[3][0], bytes(16)
    history.entry("checkpoint", extra=history.kept(3))


def truncated_without_a_checkpoint(history: History) -> None:
    history.log.truncate(JOURNAL, history.places[3][0])


def truncated_too_far(history: History) -> None:
    history.entry("checkpoint", extra=history.kept(4, 3))
    history.step(4)
    history.log.truncate(JOURNAL, history.places[4][0])


def gap_in_the_middle(history: History) -> None:
    del history.log.records[JOURNAL][2]


def open_transaction(history: History) -> None:
    history.log.open_at[OUTPUT] = history.log.ends[OUTPUT]
    history.log.skip(OUTPUT)


BROKEN: list[tuple[Callable[[History], None], str]] = [
    (forked, "entry 5 at 14 follows entry 7 at 12"),
    (lost_output, "inputs 1 are below the position and have no output"),
    (doubled_output, "inputs 2 have more outputs than they should"),
    (swapped_outputs, "not in their order"),
    (output_of_nothing, "inputs 4 are at or beyond the position 3 and have an output"),
    (output_of_an_aborted_input, "inputs 4 do not exist or were aborted, and have an output"),
    (output_beyond_the_position, "inputs 3 are at or beyond the position 3 and have an output"),
    (output_in_two_partitions, "key b'k' is in partition 0, too"),
    (lost_row, "no table of the 1 in the journal holds the last values of 1 keys"),
    (another_row, "no table of the 1 in the journal"),
    (row_of_before_a_reset, "no table of the 1 in the journal"),
    (skipped_seq, "entry 7 at 10 follows entry 5 at 8"),
    (broken_chain, "entry 6 at 10 does not continue the entry before it"),
    (falling_position, "entry 6 at 10: numbers falls from 3 to 2"),
    (replaced_input, "entry 6 at 10: numbers falls from 3 to 0"),
    (vanished_position, "numbers falls from 3 to None"),
    (second_genesis, "entry 6 at 10 is a genesis entry"),
    (no_genesis, "entry 1 at 10 is a acquire entry"),
    (genesis_of_a_part, r"only partitions \[0\] of 2 have begun"),
    (repeated_nonce, "entry 6 at 10 has the nonce of an entry before it"),
    (foreign_commit, "a commit entry of 'w', but 'successor' owns the task"),
    (commit_without_an_acquire, "a commit entry of 'w' follows a release entry"),
    (going_on_behind_a_retirement, "a acquire entry of 'w' follows a retire entry"),
    (torn_transaction, "entry 7 at 11 is in one transaction with the entry before it"),
    (half_an_entry, "the last entry is not whole"),
    (lost_chunk, "chunk 2 of entry 6 does not follow what is before it"),
    (flipped_bit, "the checksum of chunk 0 of entry 5 is wrong"),
    (foreign_record, "the record is not a chunk of an entry"),
    (lost_tail, "inputs 2 are at or beyond the position 2 and have an output"),
    (wrong_bytes, "entry 6 at 10 counts 1 bytes before it"),
    (wrong_checkpoint, "names a checkpoint at 0, the last one is at 10"),
    (checkpoint_of_another_history, "keeps a checkpoint of entry 3 at 4, which is another one"),
    (truncated_without_a_checkpoint, "it was truncated to 4, above the oldest checkpoint's entry at -1"),
    (truncated_too_far, "it was truncated to 6, above the oldest checkpoint's entry at 4"),
    (gap_in_the_middle, "entry 4 at 6 follows entry 2 at 2"),
    (open_transaction, r"sums\[0\]: the last stable offset is 6, the high watermark 7"),
]


@pytest.mark.parametrize(("broken", "said"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_a_broken_history_is_rejected(broken: Callable[[History], None], said: str) -> None:
    """One rule of the protocol is broken in a history that is correct otherwise."""
    history = History.begun(inputs=3)
    check(history)
    broken(history)
    with pytest.raises(HistoryError, match=said):
        check(history)
