"""Dead letters on a real Kafka, from the handler's error to the replay, with kills of workers and replays."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.core.names import GroupId, TopicPartition, replay_marks_topic
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from tests.conftest import KafkaUnderTest
from tests.support.kafka.harness import DEADLINE_S, Workbench
from tests.support.kafka.kill_load_at import Point
from tests.support.kafka.letters import EVERY, MENDED, SKIPPING
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

APP = "tests.support.kafka.letters:app"
INPUTS = 300
BAD = len(range(0, INPUTS, EVERY))


class Letters(Workbench):
    """The app of `tests.support.kafka.letters`, its dead letters, and the commands for them."""

    def __init__(self, servers: str, prefix: str, directory: Path) -> None:
        super().__init__(servers, prefix, directory, groups=("main",))
        self.group = GroupId(prefix, "main")
        self._directory = directory

    def start(self) -> subprocess.Popen[bytes]:
        """Start a worker; it has the corrected handler after `fix()`."""
        return self._spawn(
            "-m", "pipeline", "worker", APP, "--kafka", self.servers, "--state-dir", str(self.state_dir),
            "--commit-interval-ms", "20",
        )  # fmt: skip

    def fix(self) -> None:
        """From now on, workers run a handler that accepts every input."""
        self.environment[MENDED] = "1"

    def deadletters(self, *arguments: str, code: int = 0) -> list[Any]:
        """The output of `pipeline deadletters ... --json`."""
        name, *rest = arguments
        done = self.command("deadletters", name, APP, *rest, "--kafka", self.servers, "--json")
        assert done.returncode == code, done.stderr
        return [msgspec.json.decode(line) for line in done.stdout.splitlines()]

    def open_letters(self) -> tuple[int, bool]:
        """The number of open dead letters in `pipeline status`, and whether all are counted."""
        done = self.command("status", self.prefix, "--kafka", self.servers, "--json")
        (group,) = msgspec.json.decode(done.stdout)["dead_letters"]
        assert group["group"] == "main"
        return group["open"], group["complete"]

    def replay_killed_at(self, point: Point, nth: int = 1) -> None:
        """Run a replay that kills itself at a point. Records and marks must be committed together or not at all."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.kafka.kill_load_at", point.name, str(nth),
             "deadletters", "replay", APP, "--kafka", self.servers],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        marks = replay_marks_topic(self.prefix)
        self.wait_until(lambda: self.committed(self.group.replays_topic) == self.committed(marks))

    def committed(self, topic: str) -> int:
        """The number of committed records in a topic; 0 if it does not exist."""
        with (
            closing(KafkaCluster(self._kafka)) as cluster,
            closing(KafkaJournalReader(self._kafka)) as reader,
        ):
            found = cluster.describe([topic]).get(topic)
            places = [TopicPartition(topic, number) for number in range(found.partitions if found else 0)]
            bounds = {place: reader.bounds(place) for place in places}
            return sum(1 for p, b in bounds.items() for _ in reader.read(p, b.start, b.stable_end))

    def check_topics(self) -> None:
        """Check that dead letters keep old timestamps, and that the records of both topics never expire."""
        with closing(KafkaCluster(self._kafka)) as cluster:
            found = cluster.describe([self.group.dead_letter_topic, self.group.replays_topic])
        assert len(found) == 2
        for topic in found.values():
            assert (topic.config["retention.ms"], topic.config["retention.bytes"]) == ("-1", "-1")
            assert topic.config["cleanup.policy"] == "delete"
        letter = found[self.group.dead_letter_topic]
        assert letter.config["message.timestamp.type"] == "CreateTime"
        assert int(letter.config["message.timestamp.after.max.ms"]) > 10**15

    def wait_until(self, condition: Any) -> None:
        wait_until(condition, self.log.read_text)

    def fail(self) -> None:
        """Send inputs, of which every seventh becomes a dead letter, and kill the worker."""
        self.send(INPUTS)
        worker = self.start()
        outputs, letters = f"{self.prefix}-sums", self.group.dead_letter_topic
        self.wait_until(lambda: self.committed(outputs) == INPUTS - BAD and self.committed(letters) == BAD)
        worker.kill()
        worker.wait()

    def finish(self, letters: int = BAD) -> None:
        """Run a fixed worker to the end, and check that every input counted once."""
        outputs = f"{self.prefix}-sums"
        live = self.log.read_text().count("task_live")
        worker = self.start()
        self.wait_until(lambda: self.log.read_text().count("task_live") >= live + self.partitions)
        self.wait_until(lambda: self.committed(outputs) >= INPUTS)
        assert self.stop(worker) == 0, self.log.read_text()
        assert self.committed(outputs) == INPUTS
        counts = Counter(key for key, _ in self.sent)
        totals: Counter[str] = Counter()
        for key, number in self.sent:
            totals[key] += number
        expected = {key: {"count": counts[key], "total": totals[key]} for key in counts}
        assert self.table("main") == expected
        assert self.committed(self.group.dead_letter_topic) == letters


@pytest.fixture
def letters(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Letters]:
    """The topics, the state directory and the processes of one test."""
    made = Letters(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
    yield made
    made.close()


def test_dead_letters_count_once_although_worker_and_replay_are_killed(letters: Letters) -> None:
    """Crashes at any time between the error and the replay must not change the results."""
    letters.fail()
    letters.check_topics()
    assert letters.open_letters() == (BAD, True)
    listed = letters.deadletters("list")
    assert len(listed) == BAD
    assert {(row["handler"], row["replayed"], row["attempts"]) for row in listed} == {("add", None, 1)}
    one = listed[0]
    (shown,) = letters.deadletters("show", one["id"])
    assert shown["value"] == {"n": int(one["error"].split()[1])}
    assert "cannot be added yet" in shown["traceback"]
    assert "letters.py" in shown["traceback"]

    letters.fix()
    worker = letters.start()
    letters.replay_killed_at(Point.DURING_COMMIT)
    (done,) = letters.deadletters("replay")
    assert done["replayed"] + done["already_handled"] == BAD
    assert letters.open_letters() == (0, True)
    worker.kill()  # in the middle of them
    worker.wait()
    letters.finish()


def test_a_record_that_failed_again_and_again_is_replayed_once_by_again(letters: Letters) -> None:
    """Three dead letters of one record must be one record for `list` and `replay --again`, and count once."""
    letters.fail()
    worker = letters.start()
    for failures in (2, 3):
        (done,) = letters.deadletters("replay", "--again")
        assert done["replayed"] == BAD
        topic = letters.group.dead_letter_topic
        letters.wait_until(lambda failures=failures, topic=topic: letters.committed(topic) == failures * BAD)
    worker.kill()
    worker.wait()
    assert letters.open_letters() == (BAD, True)
    listed = letters.deadletters("list")
    assert [(row["dead_letters"], row["state"], row["replay"]) for row in listed] == [(3, "open", 2)] * BAD
    letters.fix()
    (done,) = letters.deadletters("replay", "--again")
    assert done["replayed"] == BAD
    assert letters.deadletters("discard", "--all") == [
        {"discarded": 0, "already_handled": BAD, "dry_run": False}
    ]
    waiting = {"deleted": 2 * BAD, "open": 0, "waiting": BAD, "blocked": 0}
    assert letters.deadletters("purge") == [{**waiting, "dry_run": True}]
    letters.finish(letters=3 * BAD)
    handled = {"deleted": 3 * BAD, "open": 0, "waiting": 0, "blocked": 0}
    assert letters.deadletters("purge") == [{**handled, "dry_run": True}]
    assert letters.deadletters("purge", "--yes") == [{**handled, "dry_run": False}]
    assert letters.open_letters() == (0, True)
    assert letters.committed(topic) == 0


def test_replays_are_handled_after_their_topic_was_deleted_between_two_releases(letters: Letters) -> None:
    """The positions in the old topic must not skip the first records of the new one."""
    letters.fail()
    letters.fix()
    outputs = f"{letters.prefix}-sums"
    letters.deadletters("replay", "--max", str(BAD // 2))
    worker = letters.start()
    letters.wait_until(lambda: letters.committed(outputs) == INPUTS - BAD + BAD // 2)
    assert letters.stop(worker) == 0
    with closing(KafkaCluster(letters._kafka)) as cluster:
        cluster.delete([letters.group.replays_topic])
    letters.environment[SKIPPING] = "1"
    live = letters.log.read_text().count("task_live")
    worker = letters.start()
    letters.wait_until(lambda: letters.log.read_text().count("task_live") >= live + letters.partitions)
    assert letters.stop(worker) == 0
    del letters.environment[SKIPPING]
    worker = letters.start()
    letters.wait_until(lambda: letters.log.read_text().count("task_live") >= live + 2 * letters.partitions)
    (done,) = letters.deadletters("replay")
    assert (done["replayed"], done["already_handled"]) == (BAD - BAD // 2, BAD // 2)
    letters.wait_until(lambda: letters.committed(outputs) == INPUTS)
    assert letters.stop(worker) == 0
    letters.finish()


def test_records_that_retention_removed_are_named(letters: Letters) -> None:
    """The dead-letter topic of the group exists, so no message may report that it was deleted."""
    letters.fail()
    letters.send(20)
    place = TopicPartition(f"{letters.prefix}-amounts", 0)
    with (
        closing(KafkaCluster(letters._kafka)) as cluster,
        closing(KafkaJournalReader(letters._kafka)) as reader,
    ):
        cluster.truncate(place, reader.bounds(place).stable_end)
    worker = letters.start()
    letters.wait_until(lambda: "task_failed" in letters.log.read_text())
    said = letters.log.read_text()
    assert f"{place}: position " in said
    assert "is outside of the partition's offsets" in said
    assert "runbooks/input-expired.md" in said
    assert "dead-letters, which this task writes to, was deleted" not in said
    letters.stop(worker)


@pytest.mark.kills
def test_kills_at_each_point_of_a_replay_lose_and_double_no_record(letters: Letters) -> None:
    """A replay must continue after a kill at any point, with some dead letters already replayed."""
    letters.fail()
    letters.fix()
    for point in Point:
        letters.replay_killed_at(point)
        if point is Point.DURING_COMMIT:
            break  # from here on all may be committed, so the point may not be reached
    letters.deadletters("replay", "--max", "3")
    letters.deadletters("replay")
    assert letters.deadletters("replay") == [
        {"replayed": 0, "already_handled": BAD, "refused": [], "dry_run": False}
    ]
    letters.finish()


@pytest.mark.kills
@pytest.mark.parametrize("kills", [1, 3, 6])
def test_a_worker_killed_again_and_again_handles_each_replay_once(letters: Letters, kills: int) -> None:
    """Its position in the replays topic must be committed together with the results."""
    letters.fail()
    letters.fix()
    outputs = f"{letters.prefix}-sums"
    for _ in range(kills):
        letters.deadletters("replay", "--max", str(BAD // kills))
        before = letters.committed(outputs)
        worker = letters.start()
        letters.wait_until(lambda before=before: letters.committed(outputs) > before)
        worker.kill()
        worker.wait()
    letters.deadletters("replay")
    letters.finish()


@pytest.mark.kills
def test_two_replays_at_once_replay_each_letter_once(letters: Letters) -> None:
    """The newer replay fences the older one, which must report it, and no dead letter may be replayed twice."""
    letters.fail()
    letters.fix()
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline", "deadletters", "replay", APP, "--kafka", letters.servers],
            env=letters._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=DEADLINE_S) for process in both]
    for process, (_, err) in zip(both, said, strict=True):
        assert process.returncode == 0 or b"a newer replay" in err
    letters.deadletters("replay")
    letters.finish()
