"""Pages, timers, the leader, questions and commands of a Faust application, with real workers on a real Kafka."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faust
import pytest

from pipeline import KafkaSettings, Settings, WorkerSettings, faust_running
from tests.conftest import KafkaUnderTest
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

APP = "tests.support.faust.outside:app"
WORDS = [f"word-{number}" for number in range(12)]


class Workers:
    """Worker processes of the application, each with an HTTP port."""

    def __init__(self, servers: str, prefix: str, directory: Path) -> None:
        host, _, port = servers.partition(":")
        self._directory = directory
        # The broker is that of faust.App(broker=...).
        self._environ = {
            **{k: v for k, v in os.environ.items() if k != "PIPELINE_KAFKA"},
            "SUMS_PREFIX": prefix,
            "FAUST_BROKER": f"{host}:{port}",
        }
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def start(self, name: str) -> int:
        """Start a worker. Returns its port."""
        port = free_port()
        command = ["worker", APP, "--worker-id", name, "--state-dir", str(self._directory / name)]
        log = (self._directory / f"{name}.log").open("w")
        self.processes[port] = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *command, "--http-port", str(port)],
            stdout=log,
            stderr=log,
            env=self._environ,
            text=True,
        )
        log.close()
        return port

    def command(self, *words: str) -> str:
        """The output of `pipeline faust command`."""
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "faust", "command", APP, *words],
            capture_output=True,
            env=self._environ,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def stop(self, port: int) -> int:
        """Stop a worker. Returns its exit code."""
        process = self.processes.pop(port)
        process.send_signal(signal.SIGTERM)
        return process.wait(90)

    def logs(self) -> str:
        """What the workers answer and have logged."""
        answers = [str(ask(port, "/count/tick/")) for port in self.processes]
        return "\n".join([*answers, *(path.read_text() for path in self._directory.glob("*.log"))])


def ask(port: int, path: str, body: str | None = None) -> tuple[int, str]:
    """(status, body); (0, "") if the port is closed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        with connection.getresponse() as answer:
            return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


@pytest.fixture
def workers(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
    yield made
    for process in made.processes.values():
        process.kill()
        process.wait()


def counted(port: int, word: str) -> int:
    """The count that a worker answers; -1 if it has no answer."""
    status, body = ask(port, f"/count/{word}/")
    return int(json.loads(body)["count"]) if status == 200 else -1


def leads(port: int) -> bool:
    """Whether a worker answers that it is the leader."""
    status, body = ask(port, "/count/tick/")
    return status == 200 and json.loads(body)["leader"] is True


def test_pages_timers_and_commands_of_two_workers(workers: Workers) -> None:
    """Each page answers for all keys, and the timer of the leader continues in the other worker."""
    ports = [workers.start("w1"), workers.start("w2")]
    for port in ports:
        wait_until(lambda port=port: ask(port, "/readyz")[0] == 200, workers.logs)  # type: ignore[misc]
    wait_until(lambda: all(counted(port, "tick") > 1 for port in ports), workers.logs)
    wait_until(lambda: counted(ports[0], "began") == 2, workers.logs)

    for number, word in enumerate(WORDS):
        assert ask(ports[number % 2], "/words/", json.dumps({"word": word})) == (200, "1"), workers.logs()
    for word in WORDS:
        wait_until(lambda word=word: [counted(port, word) for port in ports] == [1, 1], workers.logs)  # type: ignore[misc]
    assert workers.command("add", WORDS[0], "--times", "2").strip() == f"{WORDS[0]}: 3"
    assert "Count a word several times" in workers.command("add", "--help")

    assert workers.stop(ports[0]) == 0
    # Task 0, which makes it the leader, and the task of the row may move one after the other.
    wait_until(lambda: leads(ports[1]), workers.logs)
    ticks = counted(ports[1], "tick")
    wait_until(lambda: counted(ports[1], "tick") > ticks + 2, workers.logs)
    assert workers.stop(ports[1]) == 0


def test_a_service_asks_the_agents_of_the_worker_inside_it(
    kafka: KafkaUnderTest, unique_name: str, tmp_path: Path
) -> None:
    """What calls `await app.start()` on Faust needs no second program."""
    app = faust.App(unique_name[-40:].strip("-"), topic_partitions=2)
    counts = app.Table("counts", default=int)

    @app.agent(app.topic(f"{app.conf.id}-words", key_type=str, value_type=str))
    async def count(stream: Any) -> Any:
        async for word in stream:
            counts[word] += 1
            yield counts[word]

    settings = Settings(
        KafkaSettings(kafka.bootstrap_servers),
        WorkerSettings(state_dir=tmp_path / "state", worker_id="w", topics_dir=""),
    )

    async def serve() -> list[Any]:
        async with faust_running(app, settings):
            answers = [await count.ask("a", key="a") for _ in range(3)]
            await count.cast("b", key="b")
            while counts["b"] == 0:  # noqa: ASYNC110 - a table has no event
                await asyncio.sleep(0.01)
            return [*answers, counts["a"]]

    assert asyncio.run(serve()) == [1, 2, 3, 3]
