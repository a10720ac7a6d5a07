"""`Reader` against scripted workers: whom it asks, what it tries again, and what it refuses."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline import App, ConfigError, Delivered, QueryError, Reader, Settings
from pipeline.config import HttpSettings
from pipeline.core.names import TaskId
from pipeline.core.records import partition_of
from pipeline.errors import InputError
from pipeline.queries.reader import _Owners

PARTITIONS, TASKS = 8, 4
TOKEN = "a-word"  # noqa: S105 - of these tests
app = App("shop")
orders = app.topic("orders", key=str, value=int)
bills = app.topic("bills", key=str, value=int)
totals = app.table("totals", key=str, value=int)
pairs = app.table("pairs", key=tuple[str, str], value=int)
app.handler(orders)(lambda _event, _ctx: None)
TASK = TaskId("shop", "main", partition_of(b"ann", PARTITIONS) % TASKS)


class Scripted(ThreadingHTTPServer):
    """A worker that gives the answers one after the other, and the last one again and again. None: it hangs up."""

    daemon_threads = True

    def __init__(self, *answers: tuple[int, dict[str, Any]] | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.requests: list[tuple[str, str | None]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Authorization")))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            self.close_connection = True
            return
        status, document = answer
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class OneReader(Reader):
    """A reader that reads these owners from the workers' topic, one after the other."""

    def __init__(self, *owners: str, token: str = "") -> None:
        super().__init__(app, Settings(http=HttpSettings(token=token)))
        self.reads = 0
        self._found = owners

    def _counts_of(self, group: str) -> tuple[int, int]:
        return PARTITIONS, TASKS

    def _read_owners(self) -> _Owners:
        self.reads += 1
        address = self._found[min(self.reads, len(self._found)) - 1]
        if address.startswith("worker "):
            return _Owners({}, {TASK: address.removeprefix("worker ")})
        return _Owners({TASK: address} if address else {}, {})


@pytest.fixture
def workers() -> Iterator[list[Scripted]]:
    """Those of a test, which are closed after it."""
    found: list[Scripted] = []
    yield found
    for each in found:
        each.shutdown()
        each.server_close()


def row(value: int | None, offset: int = 0, age_s: float = 0.0) -> tuple[int, dict[str, Any]]:
    """The answer of an owner that has processed the inputs below `offset`."""
    data = None if value is None else b64encode(str(value).encode()).decode()
    places = {f"orders/{partition}": offset for partition in range(PARTITIONS)}
    return 200, {
        "found": value is not None,
        "value_base64": data,
        "seq": 7,
        "positions": places,
        "age_s": age_s,
    }


def serve(workers: list[Scripted], *answers: tuple[int, dict[str, Any]] | None) -> str:
    workers.append(Scripted(*answers))
    return workers[-1].address


def test_the_owner_of_the_keys_task_is_asked_with_the_token(workers: list[Scripted]) -> None:
    """Only it has the row, and only those who know the token may read it."""
    with OneReader(serve(workers, row(5), row(None)), token=TOKEN) as reader:
        assert reader.get(totals, "ann") == (5, 7, 0.0)
        assert reader.get(totals, "ann").value is None
    partition = partition_of(b"ann", PARTITIONS)
    path = f"/api/rows/main/totals?key_base64=YW5u&partition={partition}"
    assert workers[0].requests == [(path, f"Bearer {TOKEN}")] * 2
    assert reader.reads == 1


@pytest.mark.parametrize(
    "answer",
    [
        (421, {"error": "worker b owns it", "worker": "b", "address": ""}),
        (503, {"error": "starting"}),
        (404, {"error": "this worker does not run a group 'main'"}),
        None,
    ],
)
def test_the_next_owner_is_asked_when_the_known_one_has_lost_the_task(
    workers: list[Scripted], answer: tuple[int, dict[str, Any]] | None
) -> None:
    """A task can move at any time, and its worker can end at any time."""
    former, owner = serve(workers, row(5), answer), serve(workers, row(6))
    with OneReader(former, owner) as reader:
        assert reader.get(totals, "ann").value == 5
        assert reader.get(totals, "ann").value == 6
    assert reader.reads == 2


def test_a_connection_that_the_worker_has_closed_is_opened_again(workers: list[Scripted]) -> None:
    """Workers close idle connections; that is no reason to search another owner."""
    with OneReader(serve(workers, row(5), None, row(6))) as reader:
        reader.get(totals, "ann")
        assert reader.get(totals, "ann").value == 6
    assert reader.reads == 1


def test_an_answer_waits_until_the_own_record_is_in_it(workers: list[Scripted]) -> None:
    """Otherwise a program would not see what it has just sent."""
    place = Delivered("orders", partition_of(b"ann", PARTITIONS), 41, b"id", 0)
    with OneReader(serve(workers, row(5, 41), row(5, 41), row(6, 42))) as reader:
        assert reader.get(totals, "ann", after=place).value == 6
    assert len(workers[0].requests) == 3


def test_an_answer_waits_until_it_is_young_enough(workers: list[Scripted]) -> None:
    """A worker that was cut off answers from the past until it finds out."""
    with OneReader(serve(workers, row(5, age_s=60.0), row(6, age_s=0.5))) as reader:
        assert reader.get(totals, "ann", max_age_s=1.0).value == 6


@pytest.mark.parametrize(
    ("owner", "answers", "reason"),
    [
        ("", [], "no worker is known to own it"),
        ("worker b", [], "which owns it, has no HTTP port"),
        (None, [(503, {"error": "the worker is starting"})], "the worker is starting"),
        (None, [row(5, 3)], "the record of after=, orders/"),
        (None, [row(5, 99, 60.0)], "the answer is 60.0 s old"),
    ],
)
def test_without_an_answer_in_time_the_error_says_why(
    workers: list[Scripted], owner: str | None, answers: Sequence[tuple[int, dict[str, Any]]], reason: str
) -> None:
    """The next step depends on it: start a worker, open a port, or wait longer."""
    address = serve(workers, *answers) if owner is None else owner
    after = Delivered("orders", partition_of(b"ann", PARTITIONS), 41, b"id", 0)
    with OneReader(address) as reader, pytest.raises(QueryError) as failed:
        reader.get(totals, "ann", after=after, max_age_s=1.0, timeout_s=2.0)
    assert reason in failed.value.message
    assert "no answer for task shop/main/" in failed.value.message


@pytest.mark.parametrize(
    ("status", "error"), [(401, "the token is wrong"), (403, "only to localhost"), (400, "bad key")]
)
def test_a_refusal_is_not_tried_again(workers: list[Scripted], status: int, error: str) -> None:
    """Waiting does not help, and the reason must reach the caller."""
    address = serve(workers, (status, {"error": error, "hint": "do this"}))
    with OneReader(address) as reader, pytest.raises(QueryError, match=error) as failed:
        reader.get(totals, "ann", timeout_s=60.0)
    assert failed.value.hint == "do this"
    assert len(workers[0].requests) == 1


def test_a_table_that_the_workers_do_not_declare_is_not_waited_for(workers: list[Scripted]) -> None:
    """The program is newer than the workers; a request until the time-out would look like an outage."""
    address = serve(workers, (404, {"error": "group main has no table 'totals'", "declared": False}))
    with (
        OneReader(address) as reader,
        pytest.raises(QueryError, match="does not declare the table") as failed,
    ):
        reader.get(totals, "ann", timeout_s=60.0)
    assert "deploy the workers" in str(failed.value.hint)
    assert len(workers[0].requests) == 1


def test_another_worker_is_asked_if_the_first_one_does_not_run_the_group(workers: list[Scripted]) -> None:
    """A later worker at the address may have been started for other groups of the app."""
    first = serve(workers, (404, {"error": "this worker does not run a group 'main'", "hint": "ask another"}))
    with OneReader(first, serve(workers, row(6))) as reader:
        assert reader.get(totals, "ann").value == 6
    assert len(workers[0].requests) == 1


def test_wrong_arguments_are_refused_before_any_request() -> None:
    """A mistake of the program must not look like an outage."""
    reader = OneReader("")
    other = App("other").table("totals", key=str, value=int)
    with pytest.raises(ConfigError, match="is not a table of app shop"):
        reader.get(other, "ann")
    with pytest.raises(TypeError, match=r"table main\.totals"):
        reader.get(totals, 5)  # type: ignore[misc]
    with pytest.raises(InputError, match="partition of a row is not known"):
        reader.get(pairs, ("a", "b"))
    with pytest.raises(ConfigError, match="topic bills is not an input of group main"):
        reader.get(totals, "ann", after=Delivered("bills", 0, 1, b"id", 0))
    reader.close()
    with pytest.raises(ConfigError, match="the reader is closed"):
        reader.get(totals, "ann")
