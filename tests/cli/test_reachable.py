"""No Kafka where one is said to be: told at once where it is certain, and left to the client where it is not."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UnreachableError
from pipeline.kafka.reachable import require_listener
from tests.cli.conftest import Run


@pytest.fixture
def closed_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


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
    """A typing error in a name is no outage; and a broker of one's own would not mend it."""
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
