"""What a `faust.App` runs outside of its agents: timers, tasks, sends, table reads, pages, questions and commands."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count as numbers
from typing import Any

import faust
import pytest
import structlog
from faust.cli import argument, option

from pipeline.app import declared_app
from pipeline.core.names import TaskId
from pipeline.core.records import partition_of
from pipeline.errors import ConfigError, FatalTaskError
from pipeline.faust.app_loop import AppLoop, Outside
from pipeline.faust.commands import run_outside
from pipeline.http.application import PageAnswer, PageRequest
from pipeline.runtime.row_queries import Elsewhere
from pipeline.testing import TestDriver, TestProducer
from pipeline.testing.memory_clients import MemoryCluster, MemorySources
from tests.support.waiting import WITHIN_S

_numbers: Iterator[int] = numbers()


def new_app(**options: Any) -> Any:
    """An app of its own for each test."""
    return faust.App(f"loop-app-{next(_numbers)}", **options)


class Running:
    """A worker in memory, with the app loop beside it."""

    def __init__(self, app: Any, partitions: int = 1) -> None:
        self.driver = TestDriver(app, partitions=partitions)
        declared: Any = declared_app(app)
        self.logged = structlog.testing.CapturingLogger()
        outside = Outside(
            declared,
            lambda: TestProducer(self.driver),
            lambda: MemorySources(self.driver.broker),
            lambda: MemoryCluster(self.driver.broker),
            self.logged,
        )
        self.loop = AppLoop(declared, outside, self.logged)
        self.driver.run()
        self.loop.start(self.driver.worker)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.stop()

    def until(self, condition: Callable[[], bool]) -> None:
        """Turn the worker and the loop until a condition holds."""
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, f"the condition did not hold within {WITHIN_S} s"
            self.driver.run()
            self.loop.turn(self.driver.worker)

    def page(self, target: str, method: str = "GET", body: bytes = b"") -> PageAnswer:
        """Ask for a page, while the worker runs."""
        found: list[PageAnswer] = []
        pages = self.loop.pages
        assert pages is not None
        headers = {"Host": "localhost", "Content-Type": "application/json"}
        thread = threading.Thread(
            target=lambda: found.append(pages.answer(PageRequest(method, target, headers, body)))
        )
        thread.start()
        self.until(lambda: not thread.is_alive())
        thread.join()
        return found[0]


class Nowhere:
    """The rows of a worker that knows no owner of any task."""

    def partitions(self, _group: str) -> int:
        return 4

    def __init__(self) -> None:
        self.asked: list[int] = []

    def place_of(self, group: str, partition: int) -> Elsewhere:
        self.asked.append(partition)
        return Elsewhere(TaskId("app", group, partition), "", "")

    def is_live(self, _group: str, _number: int) -> bool:
        return False


def counting_app(**options: Any) -> tuple[Any, Any, Any]:
    """An app that counts words, its input and its table."""
    app = new_app(**options)
    words = app.topic("words", key_type=str, value_type=str)
    counts = app.Table("counts", default=int)

    @app.agent(words)
    async def count(stream: Any) -> Any:
        async for word in stream:
            counts[word] += 1
            yield counts[word]

    return app, words, counts


def test_a_timer_sends_and_goes_on_after_an_error() -> None:
    """An error of one call must not end the calls that follow."""
    app, words, counts = counting_app()
    calls = numbers()

    @app.timer(0.01)
    async def tick() -> None:
        if next(calls) == 1:
            raise ValueError("the second call")
        await words.send(key="w", value="tick")

    with Running(app) as running:
        running.until(lambda: running.driver.table(counts).get("tick", 0) >= 3)
    assert [call.method_name for call in running.logged.calls] == ["error"]
    assert running.logged.calls[0].args == ("faust_timer_failed",)


def test_a_task_runs_once_with_the_app_and_reads_committed_rows() -> None:
    """Tasks run when the tables of the worker are there."""
    app, words, counts = counting_app()
    seen: list[Any] = []

    @app.task
    async def look(given: Any) -> None:
        seen.append(given is app)
        sent = await (await words.send(key="a", value="a", headers={"h": b"1"}))
        seen.append((sent.topic, sent.offset))
        while counts["a"] == 0:  # noqa: ASYNC110 - a table has no event
            await asyncio.sleep(0.001)
        seen.append((counts["a"], "a" in counts, counts.get("b"), dict(counts.items()), list(counts)))
        try:
            counts["a"] = 5
        except ConfigError as error:
            seen.append("outside of an event" in str(error))

    with Running(app) as running:
        running.until(lambda: len(seen) == 4)
    assert seen == [True, ("words", 0), (1, True, 0, {"a": 1}, ["a"]), True]


def test_a_task_that_raises_ends_the_worker() -> None:
    """A task that is silently gone would be missed by its users only."""
    app, _, _ = counting_app()

    @app.task()
    async def broken() -> None:
        raise ValueError("not today")

    with (
        Running(app) as running,
        pytest.raises(FatalTaskError, match=r"task .*broken.* ValueError: not today"),
    ):
        running.until(lambda: False)


def test_the_worker_with_task_0_is_the_leader() -> None:
    """A timer with on_leader runs in one worker of the app only."""
    app, _, _ = counting_app()
    led: list[bool] = []

    @app.timer(0.01, on_leader=True)
    async def lead() -> None:
        led.append(app.is_leader())

    with Running(app) as running:
        running.until(lambda: len(led) > 1)
        assert app.is_leader()
        for number in list(running.driver.worker.runs[0].tasks):
            running.driver.worker.runs[0].release(number)
        assert not app.is_leader()
    assert not app.is_leader()


def test_signals_are_sent_at_the_start_and_before_the_end() -> None:
    """Applications open and close their clients there."""
    app, _, _ = counting_app()
    seen: list[str] = []

    @app.on_worker_init.connect
    def init(given: Any, **_: Any) -> None:
        if given is app:
            seen.append("worker_init")

    @app.on_before_shutdown.connect
    async def end(given: Any, **_: Any) -> None:
        if given is app:
            seen.append("before_shutdown")

    with Running(app) as running:
        running.driver.run()
        assert seen == ["worker_init"]
    assert seen == ["worker_init", "before_shutdown"]


def test_pages_get_a_whole_request() -> None:
    """Functions and classes, parameters, methods and bodies, as of Faust's own server."""
    app, words, counts = counting_app()

    @app.page("/count/{word}/")
    async def get_count(self: Any, request: Any, word: str) -> Any:
        return self.json({"word": word, "count": counts[word], "x": request.query.get("x")})

    @app.page("/words/")
    class Words(faust.web.View):
        async def get(self, _request: Any) -> Any:
            return self.html("<p>words</p>")

        async def post(self, request: Any) -> Any:
            posted = await request.json()
            await words.send(key=posted["word"], value=posted["word"])
            return self.text("sent", status=202)

    with Running(app) as running:
        assert running.page("/words/", "POST", b'{"word": "a"}').status == 202
        running.until(lambda: running.driver.table(counts) == {"a": 1})
        found = running.page("/count/a/?x=1")
        assert (found.status, json.loads(found.body)) == (200, {"word": "a", "count": 1, "x": "1"})
        html = running.page("/words/")
        assert html.body == b"<p>words</p>"
        assert dict(html.headers)["Content-Type"].startswith("text/html")
        head = running.page("/words/", "HEAD")
        assert (head.status, head.body, dict(head.headers)["Content-Length"]) == (200, b"", "12")
        assert running.page("/words/", "DELETE").status == 405
        assert running.page("/other/").status == 404


def test_a_page_with_a_path_of_the_worker_is_refused() -> None:
    """Otherwise it would never be answered."""
    app, _, _ = counting_app()

    @app.page("/metrics")
    async def metrics(self: Any, _request: Any) -> Any:
        return self.text("")

    with pytest.raises(ConfigError, match="has a page /metrics"):
        Running(app)


def test_a_routed_view_runs_where_the_key_is() -> None:
    """The worker with the task answers itself, and an unknown owner is an error of the service."""
    app, words, counts = counting_app()

    @app.page("/count/")
    @app.table_route(table=counts, query_param="word")
    async def get_count(self: Any, request: Any) -> Any:
        return self.json(counts[request.query["word"]])

    with Running(app, partitions=4) as running:
        running.driver.send(words, "b", "b")
        running.until(lambda: running.driver.table(counts) == {"b": 1})
        assert running.page("/count/?word=b").body == b"1"
        declared: Any = declared_app(app)
        declared.committed.queries = nowhere = Nowhere()
        assert running.page("/count/?word=b").status == 503
        assert nowhere.asked == [
            partition_of(b"b", 4)
        ]  # of the topic, whose keys are not the JSON of the table


def test_a_task_asks_agents_and_gets_their_answers() -> None:
    """Each answer belongs to its question, also if several wait."""
    app, _, _ = counting_app()
    asked: list[Any] = []

    @app.agent()
    async def double(stream: Any) -> Any:
        async for number in stream:
            yield 2 * number

    @app.task
    async def ask() -> None:
        asked.append(await double.ask(4))
        asked.append(await double.join([1, 2, 3]))
        asked.append(sorted([value async for value in double.map([5, 6])]))

    with Running(app, partitions=3) as running:
        running.until(lambda: len(asked) == 3)
    assert asked == [8, [2, 4, 6], [10, 12]]


def test_services_and_a_start_of_the_app_are_refused_by_name() -> None:
    """They would start parts of Faust's engine."""
    app, _, _ = counting_app()

    @app.service
    class Extra(faust.Service):
        pass

    with pytest.raises(ConfigError, match=r"Extra \(@app\.service"):
        Running(app)
    other, _, _ = counting_app()
    declared_app(other)
    with pytest.raises(ConfigError, match="started inside of a worker"):
        asyncio.run(other.start())


def test_a_command_sends_and_gets_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """Commands load data and start work, with options of click."""
    app, words, _ = counting_app()

    @app.command(argument("word"), option("--times", type=int, default=1))
    async def add_word(self: Any, word: str, times: int) -> None:
        for _ in range(times):
            await words.send(key=word, value=word)
        self.say(f"{times} times {word}")

    driver = TestDriver(app)
    declared: Any = declared_app(app)
    log = structlog.testing.CapturingLogger()
    outside = Outside(
        declared,
        lambda: TestProducer(driver),
        lambda: MemorySources(driver.broker),
        lambda: MemoryCluster(driver.broker),
        log,
    )
    assert run_outside(outside, declared, "add-word", ["a", "--times", "2"]) == 0
    assert "2 times a" in capsys.readouterr().out
    assert [event.value for event in driver.outputs(words)] == ["a", "a"]
    assert run_outside(outside, declared, "add-word", []) == 2
    assert "Missing argument" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no command add"):
        run_outside(outside, declared, "add", [])
