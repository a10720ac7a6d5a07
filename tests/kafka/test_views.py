"""`pipeline table show` and `pipeline journal show` print what was committed."""

from __future__ import annotations

import msgspec
import pytest

from tests.support.kafka.harness import PARTITIONS, Workbench

pytestmark = pytest.mark.kafka


def test_journal_show_lists_every_kind_in_order_with_positions_and_owner(bench: Workbench) -> None:
    """After an incident, an operator must see which worker committed what, and when."""
    bench.send(200)
    worker = bench.worker("--worker-id", "first")
    bench.wait_for_outputs(worker)
    assert bench.stop(worker) == 0
    shown = bench.command("journal", "show", bench.prefix, "--last", "0", "--json", "--kafka", bench.servers)
    assert shown.returncode == 0, shown.stderr
    rows = [msgspec.json.decode(line) for line in shown.stdout.splitlines()]
    for partition in range(PARTITIONS):
        own = [
            row
            for row in rows
            if (row["app"], row["group"], row["task"]) == (bench.prefix, "main", partition)
        ]
        assert [row["kind"] for row in own[:3]] == ["genesis", "acquire", "commit"]
        assert [row["seq"] for row in own] == list(range(1, len(own) + 1))
        assert {row["owner"] for row in own[1:]} == {"first"}
        assert own[-1]["positions"].keys() == {f"{bench.prefix}-amounts"}
    total = sum(
        row["positions"][f"{bench.prefix}-amounts"]
        for partition in range(PARTITIONS)
        for row in [row for row in rows if row["task"] == partition][-1:]
    )
    assert total == 200
    people = bench.command(
        "journal", "show", "tests.support.kafka.sums:app", "--task", "0", "--kafka", bench.servers
    )
    assert "genesis" in people.stdout
    unknown = bench.command("journal", "show", "no-such-app", "--kafka", bench.servers)
    assert unknown.returncode == 1
    assert "no journal no-such-app.main.journal" in unknown.stderr


def test_table_show_gives_one_key_all_keys_or_says_what_is_wrong(bench: Workbench) -> None:
    """An operator must be able to read a state without a debugger, a change or a lock on a running worker."""
    bench.send(100, keys=5)
    worker = bench.worker()
    bench.catch_up(worker)  # a worker applies a commit after its outputs can be read
    options = ("--app", "tests.support.kafka.sums:app", "--state-dir", str(bench.state_dir))
    one = bench.command("table", "show", "totals", "key-3", *options, "--json")
    assert one.returncode == 0, one.stderr
    row = msgspec.json.decode(one.stdout)
    assert (row["key"], row["value"]["count"]) == ("key-3", 20)
    everything = bench.command("table", "show", "main.totals", *options)
    assert everything.stdout.count("key-") == 5
    wrong = bench.command("table", "show", "nothing", *options)
    assert wrong.returncode == 1
    assert "main.totals" in wrong.stderr
    empty = bench.command(
        "table", "show", "totals", "--app", "tests.support.kafka.sums:app", "--state-dir", "/nowhere"
    )
    assert empty.returncode == 1
    assert "/nowhere" in empty.stderr
    assert "Traceback" not in wrong.stderr + empty.stderr
    assert bench.stop(worker) == 0


@pytest.mark.unverified
def test_a_journal_that_is_deleted_is_forgotten_by_one_command(bench: Workbench) -> None:
    """An operator may not have Kafka's own tools at hand."""
    bench.send(20)
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    kafka = ("--kafka", bench.servers)
    running = bench.command("journal", "forget", bench.prefix, "--yes", *kafka)
    assert running.returncode == 1
    assert "has 1 worker that" in running.stderr
    assert bench.stop(worker) == 0
    unasked = bench.command("journal", "forget", bench.prefix, *kafka)
    assert unasked.returncode == 2, unasked.stderr
    assert f"to delete: topic {bench.prefix}.main.journal" in unasked.stderr
    done = bench.command("journal", "forget", bench.prefix, "--yes", *kafka)
    assert done.returncode == 0, done.stderr
    assert f"topic {bench.prefix}.main.journal: deleted" in done.stderr
    assert f"consumer group {bench.prefix}.main: deleted" in done.stderr
    again = bench.command("journal", "forget", bench.prefix, "--yes", *kafka)
    assert again.returncode == 1
    assert "has no data of group" in again.stderr
