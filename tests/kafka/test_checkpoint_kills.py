"""Workers with a checkpoint store, on a real Kafka and a real disk, killed at each step of checkpoints and restores.

As in test_worker_kills.py, after each kill the outputs must match the journal's end and the tables their own
position. At the end, all inputs must be processed. Here journals are also truncated, and disks are lost.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
import pytest

from pipeline.config import KafkaSettings
from pipeline.core.checkpoint import KEPT
from pipeline.core.names import TaskId, checkpoint_prefix
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.object_store.checkpoint_store import open_checkpoint_store
from pipeline.runtime.restore.restore_source import read_manifest, registered
from tests.conftest import KafkaUnderTest
from tests.support.kafka.harness import Workbench
from tests.support.runtime.steps import CHECKPOINT_STEPS, DOWNLOAD_STEPS

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

JOURNAL_BYTES = 4_000


@pytest.fixture
def checkpointed(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Workbench]:
    """A workbench whose workers make a checkpoint every few commits and delete unused objects at once."""
    name = unique_name[-40:].strip("-")
    bench = Workbench(kafka.bootstrap_servers, name, tmp_path, partitions=5, tasks=2)
    place = tmp_path / "checkpoints"
    place.mkdir()
    bench.environment = {
        "PIPELINE_WORKER_ID": "killed",  # see tests/support/kafka/kill_at.py
        "PIPELINE_CHECKPOINT_STORE": place.as_uri(),
        "PIPELINE_CHECKPOINT_INTERVAL_S": "0.3",
        "PIPELINE_CHECKPOINT_JOURNAL_BYTES": str(JOURNAL_BYTES),
        "PIPELINE_CHECKPOINT_GRACE_S": "0",
    }
    yield bench
    bench.close()


def tasks(bench: Workbench) -> list[TaskId]:
    return [TaskId(bench.prefix, group, n) for group in bench.groups for n in range(bench.tasks)]


def starts(bench: Workbench) -> list[str]:
    """How each task was restored, in the order in which they became live."""
    lines = [line for line in bench.log.read_text().splitlines() if line.startswith("{")]
    return [
        said["restored_from"]
        for line in lines
        if (said := msgspec.json.decode(line)).get("event") == "task_live"
    ]


def grow(bench: Workbench) -> None:
    """Run a worker until the journal of every task is truncated."""
    worker = bench.worker("--commit-interval-ms", "20")
    reader = KafkaJournalReader(KafkaSettings(bench.servers))
    while True:
        bench.send(100)
        bench.catch_up(worker)
        if all(reader.bounds(task.journal).start > 0 for task in tasks(bench)):
            break
    reader.close()
    worker.kill()
    assert worker.wait() == -signal.SIGKILL
    bench.reference.check_at_rest(bench.state_dir)


def finish_on_an_empty_disk(bench: Workbench) -> None:
    """Every task is restored from its checkpoint, and the results are exact."""
    shutil.rmtree(bench.state_dir)
    done = len(starts(bench))
    bench.send(200)
    bench.finish()
    assert starts(bench)[done:] == ["a checkpoint"] * len(tasks(bench))


@pytest.mark.kills
@pytest.mark.timeout(600)
def test_kills_at_each_step_of_a_checkpoint_leave_outputs_and_tables_exact(checkpointed: Workbench) -> None:
    """A crash between any two steps of a checkpoint must leave a state that the next worker can restore."""
    grow(checkpointed)
    for step in CHECKPOINT_STEPS:
        checkpointed.kill_while_running(step.name, 1)
    finish_on_an_empty_disk(checkpointed)


@pytest.mark.kills
@pytest.mark.timeout(600)
def test_kills_at_each_step_of_a_download_leave_outputs_and_tables_exact(checkpointed: Workbench) -> None:
    """A partial download must never be opened as a state."""
    grow(checkpointed)
    for step in DOWNLOAD_STEPS:
        shutil.rmtree(checkpointed.state_dir)
        for _ in range(2):
            checkpointed.send(20)
            checkpointed.kill_while_starting(step.name, 1)
    finish_on_an_empty_disk(checkpointed)


def test_kills_at_random_moments_leave_a_journal_that_is_bounded(checkpointed: Workbench) -> None:
    """Without truncation, journals would grow without bound, also if workers often crash."""
    grow(checkpointed)
    for _ in range(3):
        worker = checkpointed.worker("--commit-interval-ms", "5")
        for _ in range(10):
            checkpointed.send(100)
            checkpointed.wait_for_outputs(worker)
        worker.kill()
        worker.wait()
        checkpointed.reference.check_at_rest(checkpointed.state_dir)
    finish_on_an_empty_disk(checkpointed)
    reader = KafkaJournalReader(KafkaSettings(checkpointed.servers))
    for task in tasks(checkpointed):
        bounds = reader.bounds(task.journal)
        kept = registered(task, reader, bounds.start, bounds.stable_end)
        assert len(kept) == KEPT
        assert all(candidate.problem is None for candidate in kept)
        assert bounds.start == kept[-1].ref.offset
        held = sum(len(chunk) for _, chunk in reader.read(task.journal, bounds.start, bounds.stable_end))
        assert held < 20 * JOURNAL_BYTES
    reader.close()
    check_commands(checkpointed)
    # One checkpoint is now damaged, and its task is restored from the previous one.
    finish_on_an_empty_disk(checkpointed)
    assert checkpointed.log.read_text().count("checkpoint_refused") == 1


def check_commands(bench: Workbench) -> None:
    """Check without a worker that the commands list all objects, that none is damaged or unused, and report damage."""
    for group in bench.groups:
        listed = bench.command(
            "checkpoints", "list", bench.prefix, "--group", group, "--kafka", bench.servers, "--json"
        )
        assert listed.returncode == 0, listed.stderr
        found = [msgspec.json.decode(line) for line in listed.stdout.splitlines()]
        assert [len(task["checkpoints"]) for task in found] == [KEPT] * bench.tasks
        assert all(task["restorable"] for task in found)
    arguments = (bench.prefix, "--kafka", bench.servers, "--task", "0")
    pruned = bench.command("checkpoints", "prune", *arguments)
    assert pruned.returncode == 0, pruned.stderr
    checked = bench.command("checkpoints", "verify", *arguments)
    assert (checked.returncode, checked.stdout.count(" ok")) == (0, KEPT), checked.stdout
    place = Path(unquote(urlsplit(bench.environment["PIPELINE_CHECKPOINT_STORE"]).path))
    flip_a_byte_of_the_newest(bench, TaskId(bench.prefix, "main", 0), place)
    checked = bench.command("checkpoints", "verify", *arguments)
    assert (checked.returncode, checked.stdout.count(" ok")) == (1, KEPT - 1), checked.stdout
    assert "its content has another hash" in checked.stdout
    refused = bench.command("checkpoints", "list", bench.prefix, "--store", "file:///nowhere/at/all")
    assert (refused.returncode, "mkdir -p" in refused.stderr) == (1, True)


def flip_a_byte_of_the_newest(bench: Workbench, task: TaskId, place: Path) -> None:
    """Damage an object that only the newest checkpoint names."""
    reader = KafkaJournalReader(KafkaSettings(bench.servers))
    bounds = reader.bounds(task.journal)
    store = open_checkpoint_store(place.as_uri())
    assert store is not None
    (cluster_id,) = (path.name for path in place.iterdir())
    newest, *older = (
        read_manifest(store, cluster_id, task, found.ref)
        for found in registered(task, reader, bounds.start, bounds.stable_end)
    )
    shared = {name for manifest in older for name in manifest.objects}
    name = max(newest.objects.keys() - shared, key=lambda name: newest.objects[name])
    path = place / checkpoint_prefix(cluster_id, task) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    reader.close()
