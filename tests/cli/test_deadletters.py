"""`pipeline deadletters` on a broker in memory: what people and programs read, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from pipeline import Context, Event
from pipeline.app import declared_app
from pipeline.cli import deadletters as cli_deadletters
from pipeline.cli.deadletters import deadletters_app
from pipeline.cli.rendering import hex_lines
from pipeline.core.records import iso_time, readable
from pipeline.errors import ConfigError, InputError
from pipeline.ports import Output
from tests.support.ops.dead_letters.orders import GROUP, Orders


class Case:
    """Orders of which 3 and 8 are dead letters, and the command."""

    def __init__(self) -> None:
        self.orders = Orders(partitions=1)
        self.orders.bad = {3, 8}
        self.orders.send(*range(1, 10))
        self.orders.driver.run()
        self.orders.bad = set()

    def run(self, *arguments: str, code: int = 0) -> Result:
        name, *rest = arguments
        done = CliRunner().invoke(deadletters_app, [name, "orders:app", *rest])
        if isinstance(done.exception, Exception):
            raise done.exception
        assert done.exit_code == code, done.output
        return done

    def rows(self, *arguments: str, code: int = 0) -> list[Any]:
        lines = self.run(*arguments, "--json", code=code).stdout.splitlines()
        return [msgspec.json.decode(line) for line in lines]


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Case:
    """The command, looking into the driver's memory instead of a Kafka."""
    case = Case()
    driver = case.orders.driver
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(cli_deadletters, "find_app", lambda _target: declared_app(driver.app))
    monkeypatch.setattr(cli_deadletters, "build_environment", lambda *_, **__: driver.environment())
    return case


def test_list_says_where_when_why_and_what_became_of_it(case: Case) -> None:
    """The first look after an alert: one cause or many, and what is left to do."""
    done = case.run("list")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["id", "record", "failed", "dead_letters", "state"]
    assert lines[1].split()[:2] == ["0:0", "amounts[0]@2"]
    assert lines[1].split()[-2:] == ["1", "open"]
    assert lines[2] == "  Orders._add: ValueError: 3 is not an amount"
    assert done.stderr.strip() == "2 records of group main failed: 2 open, 0 replayed, 0 discarded"
    case.run("replay", "--error", "3 is")
    case.run("discard", "--error", "8 is")
    assert "0 open, 1 replayed, 1 discarded" in case.run("list").stderr
    first, second = case.rows("list")
    assert (first["offset"], first["state"], first["replayed_times"]) == (2, "replayed", 1)
    assert (second["state"], second["replayed"], second["discarded"]) == (
        "discarded",
        None,
        first["replayed"],
    )
    assert first["timestamp"] == "1970-01-01T00:00:01.003Z"
    assert case.rows("list", "--open") == []


def test_list_shows_the_newest_and_says_how_many_there_are(case: Case) -> None:
    """A topic of a million letters must not scroll for an hour."""
    done = case.run("list", "--max", "1")
    assert "8 is not" in done.stdout
    assert "3 is not" not in done.stdout
    assert "2 records of group main failed: 2 open, 0 replayed, 0 discarded; only the newest 1" in done.stderr
    assert [row["offset"] for row in case.rows("list", "--max", "1")] == [7]
    assert case.rows("list", "--partition", "5") == []


def test_list_fits_80_columns_and_cuts_nothing_but_the_error(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id is what the next command needs, and a terminal of 80 columns is what people have."""
    monkeypatch.setattr(cli_deadletters, "terminal_width", lambda: 80)
    broker = case.orders.driver.broker
    letter = broker.records(GROUP.dead_letter_topic)[0]
    changed = {"dead-letter-offset": b"99", "dead-letter-error": b"ValueError: " + b"x" * 100}
    headers = [(name, changed.get(name, value)) for name, value in letter.headers() or ()]
    broker.produce(Output(GROUP.dead_letter_topic, letter.key(), letter.value(), 0, headers))
    lines = case.run("list").stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[-2].startswith("0:3  amounts[0]@99  ")
    assert lines[-1].endswith("...")


def test_a_record_that_failed_again_is_one_entry_of_the_list(case: Case) -> None:
    """Three letters of one record are one record to repair, under the ID of the newest letter."""
    case.orders.bad = {3}
    for _ in range(2):
        case.run("replay", "--error", "3 is")
        case.orders.driver.run()
    first, second = case.rows("list")
    assert (second["id"], second["offset"], second["dead_letters"], second["replay"]) == ("0:9", 2, 3, 2)
    assert (second["state"], first["dead_letters"], first["state"]) == ("open", 1, "open")
    assert "  Orders._add, replay 2: ValueError: 3 is not an amount" in case.run("list").stdout
    assert case.run("list").stderr.startswith("2 records of group main failed: 2 open")


def test_a_discard_needs_to_be_told_which_records(case: Case) -> None:
    """A slip of the hand must not take all of them out of sight."""
    with pytest.raises(InputError, match="the records to discard are not given"):
        case.run("discard")
    assert case.run("discard", "--all", "--dry-run").stdout == "2 records would be discarded\n"
    assert case.run("discard", "0:0").stdout == "1 record discarded\n"
    assert case.run("discard", "--all").stdout == (
        "1 record discarded; 1 were already replayed or discarded\n"
    )
    done = case.run("replay")
    assert (
        done.stdout == "0 dead letters replayed; 2 were already discarded (replay them again with --again)\n"
    )
    with pytest.raises(InputError, match="has no such dead letter"):
        case.run("discard", "0:999")


def test_a_purge_shows_what_it_would_delete_and_deletes_with_yes(case: Case) -> None:
    """What is deleted is gone; what is open stays, and what is behind it."""
    case.run("discard", "--error", "8 is")
    done = case.run("purge", "--yes")
    assert done.stdout == "0 dead letters deleted; 1 record open\n"
    assert "1 dead letter more can be deleted when those before" in done.stderr
    case.run("replay")
    waiting = case.run("purge", "--yes")
    assert waiting.stdout == "0 dead letters deleted; 0 records open\n"
    assert waiting.stderr.startswith(
        "1 record kept, because a replay waits for a worker: pipeline status orders counts it as lag."
    )
    case.orders.driver.run()
    planned = case.run("purge")
    assert planned.stdout == "2 dead letters would be deleted; 0 records open\n"
    assert "add --yes" in planned.stderr
    assert len(case.rows("list")) == 2
    assert case.rows("purge", "--yes") == [
        {"deleted": 2, "open": 0, "waiting": 0, "blocked": 0, "dry_run": False}
    ]
    assert case.rows("list") == []
    case.orders.check(without=frozenset({8}))


def test_show_has_everything_of_a_letter(case: Case) -> None:
    """The output shows what is needed to fix the handler: bytes, headers, and the lines that raised."""
    name = case.rows("list")[0]["id"]
    text = case.run("show", name).stdout
    for fact in (
        f"dead letter {name}",
        "record     amounts[0]@2 of 1970-01-01T00:00:01.003Z",
        "in Orders._add, after 1 attempt",
        "replayed   no",
        "error      ValueError: 3 is not an amount",
        'raise ValueError(f"{event.value} is not an amount")',
        "header     event-id: 3",
        "key        customer-0  (10 bytes)",
        "value      3  (1 byte)",
        "00000000  33 ",
    ):
        assert fact in text
    (row,) = case.rows("show", name)
    assert (row["key"], row["value"], row["headers"]) == (
        "customer-0",
        3,
        [{"name": "event-id", "value": "3"}],
    )
    assert "orders.py" in row["traceback"]


def test_show_takes_any_bytes(case: Case) -> None:
    """A record that is not text is often the one that failed; null must differ from an empty value."""
    driver, amounts = case.orders.driver, case.orders.amounts
    driver.send_raw(amounts, b"\xff\x1b[31m", b"\x00" * 300, headers=[("odd", b"\xfe"), ("none", None)])
    driver.send_raw(amounts, None, None)
    driver.send_raw(amounts, b"", b"")
    driver.run()
    odd, null, empty = case.rows("show", "--error", "Error: ")[2:]
    assert odd["key_base64"] == "/xtbMzFt"
    assert odd["headers"] == [{"name": "odd", "value_base64": "/g=="}, {"name": "none", "value": None}]
    assert (null["key"], null["value"], empty["key"], empty["value"]) == (None, None, "", "")
    text = case.run("show").stdout
    assert "\x1b" not in text
    assert "key        0xff1b5b33316d  (6 bytes)" in text
    assert "... 44 more bytes: --json prints all of them" in text
    assert "header     none: (null)" in text


def test_replay_says_what_it_did_and_what_comes_next(case: Case) -> None:
    """And a second run says that there was nothing to do."""
    planned = case.run("replay", "--dry-run")
    assert planned.stdout == "2 dead letters would be replayed\n"
    done = case.run("replay", "--max", "1")
    assert done.stdout == "1 dead letter replayed\n"
    assert "pipeline status orders" in done.stderr
    assert (
        case.run("replay").stdout
        == "1 dead letter replayed; 1 were already replayed (replay them again with --again)\n"
    )
    assert case.rows("replay") == [{"replayed": 0, "already_handled": 2, "refused": [], "dry_run": False}]
    case.orders.driver.run()
    case.orders.check()
    assert case.run("replay", "--again").stdout == "2 dead letters replayed\n"


def test_letters_that_cannot_be_replayed_are_named_and_end_the_command_with_1(case: Case) -> None:
    """The others are replayed all the same."""
    driver = case.orders.driver
    letter = driver.broker.records(GROUP.dead_letter_topic)[0]
    headers = [(n, b"gone" if n == "dead-letter-topic" else v) for n, v in letter.headers() or ()]
    driver.broker.produce(Output(GROUP.dead_letter_topic, None, b"1", 0, headers))
    done = case.run("replay", code=1)
    assert "2 dead letters replayed" in done.stdout
    assert "topic gone is no longer an input of group main: restore its handler" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "0:999"), "topic orders.main.dead-letters has no such dead letter"),
        (("replay", "0:999"), "topic orders.main.dead-letters has no such dead letter"),
        (("replay", "17"), "'17' is not the id of a dead letter"),
        (("list", "--group", "other"), "app orders has no group other"),
    ],
)
def test_what_is_not_there_is_an_error(case: Case, arguments: tuple[str, ...], said: str) -> None:
    """A script must not take nothing for an answer."""
    with pytest.raises(InputError) as caught:
        case.run(*arguments)
    assert said in caught.value.message
    assert caught.value.hint


def test_of_several_letters_those_that_are_missing_are_counted(case: Case) -> None:
    """What is there is shown first."""
    name = case.rows("list")[0]["id"]
    with pytest.raises(InputError, match="lacks 1 of these 2 dead letters"):
        case.run("show", name, "0:999")


def test_the_group_must_be_named_where_several_have_letters(case: Case) -> None:
    """The same place is another letter in another group."""
    driver = case.orders.driver
    app = case.orders.version()
    audit = app.group("audit")

    @audit.handler(case.orders.amounts, on_error="dead_letter")
    def check(event: Event[str, int], ctx: Context) -> None:
        raise ValueError("no audit yet")

    driver.restart(app=app)
    driver.run()
    with pytest.raises(InputError, match="several groups of app orders have dead letters: main, audit"):
        case.run("list")
    assert "9 records of group audit failed: 9 open" in case.run("list", "--group", "audit").stderr
    case.run("replay", "--group", "audit")
    driver.run()
    assert "9 records of group audit failed: 9 open" in case.run("list", "--group", "audit").stderr
    assert {(row["replay"], row["dead_letters"]) for row in case.rows("list", "--group", "audit")} == {(1, 2)}
    case.orders.check(without=frozenset({3, 8}))  # the other group has seen nothing of it


def test_an_app_that_never_had_letters_is_told_apart_from_one_that_has_none(case: Case) -> None:
    """No topic means that no handler asks for them; an empty one is good news."""
    case.orders.driver.broker.delete(GROUP.dead_letter_topic)
    with pytest.raises(InputError, match="app orders has no dead letters: none of its groups") as caught:
        case.run("list")
    assert "on_error='dead_letter'" in (caught.value.hint or "")


def test_an_app_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before any Kafka is asked."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(deadletters_app, ["list", "orders"])
    assert isinstance(done.exception, ConfigError)
    assert "write MODULE:APP" in (done.exception.hint or "")


def test_bytes_are_shown_sixteen_a_line() -> None:
    """As every other tool does it."""
    assert list(hex_lines(b'{"a": 1}\x00\xff' + b"z" * 7)) == [
        '00000000  7b 22 61 22 3a 20 31 7d 00 ff 7a 7a 7a 7a 7a 7a  {"a": 1}..zzzzzz',
        "00000010  7a                                               z",
    ]
    assert readable(b"a\nb") == "a\\nb"
    assert iso_time(1) == "1970-01-01T00:00:00.001Z"
