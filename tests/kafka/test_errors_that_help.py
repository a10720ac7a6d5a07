"""What goes wrong around a worker: each time it says what, where and what to do next, and nothing is lost.

Every test reads the text that an operator gets, mends the cause, and compares outputs and tables with a fold.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from pipeline.config import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.conftest import KafkaUnderTest
from tests.kafka.troubled_bench import TroubledBench
from tests.kafka.workbench import DEADLINE_S, PARTITIONS

pytestmark = pytest.mark.kafka


@pytest.fixture
def bench(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[TroubledBench]:
    """Topics, state directory and processes of one test."""
    made = TroubledBench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
    yield made
    made.close()


def _configure(bench: TroubledBench, topic: str, name: str, value: str) -> None:
    """Alter a setting of a topic, and wait until the cluster shows it."""
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bench.servers})
    [done] = admin.incremental_alter_configs([resource]).values()
    done.result(DEADLINE_S)
    cluster = KafkaCluster(KafkaSettings(bench.servers))
    while cluster.describe([topic])[topic].config[name] != value:
        pass


# Records that cannot be processed


@pytest.mark.parametrize(
    ("trouble", "facts"),
    [
        ("raises", ["ValueError: no such carrier"]),
        ("sends elsewhere", ["'elsewhere'", "is not declared by this app"]),
        ("sends too much", ["a record of 300", "is over the limit of topic {prefix}-sums (19744 bytes)"]),
        ("sends too much", ["raise max.message.bytes of the topic and start the worker again"]),
    ],
)
def test_a_handler_that_fails_stops_its_task_with_the_record_and_is_mended_by_the_next_start(
    bench: TroubledBench, trouble: str, facts: list[str]
) -> None:
    """Its writes and outputs are taken back, so the mended handler finds everything as it was."""
    _configure(bench, f"{bench.prefix}-sums", "max.message.bytes", "20000")
    bench.send(100)
    worker = bench.troubled_worker(trouble, at=60)
    failed = bench.wait_for_event("task_failed")
    for fact in [*facts, "cannot be processed by add", f"{bench.prefix}-amounts[", "troubles.py"]:
        assert fact.format(prefix=bench.prefix) in failed["reason"]
    assert failed["task"].startswith(f"{bench.prefix}/main/")
    assert "mend the handler or the record and start the worker again" in failed["next"]
    assert "runbooks/poison-record.md" in failed["next"]
    assert bench.stop(worker) == 1
    bench.finish()


BAD_RECORDS = [(b"\xff", b'{"n": 1}'), (b"key-1", b"{broken")]


def test_a_key_that_cannot_be_decoded_stops_its_task_and_is_passed_over_under_skip(
    bench: TroubledBench,
) -> None:
    """No handler has seen it; the text names the record all the same, and skipping costs no other one."""
    bench.send(100)
    for key, value in BAD_RECORDS:
        bench.send_raw(key, value)
    bench.send(100)
    worker = bench.troubled_worker()
    failed = bench.wait_for_event("task_failed", times=2)  # one in each group
    assert bench.stop(worker) == 1
    assert f"the record {bench.prefix}-amounts[0] offset" in failed["reason"]
    assert "UnicodeDecodeError" in failed["reason"]
    assert "on_error='skip' or 'dead_letter' lets others pass: runbooks/poison-record.md" in failed["next"]
    worker = bench.troubled_worker(policy="skip")
    bench.settle(worker)
    rejected = bench.events("record_rejected")
    assert len(rejected) == len(BAD_RECORDS) * 2
    assert {event["policy"] for event in rejected} == {"skip"}
    assert all(event["record"].startswith(f"{bench.prefix}-amounts[0] offset ") for event in rejected)
    assert {event["error"].partition(":")[0] for event in rejected} == {"UnicodeDecodeError", "DecodeError"}


# What is too large


def test_topics_with_small_limits_take_everything_in_smaller_batches(bench: TroubledBench) -> None:
    """Outputs share batches, and a commit's entry is larger than any of them: none may wedge the task."""
    bench.send(5_000, keys=2_000)
    for name in ("amounts", "sums"):
        _configure(bench, f"{bench.prefix}-{name}", "max.message.bytes", "2000")
    bench.finish()
    assert bench.events("commit_aborted") == []


def test_a_dead_letter_may_be_as_large_as_the_largest_input(bench: TroubledBench) -> None:
    """It is the record with a few headers more: were it refused, one bad record would stop the task for ever."""
    bench.send(50)
    bench.send_raw(b"key-1", os.urandom(1_048_400))
    bench.send(50)
    bench.settle(bench.troubled_worker(policy="dead_letter"))
    assert len(bench.events("record_rejected")) == 2  # by each group
    assert bench.events("commit_aborted") == []


def test_a_limit_lowered_under_a_running_worker_stops_it_with_what_to_do(bench: TroubledBench) -> None:
    """Each record fits and the batch does not; the next start sends smaller batches."""
    bench.send(100)
    worker = bench.worker("--commit-interval-ms", "500")
    bench.wait_for_outputs(worker)
    _configure(bench, f"{bench.prefix}-sums", "max.message.bytes", "600")
    bench.send(1_000, keys=1_000)
    failed = bench.wait_for_event("task_failed", times=PARTITIONS)
    assert "a commit was aborted 5 times in a row" in failed["reason"]
    assert f"{bench.prefix}-sums" in failed["reason"]
    assert "start the worker again, it reads the limits at its start" in failed["next"]
    assert "nothing is lost" in failed["next"]
    assert bench.stop(worker) == 1
    bench.finish()


# Kafka away at the start


def test_a_start_without_kafka_says_where_it_looked_and_the_next_one_has_lost_nothing(
    bench: TroubledBench,
) -> None:
    """An address mistyped in one deployment must not cost anything in the next."""
    bench.send(50)
    bench.finish()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        wrong = f"127.0.0.1:{free.getsockname()[1]}"
    done = bench.command(
        "worker", "tests.kafka.sums:app", "--kafka", wrong, "--state-dir", str(bench.state_dir)
    )
    assert done.returncode == 3
    assert f"no Kafka at {wrong} (connection refused)" in done.stderr
    assert "name another with --kafka or PIPELINE_KAFKA" in done.stderr
    bench.send(50)
    bench.finish()


# Topics that are not what they were


def test_an_input_that_grew_stops_the_worker_and_keeps_what_was_committed(bench: TroubledBench) -> None:
    """Keys have moved to partitions where nobody knows their totals: the numbers would begin again at zero."""
    bench.environment |= {"PIPELINE_CHECK_INTERVAL_S": "0.5"}
    bench.send(100)
    worker = bench.worker()
    bench.catch_up(worker)  # the other group, too, which has no outputs
    topic = f"{bench.prefix}-amounts"
    admin = AdminClient({"bootstrap.servers": bench.servers})
    grown = admin.create_partitions([NewPartitions(topic, 3)])
    grown[topic].result(DEADLINE_S)
    assert worker.wait(DEADLINE_S) == 1
    failed = bench.wait_for_event("task_failed", times=2 * PARTITIONS)
    assert f"topic {topic} had 2 partitions and has 3" in failed["reason"]
    assert "runbooks/partitions-changed.md" in failed["next"]
    again = bench.refused().stderr
    assert (
        f"its journal {bench.prefix}.main.journal has 2 partitions, its input {bench.prefix}-amounts has 3"
        in again
    )
    assert "runbooks/partitions-changed.md" in again
    bench.check()


def test_a_recreated_input_keeps_what_was_committed(bench: TroubledBench) -> None:
    """The refusal touches nothing: outputs and tables of the old topic can be read for as long as one likes."""
    bench.environment |= {"PIPELINE_CHECK_INTERVAL_S": "0.5"}
    bench.send(100)
    worker = bench.worker()
    bench.catch_up(worker)  # the other group, too, which has no outputs
    cluster = KafkaCluster(KafkaSettings(bench.servers))
    cluster.delete([f"{bench.prefix}-amounts"])
    cluster.create([TopicSpec(f"{bench.prefix}-amounts", PARTITIONS)])
    assert worker.wait(DEADLINE_S) == 1
    failed = bench.wait_for_event("task_failed")
    assert f"topic {bench.prefix}-amounts was deleted" in failed["reason"]
    assert "runbooks/topic-recreated.md" in failed["next"]
    assert "deleted and created again" in bench.refused().stderr
    bench.check()


@pytest.mark.parametrize(("name", "wrong"), [("retention.ms", "604800000"), ("max.message.bytes", "100000")])
def test_a_journal_with_a_wrong_setting_is_refused_with_the_command_that_mends_it(
    bench: TroubledBench, name: str, wrong: str
) -> None:
    """One would delete the only copy of the state after a week, the other refuse the first large commit."""
    bench.send(50)
    bench.finish()
    journal = f"{bench.prefix}.main.journal"
    right = KafkaCluster(KafkaSettings(bench.servers)).describe([journal])[journal].config[name]
    _configure(bench, journal, name, wrong)
    said = bench.refused().stderr
    assert f"topic {journal} has {name}={wrong}" in said
    assert f"--alter --topic {journal} --add-config {name}={right}" in said
    _configure(bench, journal, name, right)
    bench.send(50)
    bench.finish()


# The state directory


def _files(bench: TroubledBench) -> Path:
    """The directory of task main/0."""
    return bench.state_dir / bench.prefix / "main" / "0"


def _flip_a_byte(directory: Path) -> None:
    """In the middle of the values, far from the position that a start reads."""
    table = max(directory.glob("*.sst"), key=lambda file: file.stat().st_size)
    content = bytearray(table.read_bytes())
    content[len(content) // 3] ^= 0xFF
    table.write_bytes(content)


def _empty_current(directory: Path) -> None:
    (directory / "CURRENT").write_bytes(b"")


def _delete_manifest(directory: Path) -> None:
    for manifest in directory.glob("MANIFEST-*"):
        manifest.unlink()


@pytest.mark.parametrize("damage", [_empty_current, _delete_manifest])
def test_a_damaged_state_is_set_aside_and_restored_from_the_journal(
    bench: TroubledBench, damage: object
) -> None:
    """It is a cache: damage costs time, and the warning says where the damaged one is kept."""
    assert callable(damage)
    bench.send(200)
    bench.finish()
    damage(_files(bench))
    bench.send(100)
    bench.finish()
    [warning] = bench.events("local_state_set_aside")
    kept = Path(warning["kept_at"])
    assert kept == _files(bench).with_name("0.aside-1")
    assert kept.is_dir()
    assert str(_files(bench)) in warning["reason"]
    assert warning["task"] == f"{bench.prefix}/main/0"


def test_a_flipped_byte_is_found_by_the_handler_that_reads_it_and_costs_nothing(bench: TroubledBench) -> None:
    """No start reads every block; the worker that meets it restores the task and goes on by itself."""
    bench.send(4_000, keys=4_000)
    bench.finish()
    bench.finish()  # its start moves what was in the write-ahead log into a table file
    _flip_a_byte(_files(bench))
    bench.send(4_000, keys=4_000)
    bench.finish()
    [warning] = bench.events("local_state_set_aside")
    assert f"the state {_files(bench)} cannot be read: Corruption" in warning["reason"]
    assert Path(warning["kept_at"]).is_dir()
    assert bench.events("task_failed") == []


def test_a_state_directory_that_cannot_be_written_is_named_with_the_setting(bench: TroubledBench) -> None:
    """A mount that came up read-only, or somebody's file in its place."""
    bench.send(50)
    bench.state_dir.write_text("in the way")
    said = bench.refused().stderr
    assert f"cannot use the state directory {bench.state_dir}: Not a directory" in said
    assert "choose a directory that this user can write, with --state-dir or worker.state_dir" in said
    bench.state_dir.unlink()
    bench.finish()


def _root(*command: str) -> str:
    """Run a command of the system; what it complains of."""
    path = shutil.which(command[0])
    if os.geteuid() != 0 or path is None:
        return "it takes root"
    done = subprocess.run([path, *command[1:]], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


@pytest.fixture
def mounted() -> Iterator[list[Path]]:
    """Directories that a test mounted; unmounted at its end."""
    made: list[Path] = []
    yield made
    for directory in made:
        assert _root("umount", "-l", str(directory)) == ""


def _mount(mounted: list[Path], directory: Path, *arguments: str) -> None:
    complaint = _root("mount", *arguments, str(directory))
    if complaint:
        pytest.skip(f"nothing can be mounted here: {complaint}")
    if directory not in mounted:
        mounted.append(directory)


def _fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def test_a_state_directory_on_a_read_only_disk_is_named(bench: TroubledBench, mounted: list[Path]) -> None:
    """Linux remounts a failing disk read-only: the worker must neither hang nor take it for damage."""
    bench.send(100)
    bench.finish()
    _mount(mounted, bench.state_dir, "--bind", str(bench.state_dir))
    _mount(mounted, bench.state_dir, "-o", "remount,bind,ro")
    said = bench.refused().stderr
    assert f"cannot use the state directory {bench.state_dir}: Read-only file system" in said
    assert "choose a directory that this user can write, with --state-dir or worker.state_dir" in said
    assert not list(bench.state_dir.rglob("*.aside-*"))
    assert _root("umount", str(mounted.pop())) == ""
    bench.send(100)
    bench.finish()


def test_a_full_disk_stops_the_task_and_the_next_start_goes_on_once_there_is_space(
    bench: TroubledBench, mounted: list[Path]
) -> None:
    """What did not fit is in the journal already: it is applied when there is room."""
    bench.state_dir.mkdir()
    _mount(mounted, bench.state_dir, "-t", "tmpfs", "-o", "size=12m", "tmpfs")
    bench.send(200)
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    ballast = bench.state_dir / "ballast"
    _fill(ballast)
    bench.send(5_000, keys=5_000)
    failed = bench.wait_for_event("task_failed", times=2)
    assert f"the state {bench.state_dir / bench.prefix}" in failed["reason"]
    assert "No space left on device" in failed["reason"]
    assert failed["next"] == "free space on that disk and start the worker again"
    if worker.poll() is None:
        bench.stop(worker)
    assert worker.returncode == 1
    again = bench.refused().stderr
    assert "No space left on device" in again
    ballast.unlink()
    bench.finish()


# A handler that does not return


@pytest.mark.parametrize("trouble", ["hangs", "hangs in C"])
def test_a_handler_that_never_returns_is_named_and_sigterm_ends_the_worker(
    bench: TroubledBench, trouble: str
) -> None:
    """Also inside a C library, where Python's own signal handlers would wait as long as the handler does."""
    bench.send(100)
    bench.environment |= {"PIPELINE_HANDLER_WARNING_S": "0.4", "PIPELINE_STOP_TIMEOUT_S": "1.5"}
    worker = bench.troubled_worker(trouble, at=60)
    warning = bench.wait_for_event("handler_has_not_returned")
    assert (warning["handler"], warning["topic"]) == ("add", f"{bench.prefix}-amounts")
    place = f"{warning['topic']}[{warning['partition']}] offset {warning['offset']}"
    assert "troubles.py" in str(warning["stack"])
    assert bench.stop(worker) == 1
    left = bench.wait_for_event("worker_left")
    assert left["reason"] == (
        f"the worker was told to stop 1.5 s ago, and handler add has not returned from {place}"
    )
    assert "nothing is lost" in str(left["next"])
    assert "runbooks/handler-hangs.md" in str(left["next"])
    bench.finish()


def test_a_second_interrupt_ends_a_worker_whose_handler_hangs_at_once(bench: TroubledBench) -> None:
    """Whoever sits in front of it need not wait for the time-out; a second SIGTERM is often sent by mistake."""
    bench.send(20)
    bench.environment |= {"PIPELINE_HANDLER_WARNING_S": "0.2"}
    worker = bench.troubled_worker("hangs in C", at=10)
    bench.wait_for_event("handler_has_not_returned")
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.5)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(DEADLINE_S) == 130
    bench.finish()
