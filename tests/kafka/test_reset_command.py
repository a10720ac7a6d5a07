"""`pipeline reset` on a real Kafka, with running, stopped and killed workers."""

from __future__ import annotations

import signal

import msgspec
import pytest

from pipeline.core.records import partition_of
from tests.support.kafka.harness import PARTITIONS, Workbench
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


def _reset(bench: Workbench, *arguments: str) -> tuple[int, list[dict[str, object]], str]:
    done = bench.command(
        "reset", "tests.support.kafka.sums:app", "--kafka", bench.servers, "--json", *arguments
    )
    return done.returncode, [msgspec.json.decode(line) for line in done.stdout.splitlines()], done.stderr


def _wait_for_counts(bench: Workbench, total: int) -> None:
    wait_until(lambda: bench.counted() == total, bench.log.read_text)


def test_a_running_worker_takes_a_reset_up_by_itself(bench: Workbench) -> None:
    """An operator must not have to stop workers: they must process the input of fenced tasks again."""
    bench.send(500)
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    _wait_for_counts(bench, 500)

    code, planned, said = _reset(bench, "--dry-run")
    assert code == 0, said
    assert {(row["app"], row["group"], row["task"]) for row in planned} == {
        (bench.prefix, group, p) for group in ("main", "counting") for p in range(PARTITIONS)
    }
    assert "produced again" in said
    assert f"{bench.prefix}-sums" in said
    assert bench.outputs() == bench.expected()

    code, _, said = _reset(bench, "--yes")
    assert code == 0, said
    bench.wait_for_outputs(worker, at_least=1_000)
    _wait_for_counts(bench, 500)
    assert bench.stop(worker) == 0, bench.log.read_text()
    once = bench.expected()
    assert bench.outputs() == {key: values * 2 for key, values in once.items()}
    assert bench.table("main") == {
        key: {"count": values[-1][0], "total": values[-1][1]} for key, values in once.items()
    }


def test_a_reset_after_a_kill_is_what_the_next_start_finds(bench: Workbench) -> None:
    """The journal must override a local state that still has the data from before the reset."""
    bench.send(500)
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    worker.kill()
    assert worker.wait() == -signal.SIGKILL

    code, planned, said = _reset(bench, "--group", "main", "--from", "latest", "--yes")
    assert code == 0, said
    assert len(planned) == PARTITIONS
    before = bench.expected()
    sent = bench.sent
    bench.sent = []
    bench.send(300)
    worker = bench.worker()
    bench.wait_for_outputs(worker, at_least=800)
    after = bench.expected()
    bench.sent = sent + bench.sent
    _wait_for_counts(bench, 800)  # the other group was not reset
    assert bench.stop(worker) == 0, bench.log.read_text()
    assert bench.outputs() == {key: before.get(key, []) + after.get(key, []) for key in before | after}


def test_a_reset_asks_before_it_forgets(bench: Workbench) -> None:
    """Without a terminal the command requires `--yes`, and a wrong group or position must change nothing."""
    bench.send(50)
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    assert bench.stop(worker) == 0
    assert _reset(bench)[0] == 2
    code, _, said = _reset(bench, "--group", "other", "--yes")
    assert (code, "its groups: main, counting" in said) == (1, True)
    code, _, said = _reset(bench, "--from", "999999", "--yes")
    assert (code, "and not 999999" in said) == (1, True)
    bench.finish()


@pytest.mark.kills
@pytest.mark.parametrize("point", ["BEFORE_BEGIN", "AFTER_ENTRY", "AFTER_FLUSH", "AFTER_COMMIT"])
def test_a_reset_that_is_killed_leaves_each_task_as_it_was_or_reset_and_can_be_repeated(
    bench: Workbench, point: str
) -> None:
    """A running worker must acquire the fenced tasks again, even if the command left a transaction open."""
    bench.send(300)
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    _wait_for_counts(bench, 300)
    once = bench.expected()

    killed = bench.run_to_end("-m", "tests.support.kafka.kill_reset_at", point, bench.servers)
    assert killed == -signal.SIGKILL, bench.log.read_text()
    first = {key for key in once if partition_of(key.encode(), PARTITIONS) == 0}
    again = first if point == "AFTER_COMMIT" else set()
    redone = 300 + sum(len(once[key]) for key in again)
    bench.wait_for_outputs(worker, at_least=redone)
    assert bench.outputs() == {key: values * (1 + (key in again)) for key, values in once.items()}

    code, _, said = _reset(bench, "--yes")
    assert code == 0, said
    bench.wait_for_outputs(worker, at_least=redone + 300)
    _wait_for_counts(bench, 300)
    assert bench.stop(worker) == 0, bench.log.read_text()
    assert bench.outputs() == {key: values * (2 + (key in again)) for key, values in once.items()}


def test_one_partition_of_a_task_is_reset_under_its_worker(several: Workbench) -> None:
    """The others of the task keep their rows and outputs, although the task is fenced and restored."""
    several.send(300)
    worker = several.worker()
    several.wait_for_outputs(worker)
    code, (planned,), said = _reset(several, "--group", "main", "--partition", "3", "--yes")
    assert code == 0, said
    assert (planned["task"], planned["partitions"]) == (1, [3])
    assert f"partition 3 of task {several.prefix}/main/1 is reset" in said
    once = several.expected()
    again = {key for key in once if partition_of(key.encode(), several.partitions) == 3}
    several.wait_for_outputs(worker, at_least=300 + sum(len(once[key]) for key in again))
    _wait_for_counts(several, 300)
    assert several.stop(worker) == 0, several.log.read_text()
    assert several.outputs() == {key: values * (2 if key in again else 1) for key, values in once.items()}
    assert several.table("main") == {
        key: {"count": values[-1][0], "total": values[-1][1]} for key, values in once.items()
    }
