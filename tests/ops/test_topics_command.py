"""`pipeline topics` on the Kafka under test, and what a worker says of declarations."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from pipeline.cli.main import main
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicInfo, TopicSpec
from tests.ops.conftest import Command


class Declared:
    """The directory of declarations of one test, and the command in this process: a start each would take longer."""

    def __init__(
        self,
        command: Command,
        name: str,
        patch: pytest.MonkeyPatch,
        capture: pytest.CaptureFixture[str],
    ) -> None:
        self.command = command
        self.name = name
        self._patch = patch
        self._capture = capture
        self.directory = command.directory / "topics"
        self.directory.mkdir()

    def declare(self, suffix: str = "", partitions: int = 2, *lines: str, **config: str) -> str:
        name = self.name + suffix
        settings = "".join(f"\n  {key.replace('_', '.')}: {value}" for key, value in config.items())
        text = f"name: {name}\npartitions: {partitions}\nowner: tests\nkey: none\nvalue: none\n"
        text += "".join(f"{line}\n" for line in lines)
        (self.directory / f"{name}.yaml").write_text(text + (f"config:{settings}\n" if settings else ""))
        return name

    def info(self, suffix: str = "") -> TopicInfo:
        with closing(KafkaCluster(self.command.settings)) as cluster:
            return cluster.describe([self.name + suffix])[self.name + suffix]

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Standard output and error of `pipeline topics ARGUMENTS`, which ends with `code`."""
        self._patch.setattr(sys, "argv", ["pipeline", "topics", *arguments])
        # It ends a process in which threads remain; this one may have threads of other tests.
        self._patch.setattr("pipeline.cli.main.end_soon", lambda _: None)
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capture.readouterr()
        assert (ended.value.code or 0) == code, f"{arguments}: exit {ended.value.code}\n{out}\n{err}"
        return out, err

    def states(self, *arguments: str, code: int = 0) -> dict[str, str]:
        out, _ = self.run(*arguments, "--json", code=code)
        return {each["name"].removeprefix(self.name): each["state"] for each in json.loads(out)["topics"]}


@pytest.fixture
def declared(
    command: Command, unique_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Declared]:
    """An empty directory of declarations, where the command runs."""
    monkeypatch.chdir(command.directory)
    monkeypatch.setenv("PIPELINE_KAFKA", command.settings.bootstrap_servers)
    monkeypatch.setenv("COLUMNS", "200")
    log = logging.getLogger("pipeline.kafka")
    level = log.level
    yield Declared(command, unique_name, monkeypatch, capsys)
    log.setLevel(level)


@pytest.mark.kafka
def test_a_plan_is_shown_applied_and_empty_then(declared: Declared) -> None:
    """The daily round: a topic is new, a setting drifts, partitions are added, and one topic is refused."""
    command, name = (
        declared.command,
        declared.declare("", 2, retention_ms="-1", cleanup_policy="compact,delete"),
    )
    out, _ = declared.run("plan", "--check", code=4)
    assert f"+ {name}  is created with 2 partitions\n" in out
    assert "1 to create" in out
    out, err = declared.run("apply")
    assert err == f"{name}: created\n"
    assert declared.states("plan", "--check") == {"": "same"}
    with closing(KafkaCluster(command.settings)) as cluster:
        cluster.configure(name, {"segment.bytes": "2000000"})
    declared.declare("", 3, retention_ms="60000", cleanup_policy="delete,compact")
    declared.declare("-wrong", 1, retentoin_ms="5")
    out, _ = declared.run("plan", code=1)
    assert f"x {name}  is changed" in out
    assert "partitions     2 -> 3" in out
    assert "! retention.ms   -1 -> 60000" in out
    assert "segment.bytes  2000000 -> default" in out
    assert f"-> to accept that, add --allow {name}" in out
    assert "no topic setting 'retentoin.ms'; did you mean 'retention.ms'?" in out
    declared.declare("-b", 1)
    _, err = declared.run("apply", code=1)
    assert f"{name}-b: created" in err  # what is refused does not hold it up
    assert f"not applied: {name}, {name}-wrong" in err
    assert declared.info().partitions == 2
    (declared.directory / f"{name}-wrong.yaml").unlink()
    declared.declare("", 3, retention_ms="60000", cleanup_policy="")
    _, err = declared.run("apply", "--allow", name, code=1)
    assert "cleanup.policy has no value" in err
    declared.declare("", 3, retention_ms="60000", cleanup_policy='""')
    assert declared.states("apply", "--allow", name) == {"": "done", "-b": "same"}
    info = declared.info()
    assert (info.partitions, info.overridden) == (3, frozenset({"retention.ms", "cleanup.policy"}))
    declared.declare("-b", 1, "deleted: true")
    assert declared.states("apply", code=1) == {"": "same", "-b": "refused"}
    assert declared.states("apply", "--allow", f"{name}-b") == {"": "same", "-b": "done"}
    assert declared.states("plan", "--check") == {"": "same", "-b": "same"}


@pytest.mark.kafka
def test_what_the_brokers_refuse_is_said_in_their_words_before_anything_is_done(declared: Declared) -> None:
    """They alone know what a value may be, and what their policies are."""
    name = declared.declare("", 1)
    declared.run("apply")
    declared.declare("", 3, retention_ms="a week")
    declared.declare("-b", 1, "replication: 99")
    out, err = declared.run("apply", code=1)
    assert "Invalid value a week for configuration retention.ms: Not a number of type LONG" in out
    assert "INVALID_REPLICATION_FACTOR" in out
    assert "there cannot be more replicas than brokers" in out
    assert f"not applied: {name}, {name}-b" in err
    assert declared.info().partitions == 1


@pytest.mark.kafka
def test_an_export_of_odd_topics_is_an_empty_plan(declared: Declared) -> None:
    """Kafka writes values in its own way; what it says of a topic must be what a file may say."""
    command, name = declared.command, declared.name
    command.create(f"{name}-a", 3, cleanup_policy="compact, delete", retention_ms="-1")
    command.create(f"{name}-b", 1, cleanup_policy="", min_cleanable_dirty_ratio="1e-1", preallocate="TRUE")
    command.create(
        f"{name}-c", 1, max_compaction_lag_ms=str(2**63 - 1), min_insync_replicas="2", flush_ms="007"
    )
    command.create(f"{name}-d", 1, leader_replication_throttled_replicas="0:1,1:1", compression_type="zstd")
    export = ("export", "--topic", f"{name}-*")
    out, _ = declared.run(*export)
    assert out.count("written") == 4
    assert declared.states("plan", "--check") == {"-a": "same", "-b": "same", "-c": "same", "-d": "same"}
    file = declared.directory / f"{name}-a.yaml"
    mine = "# mine\n" + file.read_text().replace("owner: describe me", "owner: sales  # or ask")
    file.write_text(mine.replace("partitions: 3", "partitions: 2"))
    _, err = declared.run(*export, code=1)
    assert "1 file not changed: the cluster differs" in err
    out, _ = declared.run(*export, "--overwrite")
    assert out.count("unchanged") == 3
    assert file.read_text() == mine
    out, _ = declared.run("plan", "--all")
    assert f"= {name}-a  as declared" in out


def _on_a_terminal(command: Command, *answers: str) -> tuple[int, str]:
    """Run `topics apply` on a terminal, with answers to its questions. Returns its output."""
    master, slave = pty.openpty()
    with os.fdopen(slave) as terminal:
        process = command.start("topics", "apply", stdin=terminal, stderr=terminal)
    said = b""
    with contextlib.suppress(OSError):  # the terminal is gone when the command has ended
        while more := os.read(master, 1024):
            said += more
            if answers and said.rstrip().endswith(b"[y/N]:"):
                os.write(master, f"{answers[0]}\n".encode())
                answers = answers[1:]
    os.close(master)
    out, _ = process.communicate(timeout=60)
    assert not answers, said
    return process.returncode, out + said.decode()


@pytest.mark.kafka
def test_on_a_terminal_it_asks_before_it_changes_what_is_there(declared: Declared) -> None:
    """The user can refuse the plan; a new topic needs no confirmation."""
    name = declared.declare("", 1)
    assert _on_a_terminal(declared.command)[0] == 0
    declared.declare("", 1, segment_bytes="2000000")
    code, said = _on_a_terminal(declared.command, "n")
    assert code == 1
    assert "segment.bytes  default (1073741824) -> 2000000" in said
    assert declared.states("plan") == {"": "planned"}
    code, said = _on_a_terminal(declared.command, "y")
    assert code == 0
    assert f"{name}: configured" in said


APP = """\
from pipeline import App
app = App("{name}")
orders = app.topic("{name}", value=bytes)
@app.handler(orders)
def handle(event, ctx):
    pass
"""


def _worker_says(command: Command, *arguments: str) -> list[dict[str, Any]]:
    """The log of a worker until it has begun, and its group with it."""
    process = command.start("worker", "shop:app", *arguments)
    assert process.stderr is not None
    lines: list[dict[str, Any]] = []
    for line in process.stderr:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "worker_started":
            break
    process.terminate()
    process.communicate(timeout=60)
    return lines


@pytest.mark.kafka
def test_a_worker_compares_its_topics_with_their_declarations(declared: Declared) -> None:
    """And an input that it has read gets no more partitions from here on, its worker dead or alive."""
    command, name = declared.command, declared.declare("", 1, segment_bytes="3000000")
    (command.directory / "shop.py").write_text(APP.format(name=name))
    command.create(name, 1, segment_bytes="2000000")
    said = [line for line in _worker_says(command) if line["event"].startswith("topic_")]
    assert [(line["setting"], line["declared"], line["actual"]) for line in said] == [
        ("retention.ms", "the cluster's default", "-1"),
        ("segment.bytes", "3000000", "2000000"),
    ]
    declared.declare("", 2, retention_ms="-1", segment_bytes="2000000")
    _, err = command.run("worker", "shop:app", code=1)
    assert f"topic {name} has 1 partition, but topics/{name}.yaml declares 2" in err
    assert "pipeline topics plan --dir topics" in err
    out, _ = declared.run("apply", "--allow", name, code=1)
    assert f"group {name}/main reads the topic: with 2 partitions instead of 1" in out
    assert "runbooks/partitions-changed.md" in out
    _, err = command.run("worker", "shop:app", "--topics-dir", "elsewhere", code=1)
    assert "the directory elsewhere (worker.topics_dir) does not exist" in err


@pytest.mark.kafka
@pytest.mark.kills
@pytest.mark.parametrize("reported", range(6))
def test_an_apply_that_is_killed_leaves_a_plan_that_continues(declared: Declared, reported: int) -> None:
    """SIGKILL amid the steps of a topic, at wherever the process is then: the next run looks, and does the rest."""
    with closing(KafkaCluster(declared.command.settings)) as cluster:
        for number in range(4):
            cluster.create([TopicSpec(f"{declared.name}-{number}", 1, config={"segment.bytes": "2000000"})])
    for number in range(8):
        declared.declare(f"-{number}", 3, retention_ms="-1", cleanup_policy="delete")
    process = declared.command.start("topics", "apply")
    assert process.stderr is not None
    for _ in range(reported):
        assert process.stderr.readline()
    process.kill()
    process.communicate()
    states = declared.states("plan")
    assert set(states.values()) <= {"same", "planned"}
    assert list(states.values()).count("same") >= reported
    declared.run("apply")
    assert set(declared.states("plan", "--check").values()) == {"same"}


def test_topics_are_listed_shown_and_set(declared: Declared) -> None:
    """Runbooks look at topics, and must not need Kafka's own tools."""
    name = declared.declare(partitions=2)
    declared.run("apply")
    listed = json.loads(declared.run("list", "--json")[0])["topics"]
    assert [each["partitions"] for each in listed if each["name"] == name] == [2]
    assert name in declared.run("list")[0]
    shown = json.loads(declared.run("show", name, "--json")[0])
    assert shown["id"] == declared.info().topic_id
    assert shown["offsets"][1] == {
        "partition": 1,
        "start": 0,
        "end": 0,
        "leader": 1,
        "all": [1],
        "in_sync": [1],
    }
    out, _ = declared.run("show", name)
    assert out.splitlines()[0] == f"{name}: 2 partitions, id {declared.info().topic_id}"
    assert out.splitlines()[-1].split() == ["1", "0", "0", "1", "1", "1"]
    (declared.directory / f"{name}.yaml").unlink()
    declared.run("set", name, "retention.ms=5000", code=2)  # nobody to ask
    _, err = declared.run("set", name, "retention.ms=5000", "cleanup.policy=compact", "--yes")
    assert "cleanup.policy=delete -> compact" in err
    assert declared.info().config["retention.ms"] == "5000"
    assert "  retention.ms=5000\n" in declared.run("show", name)[0]
    declared.run("set", name, "retention.ms=", "--yes")
    assert "retention.ms" not in declared.info().overridden
    assert "there is no topic" in declared.run("show", f"{name}x", code=1)[1]
    declared.run("set", name, "retention.ms", "--yes", code=2)


def test_a_declared_topic_is_set_only_by_its_declaration(declared: Declared) -> None:
    """Otherwise, lower retention would delete records without --allow, and the next apply would undo the change."""
    name = declared.declare(retention_ms="86400000")
    declared.run("apply")
    _, err = declared.run("set", name, "retention.ms=5000", "--yes", code=1)
    assert f"topic {name} is declared in topics/{name}.yaml" in err
    assert f"change topics/{name}.yaml, and run: pipeline topics apply" in err
    (declared.directory / f"{name}.yaml").rename(declared.directory / f"{name}.yml")
    declared.run("set", name, "retention.ms=5000", "--yes", "--dir", str(declared.directory), code=1)
    assert declared.info().config["retention.ms"] == "86400000"


def test_a_journal_gets_no_setting_but_the_one_that_it_needs(declared: Declared) -> None:
    """A journal that expires has lost what has happened."""
    _, err = declared.run("set", "delays.main.journal", "retention.ms=5000", "--yes", code=1)
    assert "needs retention.ms=-1" in err
    assert "pipeline topics set delays.main.journal retention.ms=-1" in err
