"""The page of an app in headless Chromium: from a live worker, and from `pipeline ui` when no worker lives.

Keys and values contain what would run if it was parsed as HTML.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.browser import Page, open_browser
from tests.support.kafka.harness import DEADLINE_S, Workbench
from tests.support.kafka.producing import ordered_producer
from tests.support.ports import free_port

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

APP = "tests.support.kafka.sums:app"
HOSTILE = "<img src=x onerror=document.title='ran'><script>document.title='ran'</script>"
TOKEN = "s3cret & more"  # noqa: S105
SENT = 40
SHOWN = "document.querySelector('.graph') && document.querySelector('.entries tbody tr')"
ALL_READ = f"{SHOWN} && document.querySelector('.reports, #drills .empty') && document.querySelector('.lane')"


@pytest.fixture
def bench(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Workbench]:
    """One group of two tasks, with dead letters."""
    workbench = Workbench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path, groups=("main",))
    workbench.environment["SUMS_LETTERS"] = "1"
    yield workbench
    workbench.close()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with open_browser(tmp_path) as opened:
        yield opened


@pytest.fixture
def port() -> int:
    return free_port()


def send_hostile(bench: Workbench) -> None:
    """A key that is a script, in one input that is handled and one that is not."""
    producer = ordered_producer(bench.servers)
    for value in ({"n": 7}, {"n": HOSTILE}):
        producer.produce(f"{bench.prefix}-amounts", json.dumps(value).encode(), HOSTILE.encode())
    assert producer.flush(DEADLINE_S) == 0


def processed(bench: Workbench, *arguments: str) -> subprocess.Popen[bytes]:
    """A worker that has handled inputs of both kinds."""
    bench.send(SENT)
    send_hostile(bench)
    worker = bench.worker("--worker-id", "worker-1", *arguments)
    bench.wait_for_outputs(worker, SENT + 1, within_s=180)
    return worker


def hostile_task(page: Page) -> None:
    """Choose the task with the hostile key, which is one of two."""
    for number in (0, 1):
        page.click(f".cells > :nth-child({number + 1})")
        page.wait_for(f"document.querySelector('#task-lead').textContent.startsWith('main/{number}')")
        page.wait_for("document.querySelector('.entries tbody tr')")
        if HOSTILE in page.text(".letters-place"):
            return
    raise AssertionError(f"no task has the dead letter: {page.text('#task')}")


def shows_hostile_text_as_text(page: Page) -> None:
    """The text is there, and nothing of it was parsed."""
    page.wait_for(f"document.querySelector('.rows')?.innerText.includes({json.dumps(HOSTILE)})")
    assert page.value("document.querySelectorAll('main img, main script').length") == 0
    assert page.value("document.title") != "ran"


def fits(page: Page, width: int, *, dark: bool = False) -> None:
    page.window(width, dark=dark)
    page.wait_for(f"innerWidth === {width}")
    assert page.overflow() <= 0, width


def test_the_page_of_a_live_app(bench: Workbench, page: Page, port: int) -> None:
    """What an operator sees first, and uses with a keyboard; then the worker is killed, and the page says so."""
    worker = processed(bench, "--http-port", str(port))
    page.window(1280)
    page.open(f"http://127.0.0.1:{port}/")
    page.wait_for(ALL_READ)
    assert page.text("#app") == bench.prefix
    assert page.value("document.querySelectorAll('.cell[data-phase=live]').length") == 2
    # The only problem. The dead letter may be committed after the outputs.
    page.wait_for("document.querySelector('.problems').innerText.includes('open dead letter')")
    page.wait_for(
        "[...document.querySelectorAll('.graph title')].some(each => each.textContent.endsWith('1 open'))"
    )
    assert f"pipeline deadletters list {APP} --group main --open" in page.text(".problems")
    assert "worker-1" in page.text(".workers")
    assert page.value("document.querySelectorAll('.lane .bars rect').length") >= 2
    assert set(
        page.value("[...document.querySelectorAll('.graph title')].map(each => each.textContent)")
    ) == {
        f"{bench.prefix}-amounts",
        "main",
        f"{bench.prefix}-sums",
        f"{bench.prefix}.main.dead-letters: 1 open",
    }
    # The group, with its table below its name.
    assert (
        page.value("document.querySelector('.node[data-kind=group] .table-row + text').textContent")
        == "▤ totals"
    )
    # The worker has just started, so the timeline is short.
    lead = page.text("#timeline-lead")  # a new app has the shortest timeline, unless the machine is slow
    assert lead in {f"commits of the last {minutes} minutes, and events" for minutes in (3, 5, 10)}
    ticks = page.value("[...document.querySelectorAll('.axis .track span')].map((each) => each.textContent)")
    assert ticks[-1] == "now"
    assert 2 <= len(ticks[:-1]) <= 5
    hostile_task(page)
    shows_hostile_text_as_text(page)
    with_keyboard(page)
    for width in (1280, 400):
        fits(page, width)
        fits(page, width, dark=True)
    assert page.console == []
    worker.kill()
    worker.wait()
    page.wait_for("!document.querySelector('#alert').hidden")
    assert f"No answer from 127.0.0.1:{port} since" in page.text("#alert")
    assert page.value("document.body.classList.contains('stale')")
    fits(page, 400)
    shows_hostile_text_as_text(page)  # the last data are still there


def with_keyboard(page: Page) -> None:
    """Arrow keys move between tasks, Enter chooses one, and a refresh keeps the focus and what was typed."""
    page.value("document.querySelector('.cell').focus()")
    page.press("ArrowRight")
    page.wait_for("document.activeElement === document.querySelector('.cell:nth-child(2)')")
    page.wait_for("!document.querySelector('#detail').hidden")
    assert "Task main/1" in page.text("#detail")
    page.press("Enter")
    page.wait_for("document.querySelector('#task-lead').textContent.startsWith('main/1')")
    page.value("(window.before = document.activeElement, window.rounds = 0, true)")
    page.value("(window.asked = fetch, window.fetch = (...all) => (window.rounds += 1, asked(...all)), true)")
    page.wait_for("window.rounds >= 12")  # two rounds
    assert page.value("document.activeElement === window.before")


def ui(bench: Workbench, port: int, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "ui", APP, "--kafka", bench.servers, "--http-port", str(port)],
        env={
            **os.environ,
            "SUMS_PREFIX": bench.prefix,
            "SUMS_GROUPS": "main",
            "SUMS_LETTERS": "1",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_page_without_any_worker(bench: Workbench, page: Page, port: int) -> None:
    """It is needed most when every worker is dead. It asks for the token, and a wrong one is refused."""
    worker = processed(bench)
    worker.kill()
    worker.wait()
    served = ui(bench, port, PIPELINE_HTTP_TOKEN=TOKEN)
    try:
        assert served.stdout is not None
        assert served.stdout.readline() == f"http://127.0.0.1:{port}/\n"
        page.window(1280)
        page.open(f"http://127.0.0.1:{port}/")
        give_token(page, "wrong")
        page.wait_for("document.querySelector('#token-error').textContent === 'The token is wrong.'")
        assert SHOWN not in page.text("body")
        give_token(page, TOKEN)
        page.wait_for(ALL_READ)
        page.wait_for(
            f"document.querySelector('.problems').innerText.includes('no worker of {bench.prefix} is alive')"
        )
        assert f"pipeline worker {APP}" in page.text(".problems")
        assert page.value("document.querySelectorAll('.cell[data-phase=unowned]').length") == 2
        page.wait_for("document.querySelector('#ring').innerText.includes('No worker is alive')")
        assert "Runbook: worker-down" in page.text(".problems")
        assert page.text(".cell .owner") == "last: worker-1"
        hostile_task(page)
        assert "unowned, last: " in page.text("#task-lead")
        letters_follow_the_sorted_ids(page)
        shows_hostile_text_as_text(page)
        assert f"pipeline deadletters replay {APP} " in page.text(".letters")
        finds_a_row(page)
        for width in (1280, 400):
            fits(page, width)
        unexpected = [line for line in page.console if "401 (Unauthorized)" not in line]
        assert unexpected == []
        second = ui(bench, port)
        _, error = second.communicate(timeout=DEADLINE_S)
        assert second.returncode == 1
        assert f"error: cannot listen on 127.0.0.1 port {port}" in error
        assert "--http-port" in error
        served.send_signal(signal.SIGINT)
        _, told = served.communicate(timeout=DEADLINE_S)
        assert (served.returncode, "Traceback" in told) == (0, False)
    finally:
        served.kill()
        served.communicate()


def give_token(page: Page, token: str) -> None:
    page.wait_for("document.querySelector('#token').open")
    page.value(f"(document.querySelector('#token-value').value = {json.dumps(token)}, true)")
    page.click("#token-form button")


def letters_follow_the_sorted_ids(page: Page) -> None:
    """Two pages that saw the workers in another order show the same letters, also for dead owners."""
    found = [
        letters(page, alive, owners, "a-1", "a-2", "a-10", "gone")
        for alive, owners in (
            (["a-10", "a-2"], ["a-1"]),
            (["a-2", "a-1"], ["a-10"]),
            ([], ["a-2", "a-10", "a-1"]),
        )
    ]
    assert found == ["A0 B1 C2 ·none"] * 3


def letters(page: Page, alive: list[str], owners: list[str], *shown: str) -> str:
    """The letter and the colour of each badge, after a status with these live workers and owners of tasks."""
    status = {
        "workers": [{"worker": worker} for worker in alive],
        "tasks": [{"worker": worker, "next_worker": ""} for worker in owners],
    }
    module = 'document.querySelector("script[type=module]").src.replace("main.js", "workers.js")'
    page.value(
        f"""(window.letters = "", import({module}).then(({{ badge, introduce }}) => {{
            const before = {json.dumps(shown)}.map(badge);
            const place = document.createElement("div");
            place.append(...before);
            document.body.append(place);
            introduce({json.dumps(status)});
            window.letters = before.map((each) => each.textContent + each.dataset.worker).join(" ");
            place.remove();
        }}), true)"""
    )
    page.wait_for('window.letters !== ""')
    return str(page.value("window.letters"))


def finds_a_row(page: Page) -> None:
    """By its key, as it is typed."""
    page.value("(document.querySelector('#row-key').focus(), true)")
    page.call("Input.insertText", text=HOSTILE)
    page.press("Enter")
    page.wait_for("document.querySelector('.rows-place').innerText.includes('The newest value of this row.')")
    assert page.value("document.querySelectorAll('.rows tbody tr').length") == 1
