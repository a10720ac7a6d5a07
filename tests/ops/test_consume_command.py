"""`pipeline consume` and `pipeline topics` as users run them."""

from __future__ import annotations

import json

import pytest

from pipeline.config import KafkaSettings
from pipeline.kafka.producer import KafkaProducers
from pipeline.ports import Output
from tests.ops.conftest import Command
from tests.support.raw_records import RawRecord, write_raw

pytestmark = pytest.mark.kafka


def _write(settings: KafkaSettings, topic: str, values: list[bytes | None], *, commit: bool = True) -> None:
    producer = KafkaProducers(settings).open(f"test.{topic}")
    producer.init()
    producer.begin()
    producer.send(
        [Output(topic, b"k%d" % (n % 3), value, 1_700_000_000_000 + n) for n, value in enumerate(values)]
    )
    producer.flush()
    if commit:
        producer.commit()
    else:
        producer.abort()
    producer.close()


def test_it_shows_committed_records_and_ends_at_the_end(command: Command, unique_name: str) -> None:
    """Aborted records are not shown, and a marker at the end must not block the command."""
    topic = unique_name
    command.create(topic, partitions=2)
    out, _ = command.run("consume", topic)
    assert out == ""
    _write(command.settings, topic, [b'{"n":%d}' % n for n in range(30)])
    _write(command.settings, topic, [b"aborted"] * 200, commit=False)
    out, _ = command.run("consume", topic, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert sorted(row["value"]["n"] for row in rows) == list(range(30))
    assert {row["topic"] for row in rows} == {topic}
    out, _ = command.run("consume", topic, "--key", "k1", "--json")
    assert [json.loads(line)["value"]["n"] for line in out.splitlines()] == list(range(1, 30, 3))
    out, _ = command.run("consume", topic, "--max", "4")
    assert len(out.splitlines()) == 4
    partition = str(rows[0]["partition"])
    out, _ = command.run("consume", topic, "--partition", partition)
    assert {line.split()[0] for line in out.splitlines()} == {partition}


def test_unreadable_headers_are_reported_and_end_nothing(command: Command, unique_name: str) -> None:
    """The record is what an operator looks for when a worker names it; what can be read of it is shown."""
    topic = unique_name
    command.create(topic, partitions=1)
    headers = [(b"trace", b"7"), (b"\xff", b"1")]
    record = RawRecord(b"k", b"1", headers)
    assert write_raw(command.settings.bootstrap_servers, topic, [record, record]) == 0
    out, _ = command.run("consume", topic, "--json")
    for row in map(json.loads, out.splitlines()):
        assert (row["key"], row["headers"]) == ("k", {"trace": "7"})
        assert row["headers_omitted"].startswith("1 of 2 headers cannot be read")
    out, _ = command.run("consume", topic)
    assert len(out.splitlines()) == 2


def test_what_is_no_json_and_no_text_is_shown_without_harm(command: Command, unique_name: str) -> None:
    """A value must neither break a program that reads the output nor drive a person's terminal."""
    topic = unique_name
    command.create(topic, partitions=1)
    _write(command.settings, topic, [b"\xff\x00", None, b"plain", b"\x1b[31mred\n"])
    out, _ = command.run("consume", topic, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["value_base64"] == "/wA="
    assert [row.get("value") for row in rows[1:]] == [None, "plain", "\x1b[31mred\n"]
    out, _ = command.run("consume", topic)
    lines = out.splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("k0  0xff00")
    assert lines[1].endswith("(null)")
    assert lines[3].endswith("\\x1b[31mred\\n")
    assert "2023-11-14T22:13:20.000Z" in lines[0]


def test_following_shows_what_comes_from_now_on(command: Command, unique_name: str) -> None:
    """It waits past the end until it has seen what was asked for."""
    topic = unique_name
    command.create(topic, partitions=1)
    _write(command.settings, topic, [b"early"])
    process = command.start("consume", topic, "--follow", "--max", "2", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["value"] == "early"
    _write(command.settings, topic, [b"late"])
    out, _ = process.communicate(timeout=60)
    assert json.loads(out)["value"] == "late"
    assert process.returncode == 0
    _, err = command.run("consume", topic, "--from", "end", code=2)
    assert "--follow" in err


def test_what_is_not_there_is_refused_with_the_right_code(
    command: Command, unique_name: str, unused_port: int
) -> None:
    """A mistyped name must not look like an empty topic; schedulers retry on 3 and alert on 1."""
    away = command.start("consume", "any", "--kafka", f"127.0.0.1:{unused_port}")
    _, err = command.run("consume", f"{unique_name}-missing", code=1)
    assert "there is no topic" in err
    command.create(unique_name, partitions=2)
    _, err = command.run("consume", unique_name[1:], code=1)
    assert f"there is no topic {unique_name[1:]!r}; did you mean {unique_name!r}?" in err
    _, err = command.run("consume", unique_name, "--partition", "2", code=1)
    assert "its partitions are 0 to 1" in err
    _, err = away.communicate(timeout=60)
    assert away.returncode == 3
    assert f"no Kafka at 127.0.0.1:{unused_port} (connection refused)" in err
    assert f"`pipeline broker start --port {unused_port}` starts one" in err
