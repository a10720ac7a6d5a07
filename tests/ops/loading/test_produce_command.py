"""`pipeline produce` as users run it: real processes, a real Kafka, real kills."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from zipfile import ZipFile

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from pipeline.core.names import LOADS_TOPIC, TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ops.loading.loader import LOADS, find_topic
from tests.ops.conftest import Command

pytestmark = pytest.mark.kafka

Wait = Callable[[Callable[[], bool], str], None]
KEYS = 97


def _csv(path: Path, rows: int, *, begin: int = 0) -> str:
    """Rows whose key repeats every KEYS rows; some hold a line end."""
    lines = (
        f'key-{n % KEYS},{n},"two\nlines {n}"\n' if n % 50 == 0 else f"key-{n % KEYS},{n},plain\n"
        for n in range(begin, rows)
    )
    text = "key,n,text\n" + "".join(lines)
    path.write_text(text)
    return text


def _check(command: Command, topic: str, rows: int) -> None:
    """Each row exactly once, and under each key in the file's order."""
    by_key: dict[bytes, list[int]] = defaultdict(list)
    for record in command.records(topic):
        by_key[record.key()].append(json.loads(record.value())["n"])
    assert by_key == {f"key-{key}".encode(): list(range(key, rows, KEYS)) for key in range(min(KEYS, rows))}


def test_a_load_killed_again_and_again_ends_with_every_row_exactly_once(
    command: Command, unique_name: str, tmp_path: Path, wait_until: Wait
) -> None:
    """The promise of the command: SIGKILL at any moment, five times over, loses and doubles nothing."""
    rows, topic, dice = 150_000, unique_name, random.Random(7)
    command.create(topic)
    _csv(tmp_path / "rows.csv", rows)
    arguments = ("produce", topic, "rows.csv", "--key", "key", "--batch", "500")
    partition, kills = TopicPartition(topic, 0), 0
    with closing(KafkaJournalReader(command.settings)) as reader:
        while kills < 5:
            before = reader.bounds(partition).end
            process = command.start(*arguments)
            wait_until(
                # Behind the marker by which it aborts the transaction of the one before.
                lambda p=process, b=before: (
                    p.poll() is not None or reader.bounds(partition).stable_end > b + 1
                ),  # type: ignore[misc]
                "the first commit",
            )
            try:
                process.wait(dice.uniform(0, 0.08))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
            process.wait(60)
            assert process.returncode == -signal.SIGKILL, "it ended before it was killed five times"
    summary = command.json(*arguments)
    assert summary["total_records"] == rows
    assert 0 < summary["records"] < rows
    _check(command, topic, rows)


def test_a_load_killed_before_and_during_its_start_is_not_harmed(
    command: Command, unique_name: str, tmp_path: Path
) -> None:
    """Kills do not wait for the first transaction."""
    topic, dice = unique_name, random.Random(11)
    command.create(topic)
    _csv(tmp_path / "rows.csv", 2_000)
    arguments = ("produce", topic, "rows.csv", "--key", "key", "--batch", "100")
    for _ in range(4):
        process = command.start(*arguments)
        try:
            process.wait(dice.uniform(0.3, 0.9))
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait(60)
    command.run(*arguments)
    _check(command, topic, 2_000)


def test_running_it_again_says_that_it_is_complete(
    command: Command, unique_name: str, tmp_path: Path
) -> None:
    """And a file that has grown since is continued, a changed one refused."""
    topic, rows = unique_name, tmp_path / "rows.csv"
    command.create(topic)
    _csv(rows, 300)
    out, _ = command.run("produce", topic, "rows.csv", "--key", "key")
    assert "300 records to topic" in out
    out, _ = command.run("produce", topic, "rows.csv", "--key", "key")
    assert "already complete" in out
    assert command.json("produce", topic, "rows.csv", "--key", "key")["already_complete"] is True
    _csv(rows, 400)
    assert command.json("produce", topic, "rows.csv", "--key", "key")["records"] == 100
    _check(command, topic, 400)
    rows.write_text(rows.read_text().replace("key-3,", "key-4,"))
    _, err = command.run("produce", topic, "rows.csv", "--key", "key", code=1)
    assert "has changed within the part that was loaded" in err
    _, err = command.run("produce", topic, "rows.csv", code=1)
    assert "--key 'key', not (none)" in err
    _check(command, topic, 400)


def test_of_two_loaders_of_one_name_the_older_one_stops(
    command: Command, unique_name: str, tmp_path: Path, wait_until: Wait
) -> None:
    """A job started twice must not load anything twice, and the one that lost must say so."""
    topic, rows = unique_name, 30_000
    command.create(topic)
    text = _csv(tmp_path / "rows.csv", rows)
    options = ("--key", "key", "--batch", "1000", "--name", topic)
    with closing(KafkaCluster(command.settings)) as cluster:
        find_topic(cluster, topic)
    older = command.start("produce", topic, "-", "--format", "csv", *options, stdin=subprocess.PIPE)
    assert older.stdin is not None
    half = text.index("\n", len(text) // 2) + 1
    with closing(KafkaJournalReader(command.settings)) as reader:
        before = reader.bounds(LOADS).end
        older.stdin.write(text[:half])
        older.stdin.flush()
        wait_until(lambda: reader.bounds(LOADS).end > before, "the older loader's first transaction")
    command.run("produce", topic, "rows.csv", *options)
    _, err = older.communicate(text[half:], timeout=60)
    assert older.returncode == 1, err
    assert "a newer loader uses this name" in err
    _check(command, topic, rows)


def test_standard_input_is_continued_when_the_same_bytes_come_again(
    command: Command, unique_name: str, tmp_path: Path
) -> None:
    """A pipe cannot be sought in, but it can be compared."""
    topic = unique_name
    command.create(topic)
    text = _csv(tmp_path / "rows.csv", 500)
    bad = text.replace("key-3,3,", "key-3,", 1)
    _, err = command.run("produce", topic, "-", "--format", "csv", code=2)
    assert "give --name" in err
    arguments = ("produce", topic, "-", "--format", "csv", "--key", "key", "--name", topic)
    _, err = command.run(*arguments, code=1, stdin=bad)
    assert "standard input, line 6: the row has 2 columns, but the header has 3" in err
    command.run(*arguments, stdin=text)
    _check(command, topic, 500)
    _, err = command.run(*arguments, code=1, stdin=text[:40])
    assert "it was truncated" in err


def test_packed_files_are_read_as_they_are(command: Command, unique_name: str, tmp_path: Path) -> None:
    """Open data comes as .zip and .gz."""
    command.create(unique_name)
    text = _csv(tmp_path / "rows.csv", 200)
    with ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.write(tmp_path / "rows.csv", "rows.csv")
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(text.encode()))
    arguments = ("--key", "key", "--name", unique_name)
    assert command.json("produce", unique_name, "rows.zip", *arguments)["records"] == 200
    assert command.json("produce", unique_name, "rows.csv.gz", *arguments)["already_complete"] is True
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(text.encode())[:-200])
    _, err = command.run("produce", unique_name, "cut.csv.gz", "--key", "key", "--restart", code=1)
    assert "cut.csv.gz" in err
    with ZipFile(tmp_path / "rows.zip", "a") as archive:
        archive.writestr("more.csv", "a")
    _, err = command.run("produce", unique_name, "rows.zip", code=1)
    assert "contains 2 files" in err


def test_mistakes_end_with_a_sentence_and_the_right_code(
    command: Command, unique_name: str, tmp_path: Path
) -> None:
    """No traceback, no half-written topic."""
    _csv(tmp_path / "rows.csv", 10)
    (tmp_path / "rows.dat").write_text("a\n1\n")
    _, err = command.run("produce", f"{unique_name}-missing", "rows.csv", code=1)
    assert "there is no topic" in err
    assert "pipeline topics apply" in err
    command.create(unique_name, max_message_bytes="2000", retention_ms="604800000")
    _, err = command.run("produce", unique_name[:-1], "rows.csv", code=1)
    assert f"did you mean {unique_name!r}?" in err
    _, err = command.run("produce", unique_name, "absent.csv", code=1)
    assert "cannot read absent.csv: No such file or directory\n  -> check the path" in err
    _, err = command.run("produce", unique_name, "rows.dat", code=2)
    assert "--format" in err
    _, err = command.run("produce", unique_name, "rows.csv", "--key", "nokey", code=1)
    assert "has no column 'nokey'" in err
    _, err = command.run("produce", LOADS_TOPIC, "rows.csv", code=1)
    assert "cannot load into" in err
    (tmp_path / "big.jsonl").write_text('{"a":1}\n{"a":"' + "x" * 3000 + '"}\n')
    _, err = command.run("produce", unique_name, "big.jsonl", code=1)
    assert "big.jsonl, line 2: the record has" in err
    assert len(command.records(unique_name)) == 1
    (tmp_path / "old.jsonl").write_text('{"t":"2013-01-01"}\n')
    _, err = command.run("produce", unique_name, "old.jsonl", "--timestamp", "t", code=1)
    assert "retention.ms" in err


def test_ids_times_and_keys_reach_the_topic(command: Command, unique_name: str, tmp_path: Path) -> None:
    """What the options promise is what a consumer sees."""
    command.create(unique_name)
    (tmp_path / "rows.jsonl").write_text('{"k":"é","i":"id-1","t":"2013-01-01T00:00:00Z"}\n')
    command.run("produce", unique_name, "rows.jsonl", "--key", "k", "--id", "i", "--timestamp", "t")
    (record,) = command.records(unique_name)
    assert (record.key(), record.timestamp()[1]) == ("é".encode(), 1_356_998_400_000)
    assert record.headers() == [("event-id", b"id-1")]


def test_the_account_of_a_load_tells_when_its_records_have_no_keys(
    command: Command, unique_name: str, tmp_path: Path
) -> None:
    """An app that declares keys refuses each of them, and the load was the last chance to notice."""
    command.create(unique_name)
    (tmp_path / "rows.jsonl").write_text('{"k":"a"}\n')
    out, _ = command.run("produce", unique_name, "rows.jsonl")
    assert out.startswith(f"1 record without keys to topic {unique_name} in ")
    (tmp_path / "rows.jsonl").write_text('{"k":"a"}\n{"k":"b"}\n')
    out, _ = command.run("produce", unique_name, "rows.jsonl", "--key", "k", "--name", "keyed")
    assert out.startswith(f"2 records to topic {unique_name} in ")


def test_a_load_stopped_by_a_missing_key_continues_when_such_rows_may_pass(
    command: Command, unique_name: str, tmp_path: Path
) -> None:
    """The error advises it; what is loaded already is no reason to refuse."""
    command.create(unique_name)
    (tmp_path / "rows.csv").write_text("k,v\na,1\n,2\nc,3\n")
    _, err = command.run("produce", unique_name, "rows.csv", "--key", "k", "--batch", "1", code=1)
    assert (
        "rows.csv, line 3: field 'k', the key, is missing or empty; to accept such rows, give --on-missing-key null"
        in err
    )
    out, _ = command.run("produce", unique_name, "rows.csv", "--key", "k", "--on-missing-key", "skip")
    assert "1 row without a key skipped" in out
    assert sorted(record.key() or b"" for record in command.records(unique_name)) == [b"a", b"c"]


def test_a_folder_is_one_load_and_new_files_come_last(
    command: Command, unique_name: str, tmp_path: Path
) -> None:
    """A data set that grows by a file an hour; a file of it that was rewritten is refused."""
    command.create(unique_name)
    folder = tmp_path / "hours"
    folder.mkdir()
    for hour in range(3):
        _parquet(folder / f"{hour}.parquet", range(hour * 100, hour * 100 + 100))
    arguments = ("produce", unique_name, "hours", "--key", "key", "--batch", "70")
    _, err = command.run(*arguments, "--resume-only", code=1)
    assert "no transaction of a load with this name" in err
    first = command.json(*arguments)
    assert (first["records"], first["files"], first["load"]) == (300, 3, f"{unique_name}/hours")
    _parquet(folder / "3.parquet", range(300, 310))
    out, _ = command.run(*arguments, "--resume-only")
    assert out.startswith(f"10 records to topic {unique_name} in ")
    assert "resumed at row 100 of hours/2.parquet, 310 records from 4 files in total" in out
    _check(command, unique_name, 310)
    shown = command.json("loads", "show", f"{unique_name}/hours")
    assert (shown["state"], shown["records"], shown["finished_files"]) == ("complete", 310, 3)
    _parquet(folder / "1.parquet", range(100, 201))
    _, err = command.run(*arguments, code=1)
    assert (
        "1.parquet, file 2 of the list, has changed since it was loaded: it had 100 rows, and has 101 now"
        in err
    )


def test_a_list_may_hold_files_that_are_packed_in_different_ways(
    command: Command, unique_name: str, tmp_path: Path
) -> None:
    """What is old is packed; a load is of one format, not of one packing."""
    command.create(unique_name)
    texts = [f"key,n\nkey-{n},{n}\n".encode() for n in range(3)]
    (tmp_path / "0.csv.gz").write_bytes(gzip.compress(texts[0]))
    (tmp_path / "1.csv.zst").write_bytes(zstandard.ZstdCompressor().compress(texts[1]))
    (tmp_path / "2.csv").write_bytes(texts[2])
    out, _ = command.run(
        "produce", unique_name, "0.csv.gz", "1.csv.zst", "2.csv", "--key", "key", "--name", "mixed"
    )
    assert out.startswith(f"3 records from 3 files to topic {unique_name} in ")
    _check(command, unique_name, 3)


def _parquet(path: Path, numbers: range) -> None:
    parquet.write_table(pa.table({"key": [f"key-{n % KEYS}" for n in numbers], "n": list(numbers)}), path)
