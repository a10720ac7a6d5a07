"""`pipeline migrate` on the real broker: two inputs need more partitions, and the app moves to copies of them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from tests.conftest import KafkaUnderTest
from tests.support.kafka.harness import DEADLINE_S
from tests.support.kafka.orders_harness import OrdersBench
from tests.support.runtime.orders import Sent
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def old(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[OrdersBench]:
    """The old app, with three partitions."""
    found = OrdersBench(kafka.bootstrap_servers, f"-{unique_name[-8:]}", tmp_path, Sent())
    yield found
    found.close()


@pytest.fixture
def new(old: OrdersBench, tmp_path: Path) -> Iterator[OrdersBench]:
    """The new app, with five partitions."""
    found = OrdersBench(old.servers, f"{old.suffix}-2", tmp_path, old.sent, partitions=5)
    yield found
    found.close()


def grow(bench: OrdersBench, *names: str) -> None:
    admin = AdminClient({"bootstrap.servers": bench.servers})
    wanted = [NewPartitions(bench.topic(name), bench.partitions + 1) for name in names]
    for future in admin.create_partitions(wanted).values():
        future.result(DEADLINE_S)


def test_an_app_moves_to_wider_inputs_through_kills_of_the_copy_and_of_a_worker(
    old: OrdersBench, new: OrdersBench
) -> None:
    """The new app must process every input once, from before the change, after it, and after the switch."""
    pairs = [f"--topic={old.topic(name)}={new.topic(name)}" for name in ("orders", "payments")]
    names = (old.app, new.app, *pairs)
    worker = old.start("old")
    old.send(400)
    old.wait_until_done()
    old.stop(worker)
    old.check()
    grow(old, "orders", "payments")
    fresh = OrdersBench(old.servers, old.suffix, old._directory, old.sent)  # has the new partitions
    fresh.send(400)

    planned = old.command("migrate", "run", *names, "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    copies = msgspec.json.decode(planned.stdout)["copies"]
    counts = [
        (copy["old_partitions"], copy["original_partitions"], copy["new_partitions"]) for copy in copies
    ]
    assert counts == [(4, 3, 5), (4, 3, 5)]
    assert not list(new.records("orders"))

    first, second = new.start("first"), new.start("second")
    _kill_a_copy(old.servers, names, new)
    done = new.command("migrate", "switch", *names)
    assert done.returncode == 1
    assert "holds records that are not copied" in done.stderr
    second.kill()
    assert second.wait() == -signal.SIGKILL

    done = new.command("migrate", "run", *names, "--json")
    assert done.returncode == 0, done.stderr
    copied = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert copied[0]["already_copied"] > 0, "the kill was too early to mean anything"
    assert copied[0]["copied"] + copied[0]["already_copied"] == 800
    compare = f"--compare={old.topic('payments')}={new.topic('payments')}"
    deadline = time.monotonic() + DEADLINE_S
    while (done := new.command("migrate", "switch", *names, compare, "--retire")).returncode == 1:
        assert " 0 differ" in done.stderr
        assert time.monotonic() < deadline, f"{done.stderr}\n{new.story()}"
    assert done.returncode == 0, done.stderr
    new.check()

    assert "is retired: its workers refuse to start (9 tasks)" in done.stderr
    by_mistake = old.start("old")
    assert by_mistake.wait(DEADLINE_S) == 1
    assert f"app {old.app} was retired" in old.story()
    assert "is no longer retired (9 tasks)" in old.command("migrate", "revive", old.app).stderr

    new.send(200)
    new.wait_until_done()
    new.stop(first)
    new.check()


def _kill_a_copy(servers: str, names: Sequence[str], new: OrdersBench) -> None:
    """Run a copy, and kill it after its first records, before its end."""
    slow = "tests.support.kafka.copy_slowly"
    copy = subprocess.Popen(
        [sys.executable, "-m", slow, "migrate", "run", *names, "--kafka", servers], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: copy.poll() is not None or list(new.records("orders")), new.story)
        assert copy.poll() is None  # it waits in a transaction, however late this process sees its first one
    finally:
        copy.kill()
    assert copy.wait() == -signal.SIGKILL
