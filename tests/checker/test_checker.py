"""The checker itself: correct histories pass, and it notices what readers, loads and duplicates get wrong."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest

from tests.support import checker as package
from tests.support.checker import LOADS, Checker, HistoryError, Promise
from tests.support.checker.log import Place, Record
from tests.support.histories import JOURNAL, OUTPUT, PROMISE, History, WrittenLog, check

IDS = Promise("app.main", "numbers", "sums", ids=True)


def test_a_history_of_every_kind_of_entry_passes() -> None:
    """What is right must not be rejected: takeover, checkpoint, release, reset, chunks, retirement and revival."""
    history = History.begun(inputs=3)
    history.entry("acquire", owner="v")
    history.entry("checkpoint", owner="v", extra=history.kept(3, 2))
    history.entry("release", owner="v")
    history.entry("retire", owner="operator")
    history.entry("release", owner="operator")
    history.entry("acquire", chunks=3)
    history.step(7, b"b")
    check(history)
    history.position = 2
    history.entry("reset", owner="reset")
    history.entry("acquire")
    history.sums.clear()
    for offset, value, key in ((2, 3, b"a"), (3, 7, b"b")):
        result = history.sum(value, key)
        history.output(offset, key, result)
        history.position = offset + 1
        history.entry("commit", delta={b"TTTT" + key: result})
    check(history)


def test_what_was_truncated_is_remembered_by_a_live_checker() -> None:
    """A checkpoint makes the beginning superfluous; outputs of before must not look like too many."""
    history = History.begun(inputs=4)
    live = Checker(history.log, PROMISE)
    live.check()
    history.entry("checkpoint", extra=history.kept(5))
    history.log.truncate(JOURNAL, history.places[5][0])
    history.step(9)
    live.check()
    check(history)


def recreated_after_truncation() -> tuple[History, Checker]:
    """Every entry that has the input's id was truncated before the checker read it; then the input was recreated."""
    history = History.begun(inputs=4)
    history.entry("checkpoint", extra=history.kept(5))
    history.log.truncate(JOURNAL, history.places[5][0])
    live = Checker(history.log, PROMISE)
    live.check()
    history.log.recreate("numbers", "id-2")
    live.check()
    return history, live


def test_a_truncated_journal_is_about_the_topics_of_its_time() -> None:
    """Outputs of the input's records must not look like too many after the input was recreated."""
    history, live = recreated_after_truncation()
    history.position = 0
    history.entry("reset", identity=["cluster", "p", {"numbers": ["id-2", 1]}, {}, "t"])
    live.check()
    history.entry("acquire")
    history.sums.clear()
    history.step(5)
    live.finish(history.log)


def test_an_output_of_a_topic_of_that_time_is_still_counted() -> None:
    """Without the id of the input, a checker could only accept any number of outputs."""
    history, live = recreated_after_truncation()
    history.output(3, b"a", b"10")
    with pytest.raises(HistoryError, match="inputs 3 have more outputs than they should"):
        live.check()


def test_a_position_beyond_the_end_is_of_an_earlier_topic() -> None:
    """The checker has not read the replays in that topic, so it does not know how many outputs are correct."""
    history = History.begun()
    history.input(1)
    history.letter(0)
    history.position = 1
    history.entry("commit")
    history.replay(0)
    history.output(0, b"a", b"1")
    history.replayed = 2
    history.entry("commit")
    history.entry("checkpoint", extra=history.kept(4))
    history.log.truncate(JOURNAL, history.places[4][0])
    check(history, IDS)
    history.log.recreate("app.main.replays", "id-2")
    check(history, IDS)


def test_duplicates_and_letters_and_replays_are_accounted_for() -> None:
    """An input has an output, or a letter, or neither when its id was handled; a replay may have one more."""
    history = History.begun()
    for number, event_id in enumerate((b"1", b"1", b"2", b"2")):
        history.input(number, event_id=event_id)
    history.output(0, b"a", b"0")
    history.letter(2)  # so that its duplicate is handled
    history.output(3, b"a", b"3")
    history.position = 4
    history.entry("commit")
    check(history, IDS)
    history.replay(2)
    history.output(2, b"a", b"2")
    history.replayed = 2
    history.entry("commit")
    check(history, IDS)


def test_replays_in_a_topic_that_was_replaced_count_anew() -> None:
    """Its positions begin again, and each replay of either topic may have a result."""
    history = History.begun()
    history.input(1)
    history.letter(0)
    history.position = 1
    history.entry("commit")
    live = Checker(history.log, IDS)
    for topic_id in ("id", "id-2"):
        history.replay(0)
        history.letter(0)
        history.replayed = 2
        history.entry("commit")
        live.check()
        history.log.recreate("app.main.replays", "id-2")
        if topic_id == "id":
            facts = {"numbers": ["id", 1], "app.main.replays": ["id-2", 1, False, True]}
            history.replayed = 0
            history.entry("acquire", identity=["cluster", "p", facts, {}, "t"])
    live.check()
    history.letter(0)
    with pytest.raises(HistoryError, match="inputs 0 have more outputs than they should"):
        live.check()


def test_a_letter_is_of_the_input_topic_that_it_names() -> None:
    """Where the input was recreated, the output at the same offset is of another record."""
    history = History.begun()
    history.input(1, event_id=b"1")
    history.input(1, event_id=b"1")
    history.letter(0, "id")
    history.letter(1, "id")
    history.position = 2
    history.entry("commit")
    live = Checker(history.log, IDS)
    live.check()
    history.log.recreate("numbers", "id-2")
    history.position = 0
    identity = ["cluster", "p", {"numbers": ["id-2", 1]}, {}, "t"]
    history.entry("reset", identity=identity)
    history.entry("acquire")
    history.input(5, event_id=b"1")
    history.output(0, b"a", b"5")
    history.position = 1
    history.entry("commit")
    live.finish(history.log)


def test_an_output_topic_that_was_recreated_is_a_new_beginning() -> None:
    """What was in it is remembered, and what follows must follow that."""
    history = History.begun(inputs=2)
    live = Checker(history.log, PROMISE)
    live.check()
    history.log.recreate("sums", "another")
    history.step(5)
    live.finish(history.log)
    with pytest.raises(HistoryError, match="inputs 0, 1 are below the position and have no output"):
        check(history)


def test_a_duplicate_that_was_handled_is_rejected() -> None:
    """Its id was handled before it."""
    history = History.begun()
    for offset in range(2):
        history.input(1, event_id=b"1")
        history.output(offset, b"a", b"1")
    history.position = 2
    history.entry("commit")
    with pytest.raises(HistoryError, match="inputs 1 have more outputs than they should"):
        check(history, IDS)


def test_an_input_that_is_taken_for_a_duplicate_is_rejected() -> None:
    """Without dedup, duplicates are not dropped."""
    history = History.begun()
    for _ in range(2):
        history.input(1, event_id=b"1")
    history.output(0, b"a", b"1")
    history.position = 2
    history.entry("commit")
    with pytest.raises(HistoryError, match="inputs 1 are below the position and have no output"):
        check(history, Promise("app.main", "numbers", "sums", ids=False))


def receipt(log: WrittenLog, seq: int, records: int, nonce: str = "", run: int = 1) -> None:
    """Write a receipt of the load `l`."""
    load = {
        "name": "l",
        "topic": "numbers",
        "seq": seq,
        "nonce": nonce or f"n{seq}",
        "run": run,
        "records": records,
    }
    log.append(Place(LOADS, 0), b"l", msgspec.json.encode({"version": 2, "name": "l", "load": load}))
    log.skip(Place(LOADS, 0))


@pytest.mark.parametrize(
    ("seq", "records", "nonce", "said"),
    [
        (2, 20, "again", "at 6, load l: transaction 2 follows 3"),
        (5, 40, "", "at 6, load l: transaction 5 follows 3"),
        (4, 40, "n2", "at 6, load l: transaction 4 has the nonce of one before it"),
        (4, 10, "", "at 6, load l: 10 records follow 30"),
    ],
)
def test_a_load_that_goes_back_is_rejected(seq: int, records: int, nonce: str, said: str) -> None:
    """It was continued from a position that was not its last: rows are there twice."""
    history = History.begun(inputs=1)
    for number in (1, 2, 3):
        receipt(history.log, number, 10 * number)
    check(history)
    receipt(history.log, seq, records, nonce)
    with pytest.raises(HistoryError, match=said):
        check(history)


def test_a_load_that_is_run_again_and_foreign_receipts_pass() -> None:
    """A new run counts from zero; what is not a receipt, or of a topic that is not looked at, is skipped."""
    history = History.begun(inputs=1)
    receipt(history.log, 1, 10)
    receipt(history.log, 2, 5, run=2)
    history.log.append(Place(LOADS, 0), b"x", b"something else")
    other = {"name": "x", "topic": "elsewhere", "seq": 7, "nonce": "n", "run": 1, "records": 1}
    for _ in range(2):
        history.log.append(Place(LOADS, 0), b"x", msgspec.json.encode({"load": other}))
    check(history)


@pytest.mark.parametrize("change", ["changed", "lost", "added"])
def test_readers_that_disagree_are_rejected(change: str) -> None:
    """What a reader has once seen as committed is what every later one sees."""
    history = History.begun(inputs=3)
    live = Checker(history.log, PROMISE)
    live.check()
    records = history.log.records[OUTPUT]
    if change == "changed":
        records[1] = records[1]._replace(value=b"other")
    elif change == "lost":
        del records[1]
    else:
        records.append(Record(1, b"a", b"x", ()))
        records.sort()
    with pytest.raises(HistoryError, match="a fresh reader sees other records than the live one"):
        live.finish(history.log)


def test_an_output_that_may_be_hidden_is_not_missed_yet() -> None:
    """Another task's open transaction hides what is committed behind it; when it has ended, all must be there."""
    history = History.begun(inputs=3)
    history.log.open_at[OUTPUT] = 3
    live = Checker(history.log, PROMISE)
    live.check()
    del history.log.open_at[OUTPUT], history.log.records[OUTPUT][2]
    with pytest.raises(HistoryError, match="inputs 2 are below the position and have no output"):
        live.check()


def test_the_checker_shares_no_code_with_the_package() -> None:
    """A fault in a module that both used would be seen by neither."""
    folder = Path(package.__file__).parent
    modules = sorted(folder.glob("*.py"))
    assert len(modules) > 5
    for module in modules:
        tree = ast.parse(module.read_text())
        typing_only = [
            child
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for child in node.body
        ]
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not name.startswith("pipeline") or node in typing_only, module
                assert not name.startswith("tests.") or name.startswith("tests.support.checker"), module
