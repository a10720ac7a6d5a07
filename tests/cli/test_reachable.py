"""No Kafka where one is said to be: told at once where it is certain, and left to the client where it is not."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import KafkaSettings
from pipeline.errors import UnreachableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.reachable import NoWait, require_listener, wait_for_answer
from pipeline.testing import ManualClock
from tests.cli.conftest import Run
from tests.support import ports


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nothing listens on."""
    with ports.closed_port() as port:
        yield port


@pytest.fixture
def unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that knows addresses only."""
    known = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **more: Any) -> Any:
        if not str(host)[0].isdigit():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_a_refused_connection_is_told_with_the_command_that_starts_a_kafka(closed_port: int) -> None:
    """The usual first error on a laptop."""
    with pytest.raises(UnreachableError) as caught:
        require_listener(f"127.0.0.1:{closed_port}")
    assert caught.value.message == f"no Kafka at 127.0.0.1:{closed_port} (connection refused)"
    assert caught.value.hint is not None
    assert "pipeline broker start" in caught.value.hint


def test_an_unknown_name_is_told(unknown_names: None, closed_port: int) -> None:
    """A mistyped name is not an outage, and starting a local broker would not help."""
    with pytest.raises(UnreachableError) as caught:
        require_listener(f"SSL://nohost.invalid:9093, 127.0.0.1:{closed_port}")
    assert caught.value.message == (
        "no Kafka at nohost.invalid:9093 (the name nohost.invalid is not known);"
        f" no Kafka at 127.0.0.1:{closed_port} (connection refused)"
    )
    assert caught.value.hint is not None
    assert "broker start" not in caught.value.hint


def test_one_server_that_listens_is_enough(unknown_names: None, closed_port: int) -> None:
    """Bootstrap servers are a choice: brokers come and go."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        require_listener(f"127.0.0.1:{closed_port},nohost.invalid,127.0.0.1:{port}")


def test_what_cannot_be_told_in_time_is_left_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow network is no reason to refuse a start."""
    released = threading.Event()

    def wait(*_: object, **__: object) -> None:
        released.wait(30)
        raise ConnectionRefusedError

    monkeypatch.setattr("pipeline.kafka.reachable._TIMEOUT_S", 0.05)
    monkeypatch.setattr(socket, "create_connection", wait)
    require_listener("10.0.0.1:9092")
    released.set()


@pytest.mark.parametrize("servers", ["", "a:b:c", "127.0.0.1:port", ",,"])
def test_what_cannot_be_read_is_left_to_the_client(servers: str) -> None:
    """It knows forms of addresses that this does not, and says what is wrong with the others."""
    require_listener(servers)


@pytest.mark.parametrize(
    "command",
    [
        ("topics", "apply"),
        ("produce", "flights", "rows.csv"),
        ("consume", "flights"),
        ("journal", "show", "delays"),
        ("worker", "delays:app"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_says_so_and_ends_with_3(
    pipeline: Run, tmp_path: Path, closed_port: int, command: tuple[str, ...]
) -> None:
    """Schedulers try again on 3; people read the first line."""
    (tmp_path / "rows.csv").write_text("a\n1\n")
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics" / "flights.yaml").write_text(
        "name: flights\npartitions: 1\nowner: tests\nkey: none\nvalue: none\n"
    )
    (tmp_path / "delays.py").write_text(
        "from pipeline import App\napp = App('delays')\nflights = app.topic('flights', value=bytes)\n"
        "@app.handler(flights)\ndef handle(event, ctx):\n    pass\n"
    )
    done = pipeline(*command, "--kafka", f"127.0.0.1:{closed_port}", code=3)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: no Kafka at 127.0.0.1:{closed_port} (connection refused)",
        f"  -> `pipeline broker start --port {closed_port}` starts one; or name another with --kafka or PIPELINE_KAFKA",
    ]


def test_a_command_says_what_it_waits_for_and_for_how_long(
    pipeline: Run, tmp_path: Path, closed_port: int
) -> None:
    """A command that does nothing looks like one that hangs."""
    servers = f"127.0.0.1:{closed_port}"
    done = pipeline("loads", "list", "--kafka", servers, code=3, PIPELINE_KAFKA_STARTUP_WAIT_S="1")
    first, second, *_ = done.stderr.splitlines()
    assert first == f"no Kafka at {servers} (connection refused): retrying for up to 1 s"
    # The last attempt may take a while.
    assert re.fullmatch(
        rf"error: no Kafka at {re.escape(servers)} \(connection refused\); waited [1-9]\d* s", second
    )


def test_a_program_that_is_not_kafka_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out of the client's request reads as if Kafka were slow."""
    monkeypatch.setattr("pipeline.kafka.admin.REQUEST_TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        servers = f"127.0.0.1:{listening.getsockname()[1]}"
        settings = KafkaSettings(bootstrap_servers=servers)
        with (
            closing(KafkaCluster(settings, _Wait(0.1))) as cluster,
            pytest.raises(UnreachableError) as caught,
        ):
            cluster.cluster_id()
    assert caught.value.message.startswith(f"a program listens at {servers}, and does not answer as Kafka")
    assert "Local:" not in caught.value.message


class _Wait(NoWait):
    """Remembers what it was told."""

    def __init__(self, seconds: float, *, stops: bool = False) -> None:
        self.seconds = seconds
        self.told: list[str] = []
        self._stops = stops

    def on_unreachable(self, error: UnreachableError, waited_s: float) -> None:
        self.told.append(error.message)

    def on_reachable(self, waited_s: float) -> None:
        self.told.append("answered")

    def should_stop(self) -> bool:
        return self._stops and bool(self.told)


def test_a_kafka_that_comes_in_time_is_all_that_a_start_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks again until there is an answer."""
    monkeypatch.setattr("pipeline.kafka.reachable._PAUSE_S", 0.001)
    refusals = ["first", "second"]

    def ask() -> None:
        if refusals:
            raise UnreachableError(refusals.pop(0))

    wait = _Wait(60)
    wait_for_answer(ask, wait)
    assert wait.told == ["first", "second", "answered"]


@pytest.mark.parametrize(("seconds", "stops", "attempts"), [(0, False, 1), (0.05, False, None), (5, True, 2)])
def test_the_wait_ends_with_its_time_or_with_the_program(
    monkeypatch: pytest.MonkeyPatch, seconds: float, stops: bool, attempts: int | None
) -> None:
    """A start that waited without end would never be noticed; one that is told to stop must not wait."""
    monkeypatch.setattr("pipeline.kafka.reachable._PAUSE_S", 0.001)
    monkeypatch.setattr("pipeline.kafka.reachable.SystemClock", ManualClock)
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        raise UnreachableError("refused", hint="start it")

    with pytest.raises(UnreachableError) as caught:
        wait_for_answer(ask, _Wait(seconds, stops=stops))
    assert caught.value.message == ("refused" if asked == 1 else "refused; waited 0 s")
    assert caught.value.hint == "start it"
    assert asked == attempts if attempts is not None else asked > 1


def test_a_kafka_that_answers_is_not_waited_for() -> None:
    """Nothing is said where there is nothing to say."""
    wait = _Wait(60)
    wait_for_answer(lambda: None, wait)
    assert wait.told == []


def test_a_listener_that_is_silent_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container engine takes connections to a published port before there is a Kafka behind it."""
    monkeypatch.setattr("pipeline.kafka.admin.REQUEST_TIMEOUT_S", 0.2)
    wait = _Wait(5, stops=True)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        cluster = KafkaCluster(KafkaSettings(f"127.0.0.1:{port}"), wait)
        with closing(cluster), pytest.raises(UnreachableError, match="; waited "):
            cluster.cluster_id()
    assert len(wait.told) == 1
