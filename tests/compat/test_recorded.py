"""What an earlier build left behind is read and continued by this build, and the results are exact.

`tools/record_fixture.py` says what was recorded. Three apps are continued at the same time, each from another source:
`local` from state directories that are behind their journals, `stored` on an empty disk from checkpoints (its journal
is truncated), `journal` on an empty disk from the journal alone.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.broker import LocalKafka
from pipeline.broker.ports import choose_ports
from tests.conftest import broker_directory
from tests.support.checker import Checker, KafkaLog
from tests.support.checker.entries import KINDS
from tests.support.compat.fold import check_sums, expected_main, expected_tallies, firsts
from tests.support.compat.recorded import APPS, PROGRAM, Recorded, sums_of, unpack
from tests.support.compat.service import SERVICE, TOPIC
from tests.support.compat.topics import Input
from tests.support.sinks.server import PostgresUnderTest

pytestmark = pytest.mark.kafka

FIRST, ROWS = 400, 1400
REFUSED, REPLAYED = 20, 9
SOURCES = {"local": "local state", "stored": "a checkpoint", "journal": "an empty state"}
JOURNALS = [(app, group) for app in (*APPS, "retired") for group in ("main", "counting")]
RUN = (*APPS, "retired", "ledger")  # apps whose workers are started here
NEW_LOAD_ID = "pipeline.load.retired-200"  # of the only load that was not recorded
AT_ONCE = 3  # commands
MIGRATION = ("retired", "successor", "--topic", "retired-orders=successor-orders")


class Shown:
    """What this build shows before it changes anything. Each question is asked once, all before the apps continue."""

    def __init__(self, recorded: Recorded) -> None:
        disk, store = recorded.directory / "states" / "local", f"file://{recorded.directory / 'checkpoints'}"
        ask = recorded.documents
        self._questions: dict[str, Callable[[], Any]] = {
            "names": recorded.topics.names,
            "entries": lambda: {place: recorded.entries(*place) for place in JOURNALS},
            "checkpoints": lambda: ask("checkpoints", "verify", "stored", "--store", store),
            "letters": lambda: ask("deadletters", "list", f"{PROGRAM}:local"),
            "loads": lambda: {load["load"]: load for load in ask("loads", "list")[0]["loads"]},
            "status": lambda: ask("status", "local", code=1)[0],
            "totals": lambda: recorded.table("local", "totals", disk, schema=1),
            "tallies": lambda: recorded.table("local", "counting.tallies", disk, schema=1),
            "journal": lambda: ask("journal", "show", "journal", "--group", "counting", "--last", "0"),
            "truncated": lambda: ask("journal", "show", "stored", "--last", "0"),
        }
        self._answers: dict[str, Any] = {}

    def __getitem__(self, question: str) -> Any:
        if question not in self._answers:
            self._answers[question] = self._questions[question]()
        return self._answers[question]

    def ask_all(self) -> None:
        """Ask what was not asked yet."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(self.__getitem__, self._questions):
                pass


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """The fixture, unpacked, with its Kafka running."""
    directory = tmp_path_factory.mktemp("recorded")
    unpack(directory)
    data = broker_directory("recorded")
    data.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(directory / "kafka", data)
    with LocalKafka(data, port=choose_ports(1)[0]) as kafka:
        opened = Recorded(directory, kafka.bootstrap_servers)
        try:
            yield opened
        finally:
            opened.close()
    shutil.rmtree(data)


@pytest.fixture(scope="module")
def shown(recorded: Recorded) -> Shown:
    """Answers of this build's commands about what was recorded."""
    return Shown(recorded)


@pytest.fixture(scope="module")
def continued(recorded: Recorded, shown: Shown) -> Recorded:
    """Workers, loads and replays of this build, until everything is handled; then the workers stop."""
    shown.ask_all()
    store = f"file://{recorded.directory / 'checkpoints'}"
    workers = [recorded.worker(app, _disk(recorded, app)) for app in ("local", "journal")]
    workers.append(recorded.worker("stored", _disk(recorded, "stored"), PIPELINE_CHECKPOINT_STORE=store))
    recorded.ended(*(recorded.load(app, "half") for app in APPS))
    replay = ("-m", "pipeline", "deadletters", "replay")
    recorded.ended(*(recorded.start(*replay, f"{PROGRAM}:{app}") for app in APPS))
    for app in APPS:
        _wait_until_handled(recorded, app)
    for worker in workers:
        worker.terminate()
    recorded.ended(*workers)
    return recorded


def test_the_fixture_holds_every_kind_of_entry(shown: Shown) -> None:
    """A kind that the fixture lacks would be a kind whose format no test compares."""
    assert {entry.kind for found in shown["entries"].values() for entry in found} == set(KINDS.values())


def test_journals_of_an_earlier_build_are_shown_whole(shown: Shown) -> None:
    """An operator looks into a journal of any age."""
    assert len(shown["journal"]) == len(shown["entries"]["journal", "counting"])
    assert "reset" in {entry["kind"] for entry in shown["journal"]}
    assert len(shown["truncated"]) == len(shown["entries"]["stored", "main"])
    assert "checkpoint" in {entry["kind"] for entry in shown["truncated"]}


def test_dead_letters_of_an_earlier_build_are_listed(shown: Shown) -> None:
    """Marks of replays that the earlier build committed count, whether the records were handled again or not."""
    states = Counter(letter["state"] for letter in shown["letters"])
    assert states == {"open": REFUSED - REPLAYED, "replayed": REPLAYED}
    (counted,) = shown["status"][
        "dead_letters"
    ]  # by the journals, in which the earlier build counted nothing
    assert (counted["open"], counted["complete"]) == (0, False)


def test_loads_of_an_earlier_build_are_listed(shown: Shown) -> None:
    """A load that was killed has a position to continue from."""
    loads = shown["loads"]
    assert {f"{app}-{name}" for app in APPS for name in ("first", "second", "half")} <= loads.keys()
    assert loads["local-first"]["records"] == FIRST
    assert 0 < loads["local-half"]["records"] < FIRST


def test_status_finds_the_owners_that_an_earlier_build_noted(shown: Shown) -> None:
    """Positions come from the journals, of sink tasks from the notes of workers."""
    tasks = shown["status"]["tasks"]
    assert {(task["app"], task["group"], task["task"]) for task in tasks} == {
        ("local", group, number) for group in ("main", "counting", "rows") for number in (0, 1)
    }
    assert {task["worker"] for task in tasks} == {"a"}
    assert all(task["seq"] > 0 and task["positions"] for task in tasks)


def test_checkpoints_of_an_earlier_build_are_whole(shown: Shown) -> None:
    """Manifests and objects are found by their names and agree with their hashes."""
    tasks = shown["checkpoints"]
    assert [len(task["checkpoints"]) for task in tasks] == [3, 3]
    assert all(task["restorable"] for task in tasks)
    assert not any(each["problem"] for task in tasks for each in task["checkpoints"])


def test_tables_of_an_earlier_state_directory_are_shown(recorded: Recorded, shown: Shown) -> None:
    """The directory, RocksDB's files and the prefixes of the rows are found where they were."""
    handled = [
        [each for each in partition if each.n < FIRST and each.n % 20 != 3]
        for partition in recorded.inputs("local")
    ]
    assert shown["totals"] == expected_main(handled).totals
    begun = [each for each in recorded.recorded_stretches["local"] if each.schema == 1]
    assert shown["tallies"] == expected_tallies(recorded.inputs("local"), begun).table


def test_no_name_is_new_after_a_build_has_continued(continued: Recorded, shown: Shown) -> None:
    """A renamed transactional id fences no worker of an earlier build; a renamed topic forgets what it held."""
    _check_names(continued, shown)


@pytest.mark.parametrize("app", APPS)
def test_each_source_of_a_restore_was_used(continued: Recorded, app: str) -> None:
    """Exact results from another source would prove less than they seem to."""
    restored = [
        event
        for event in continued.events("task_live")
        if event["app"] == app and event["group"] in {"main", "counting"}
    ]
    assert len(restored) == 4
    assert {event["restored_from"] for event in restored} == {SOURCES[app]}
    assert all(event["replayed_entries"] > 0 for event in restored)  # each source is behind its journal


@pytest.mark.parametrize("app", APPS)
def test_a_load_continues_behind_its_last_commit(continued: Recorded, app: str) -> None:
    """Each row is in the topic once, in the order of its file."""
    rows: dict[str, list[int]] = defaultdict(list)
    for each in (each for partition in continued.inputs(app) for each in partition):
        rows[each.key].append(each.n)
    assert sorted(n for found in rows.values() for n in found) == list(range(ROWS))
    assert all(found == sorted(found) for found in rows.values())


@pytest.mark.parametrize("app", APPS)
def test_outputs_continue_exactly(continued: Recorded, app: str) -> None:
    """Each input counts once, replayed dead letters included, whichever build has handled it."""
    inputs = continued.inputs(app)
    assert check_sums(inputs, continued.topics.committed(f"{app}-sums")) == []
    stretches = continued.stretches(app, inputs)
    expected = expected_tallies(inputs, stretches).outputs
    counts: dict[str, list[int]] = defaultdict(list)
    for record in (r for partition in continued.topics.committed(f"{app}-counts") for r in partition):
        counts[(record.key or b"").decode()].append(msgspec.json.decode(record.value or b""))
    assert counts == expected
    read = sum(each.start <= i.offset < each.end for each in stretches for i in inputs[each.partition])
    repeats = expected_main(inputs).repeats + read - sum(map(len, expected.values()))
    assert continued.topics.count(f"{app}-repeats") == repeats


@pytest.mark.parametrize("app", APPS)
def test_tables_continue_exactly(continued: Recorded, app: str) -> None:
    """Rows of each codec, rows that were deleted, and rows that two upgrades have changed."""
    inputs, disk = continued.inputs(app), _disk(continued, app)
    main = expected_main(inputs)
    tallies = expected_tallies(inputs, continued.stretches(app, inputs)).table
    expected = {
        "totals": main.totals,
        "toggles": main.toggles,
        "blobs": main.blobs,
        "counting.tallies": tallies,
    }
    names = [name for name in expected if app == "local" or name != "totals"]  # the sums prove it, too
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(names, pool.map(lambda name: continued.table(app, name, disk), names), strict=True))
    assert found == {name: expected[name] for name in names}


@pytest.mark.parametrize("app", APPS)
def test_rows_of_sinks_continue_exactly(continued: Recorded, app: str) -> None:
    """Their positions are in the database that the earlier build wrote to."""
    assert Counter(continued.rows(app, "history")) == Counter(
        sums_of(continued.topics.committed(f"{app}-sums"))
    )
    latest = {account: {"count": n, "total": total} for account, n, total in continued.rows(app, "latest")}
    assert latest == expected_main(continued.inputs(app)).totals


def test_no_dead_letter_is_open_after_the_replays(continued: Recorded) -> None:
    """What the earlier build has replayed is not replayed again."""
    found = continued.documents("deadletters", "list", f"{PROGRAM}:stored")
    assert Counter(letter["state"] for letter in found) == {"replayed": REFUSED}
    assert [letter["replayed_times"] for letter in found] == [1] * REFUSED


def test_a_load_that_an_earlier_build_finished_does_nothing(continued: Recorded) -> None:
    """The file is compared with the recorded hash, and nothing is sent again."""
    continued.ended(continued.load("journal", "first"))
    assert sum(map(len, continued.inputs("journal"))) == ROWS


def test_committed_records_of_both_builds_are_one_history(continued: Recorded) -> None:
    """A decoder that is not the package's verifies the chain, the numbers and the checksums of all entries."""
    names = tuple(f"{app}{separator}" for app in APPS for separator in "-.")
    with closing(KafkaLog(continued.servers, lambda topic: topic.startswith(names))) as log:
        Checker(log).check(settle_s=20.0)
    for app, group in (("local", "main"), ("journal", "counting")):
        assert {"genesis", "acquire", "commit", "release"} <= {
            entry.kind for entry in continued.entries(app, group)
        }


def test_a_service_continues_under_its_transactional_id(recorded: Recorded, shown: Shown) -> None:
    """The first transaction of this build ends the one that the earlier build left open."""
    assert f"pipeline.producer.{SERVICE}" in shown["names"].transactional_ids
    service = ("-m", "tests.support.compat.service")
    recorded.ended(recorded.start(*service, "30", "10"))
    values = [msgspec.json.decode(record.value or b"") for record in recorded.topics.committed(TOPIC)[0]]
    assert values == list(range(40))
    _check_names(recorded, shown)


def test_a_retired_app_is_refused_revived_and_continued(recorded: Recorded, tmp_path: Path) -> None:
    """The retire entry counts for a build that did not write it; so does how far the migration has copied."""
    disk = recorded.directory / "states" / "retired"
    worker = ("worker", f"{PROGRAM}:retired", "--worker-id", "a", "--state-dir", str(disk))
    assert "successor" in recorded.pipeline(*worker, code=1)
    recorded.pipeline("migrate", "revive", "retired")
    recorded.add_rows("retired", 200, 300)
    revived = recorded.worker("retired", disk)
    _wait_until_handled(recorded, "retired")
    revived.terminate()
    recorded.ended(revived)
    inputs = recorded.inputs("retired")
    assert check_sums(inputs, recorded.topics.committed("retired-sums")) == []
    assert recorded.table("retired", "totals", disk) == expected_main(inputs).totals

    recorded.pipeline("migrate", "run", *MIGRATION)
    assert _by_key(recorded.inputs("successor")) == _by_key(inputs)


@pytest.mark.kills
def test_rows_in_postgres_continue_exactly(recorded: Recorded) -> None:
    """The positions of sinks are in the dump of the database; a worker and a load were killed half-way."""
    server = PostgresUnderTest()
    try:
        dsn = server.create_database()
        dump = recorded.directory / "databases" / "ledger.sql"
        server.load(dsn, dump.read_text(encoding="utf-8"))
        worker = recorded.worker("ledger", recorded.directory / "empty-ledger", COMPAT_POSTGRES=dsn)
        recorded.ended(recorded.load("ledger", "half"))
        due = sum(len(firsts(partition)) for partition in recorded.inputs("ledger"))
        count = "SELECT count(*) FROM history"
        recorded.wait(lambda: server.sql(dsn, count) >= [(due,)])
        worker.terminate()
        recorded.ended(worker)
        sums = sums_of(recorded.topics.committed("ledger-sums"))
        assert len(sums) == due
        assert Counter(server.sql(dsn, "SELECT account, count, total FROM history")) == Counter(sums)
    finally:
        server.close()


def _wait_until_handled(recorded: Recorded, app: str) -> None:
    """Until each input has its outputs and rows, or more than these."""
    inputs = recorded.inputs(app)
    sums = sum(len(firsts(partition)) for partition in inputs)
    tallies = sum(map(len, expected_tallies(inputs, recorded.stretches(app, inputs)).outputs.values()))
    recorded.wait(lambda: recorded.topics.count(f"{app}-sums") >= sums)
    recorded.wait(lambda: recorded.topics.count(f"{app}-counts") >= tallies)
    recorded.wait(lambda: len(recorded.rows(app, "history")) >= sums)


def _check_names(recorded: Recorded, shown: Shown) -> None:
    """Nothing has a name that it did not have, but for what is new in the programs or since the earlier build."""
    before, now = shown["names"], recorded.topics.names()
    assert now.topics - before.topics <= {f"pipeline.letter-counts.{app}" for app in RUN}
    assert now.groups - before.groups <= {"checker"}
    assert now.transactional_ids - before.transactional_ids <= {NEW_LOAD_ID}
    assert len(before.transactional_ids) > 30


def _disk(recorded: Recorded, app: str) -> Path:
    """The state directory of the worker that continues the app."""
    return recorded.directory / ("states/local" if app == "local" else f"empty-{app}")


def _by_key(inputs: list[list[Input]]) -> dict[str, list[tuple[int, str]]]:
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for each in (each for partition in inputs for each in partition):
        found[each.key].append((each.n, each.id))
    return dict(found)
