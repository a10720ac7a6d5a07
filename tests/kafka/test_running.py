"""`App.running`: a worker inside an asyncio program, on the real broker."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from pathlib import Path

import pytest

from pipeline import (
    App,
    Context,
    Event,
    HandlerError,
    KafkaSettings,
    Producer,
    Reader,
    Settings,
    UnreachableError,
)
from pipeline.config import HttpSettings, WorkerSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.conftest import KafkaUnderTest
from tests.support.ports import closed_port, free_port

pytestmark = pytest.mark.kafka

DEADLINE_S = 60.0


class Shop:
    """An app whose handler refuses negative amounts."""

    def __init__(self, name: str) -> None:
        self.app = App(name[-40:].strip("-"))
        self.amounts = self.app.topic(f"{self.app.name}-amounts", key=str, value=int)
        self.totals = self.app.table("totals", key=str, value=int)
        self.threads: set[int] = set()
        self.app.handler(self.amounts)(self._add)

    def _add(self, event: Event[str, int], ctx: Context) -> None:
        self.threads.add(threading.get_ident())
        if event.value < 0:
            raise ValueError("negative")
        table = ctx.table(self.totals)
        table[event.key] = table.get(event.key, 0) + event.value


@pytest.fixture
def shop(kafka: KafkaUnderTest, unique_name: str) -> Shop:
    shop = Shop(unique_name)
    with closing(KafkaCluster(KafkaSettings(kafka.bootstrap_servers))) as cluster:
        cluster.create([TopicSpec(shop.amounts.name, 2)])
    return shop


def settings(servers: str, directory: Path, port: int = 0) -> Settings:
    worker = WorkerSettings(state_dir=directory / "state", worker_id="w", topics_dir="")
    return Settings(KafkaSettings(servers, startup_wait_s=DEADLINE_S), worker, http=HttpSettings(port=port))


def test_a_program_sends_processes_and_reads_in_one_process(
    kafka: KafkaUnderTest, shop: Shop, tmp_path: Path
) -> None:
    """A small web service needs no second deployment, and the next start continues."""
    chosen = settings(kafka.bootstrap_servers, tmp_path, free_port())

    async def serve(expected: int) -> None:
        async with shop.app.running(chosen) as worker:
            with Producer(chosen) as producer, Reader(shop.app, chosen) as reader:
                delivery = producer.send(shop.amounts, "ann", 5)
                answer = await asyncio.to_thread(
                    reader.get, shop.totals, "ann", after=delivery, timeout_s=DEADLINE_S
                )
            assert answer.value == expected
            alive = [worker.alive]
        assert (*alive, worker.alive, worker.error) == (True, False, None)

    asyncio.run(serve(5))
    asyncio.run(serve(10))
    assert threading.get_ident() not in shop.threads


def test_an_error_of_the_worker_is_told_in_the_block_and_raised_at_its_end(
    kafka: KafkaUnderTest, shop: Shop, tmp_path: Path
) -> None:
    """The program decides how it ends; it must not continue as if records were processed."""
    chosen = settings(kafka.bootstrap_servers, tmp_path)

    async def serve() -> None:
        async with shop.app.running(chosen) as worker:
            with Producer(chosen) as producer:
                for key in ("a", "b", "c", "d", "e", "f"):  # both partitions
                    producer.send(shop.amounts, key, -1)
            async with asyncio.timeout(DEADLINE_S):
                while worker.alive:  # noqa: ASYNC110 - a program would look now and then, too
                    await asyncio.sleep(0.01)
            assert isinstance(worker.error, HandlerError)

    with pytest.raises(HandlerError, match="negative"):
        asyncio.run(serve())


def test_a_worker_that_cannot_start_raises_where_the_block_begins(shop: Shop, tmp_path: Path) -> None:
    """The block must not run without a worker."""

    async def serve(port: int) -> None:
        nowhere = Settings(
            KafkaSettings(f"127.0.0.1:{port}", startup_wait_s=0.5),
            WorkerSettings(state_dir=tmp_path / "state", worker_id="w", topics_dir=""),
        )
        async with shop.app.running(nowhere):
            raise AssertionError("the block has begun")

    with closed_port() as port, pytest.raises(UnreachableError):
        asyncio.run(serve(port))


def test_the_end_of_the_block_stops_the_worker_when_the_program_fails(
    kafka: KafkaUnderTest, shop: Shop, tmp_path: Path
) -> None:
    """Otherwise the next worker waits until Kafka has missed this one."""
    chosen = settings(kafka.bootstrap_servers, tmp_path)

    async def fail() -> None:
        async with shop.app.running(chosen):
            raise LookupError("of the program")

    with pytest.raises(LookupError, match="of the program"):
        asyncio.run(fail())
    assert not any(thread.name == "pipeline-worker" for thread in threading.enumerate())
