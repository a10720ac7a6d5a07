"""Takes the pictures of `docs/assets`: the page of a live app, the page without workers, and the report of a drill.

    python -m tools.screenshots

It starts a Kafka and three workers of examples/orders, with orders and payments that do not end, and runs three drills.
Each picture is taken when the page shows what it is about. Everything it starts listens on 127.0.0.1 and ends with it.
The pictures replace the files in `docs/assets`, unless one of them is too large. With `--all`, it also takes pictures
of whole pages in both widths and colour schemes, to look for mistakes: they are in `build/screenshots` only. It takes
about three minutes.

    1. two workers share the tasks; a third one joins
    2. a replay from checkpoints, a frozen and a killed worker: the timeline, the moves and the reports
    3. the page in two widths and colour schemes, without a problem
    4. orders that are refused: the page with a problem, and the task with its dead letters
    5. all workers are killed: the page of `pipeline ui`
    6. the report of the killed worker
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from rich.console import Console

from pipeline.broker.ports import choose_ports
from pipeline.demo.processes import DemoError, Processes
from pipeline.ports import Deadline, SystemClock
from pipeline.testing import LocalKafka
from tests.support.browser import Page, started_browser
from tests.support.debian import UnavailableError, install_packages
from tools.commands import PIPELINE, exit_code, exit_code_of, kill_workers
from tools.screenshots.png import with_palette
from tools.screenshots.traffic import write_traffic

APP, MODULE = "orders", "examples.orders.app:app"
TASKS, WORKERS = 12, ("orders-1", "orders-2", "orders-3")
ORDERS, RATE = 8_000, 20  # per second: more than a run needs
TOTAL_S = 240.0
DRILL_S = 120.0
MAX_BYTES = 400_000
CHECKPOINT_S = 30
DRILLS = (("replay-from-checkpoint", "orders-1"), ("freeze-worker", "orders-3"), ("kill-worker", "orders-2"))
WIDE, NARROW = 1280, 400
SLOW = "run make screenshots on a quiet machine"
SETTINGS = """[kafka]
"bootstrap.servers" = "{servers}"

[worker]
checkpoint_store = "{store}"
checkpoint_interval_s = {checkpoint_s}

[drills]
allow = ["orders"]
directory = "drills"
rto_s = 30
"""

READ = f"""document.querySelector('#fresh').dataset.state === 'good' && !document.querySelector('.note')
 && document.querySelector('.graph') && document.querySelector('.entries tbody tr')
 && document.querySelector('.letters-place').innerText !== 'Reading …'
 && document.querySelectorAll('.reports > li').length === {len(DRILLS)} && document.querySelector('.bars rect')
 && document.fonts.status === 'loaded'"""
LIVE = f"""document.querySelectorAll('.cell[data-phase=live]').length === {TASKS}
 && [...document.querySelectorAll('.workers tbody tr')].map((row) => row.children[1].textContent).join() === '4,4,4'"""
HEALTHY = "document.querySelector('#verdict').dataset.state === 'good'"
REFUSED = "document.querySelector('.letters li') && document.querySelector('.problems').innerText.includes('3 open')"
DEAD = f"""document.querySelectorAll('.cell[data-phase=unowned]').length === {TASKS}
 && document.querySelector('.problems').innerText.includes('no worker of {APP} is alive')
 && document.querySelector('.workers').innerText.includes('No worker is alive')
 && document.querySelector('.figures').innerText.includes('\\n0 /s')"""


@dataclass(frozen=True)
class Picture:
    """One picture. `until`: the last element that it shows; empty for the whole page. `shown`: in the documentation."""

    name: str
    width: int = WIDE
    until: str = ""
    dark: bool = False
    shown: bool = True


HEALTHY_PICTURES = (
    Picture("page-dark", until="#timeline", dark=True),
    Picture("page-narrow", NARROW, until="#ring"),
    Picture("page-dark-whole", dark=True, shown=False),
    Picture("page-narrow-whole", NARROW, shown=False),
    Picture("page-narrow-dark", NARROW, dark=True, shown=False),
)
PROBLEM_PICTURES = (Picture("page"),)
DEAD_PICTURES = (
    Picture("page-without-workers", until="#ring"),
    Picture("page-without-workers-narrow", NARROW, shown=False),
)
REPORT_PICTURES = (
    Picture("drill-report", until="section:has(table)"),
    Picture("drill-report-whole", shown=False),
    Picture("drill-report-dark", dark=True, shown=False),
    Picture("drill-report-narrow", NARROW, shown=False),
)
PICTURES = (*HEALTHY_PICTURES, *PROBLEM_PICTURES, *DEAD_PICTURES, *REPORT_PICTURES)


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--build", type=Path, default=Path("build/screenshots"), help="where all pictures are kept"
    )
    parser.add_argument("--assets", type=Path, default=Path("docs/assets"), help="what is replaced")
    parser.add_argument("--all", action="store_true", help="more pictures, for a look at the page")
    arguments = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    with exit_code(console, "screenshots") as code:
        _install_browser()
        with tempfile.TemporaryDirectory(prefix="pipeline-screenshots-") as workspace:
            _Shots(console, Path(workspace), arguments.build.resolve(), extras=arguments.all).take_all()
        publish(arguments.build, arguments.assets)
        console.print(f"pictures: {arguments.build}; those of the documentation: {arguments.assets}")
    return code.value


def _install_browser() -> None:
    try:
        install_packages(["chromium"])
    except UnavailableError as error:
        raise DemoError(
            f"headless Chromium is missing: {error}",
            hint="run make screenshots as root on Debian, or install the package chromium first",
        ) from error


def publish(build: Path, assets: Path) -> None:
    """Replace the pictures of the documentation. Raises DemoError, and replaces none, if one is too large."""
    found = {
        f"{picture.name}.png": with_palette((build / f"{picture.name}.png").read_bytes())
        for picture in PICTURES
        if picture.shown
    }
    for name, content in found.items():
        if len(content) > MAX_BYTES:
            raise DemoError(
                f"{name} has {len(content):,} bytes, and a picture may have {MAX_BYTES:,}",
                hint="show less of the page: Picture.until in tools/screenshots/__main__.py",
            )
    assets.mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
        (assets / name).write_bytes(content)


class _Shots:
    """One run. `workspace`: for what it starts; `build`: for the pictures; `extras`: also those that no page shows."""

    def __init__(self, console: Console, workspace: Path, build: Path, *, extras: bool) -> None:
        self._say = console.print
        self._workspace = workspace
        self._build = build
        self._extras = extras
        self._environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        self._deadline = Deadline(SystemClock(), TOTAL_S, 0.5)

    def take_all(self) -> None:
        self._build.mkdir(parents=True, exist_ok=True)
        # Commands in the workspace then need no options, and the page shows them without.
        for name, target in (("examples", "examples"), ("topics", "examples/orders/topics")):
            (self._workspace / name).symlink_to(Path(target).resolve())
        self._say("starting Kafka and workers")
        with LocalKafka(self._workspace / "kafka") as kafka:
            settings = SETTINGS.format(
                servers=kafka.bootstrap_servers,
                store=(self._workspace / "checkpoints").as_uri(),
                checkpoint_s=CHECKPOINT_S,
            )
            (self._workspace / "pipeline.toml").write_text(settings, encoding="utf-8")
            processes = Processes(
                kafka.bootstrap_servers, self._workspace, MODULE, self._workspace, CHECKPOINT_S
            )
            with closing(processes), self._ui() as url, started_browser(self._workspace) as page:
                try:
                    self._live(processes, page, url)
                    self._dead(page, url)
                finally:
                    kill_workers(self._workspace, APP)
                self._report(page)

    def _live(self, processes: Processes, page: Page, url: str) -> None:
        processes.command("topics", "apply")
        orders, payments, refused = write_traffic(self._workspace, ORDERS)
        for name in WORKERS[:-1]:
            processes.worker(name)
        for topic, file in (("orders", orders), ("payments", payments)):
            processes.loader(topic, file, "--key", "order", "--rate", str(RATE))
        self._until("two workers share the tasks", lambda: self._at_rest(processes))
        processes.worker(WORKERS[-1])
        self._until("three workers share the tasks", lambda: self._at_rest(processes))
        self._until("each task has a checkpoint", lambda: self._have_checkpoints(url))
        for drill, worker in DRILLS:
            self._read_timeline(url)
            self._drill("run", drill, "--worker", worker, "--reason", "make screenshots", "--yes")
        self._take(page, url, HEALTHY_PICTURES, f"{LIVE} && {HEALTHY}")
        processes.command("produce", "orders", str(refused), "--key", "order")
        letters: list[dict[str, object]] = []

        def all_refused() -> bool:
            said = processes.command("deadletters", "list", MODULE, "--open", "--json")
            letters[:] = [json.loads(line) for line in said.splitlines()]
            return len(letters) == 3

        self._until("the refused orders are dead letters", all_refused)
        task = f"main/{letters[0]['partition']}"
        self._take(page, f"{url}#task={task}", PROBLEM_PICTURES, f"{LIVE} && {REFUSED}")

    def _dead(self, page: Page, url: str) -> None:
        kill_workers(self._workspace, APP)
        self._take(page, url, DEAD_PICTURES, DEAD)

    def _report(self, page: Page) -> None:
        file = self._workspace / "report.html"
        self._drill("report", "export", "kill-worker", "--to", str(file))
        self._take(page, file.as_uri(), REPORT_PICTURES, "document.querySelector('.track i')", read="true")

    def _take(
        self, page: Page, url: str, pictures: tuple[Picture, ...], condition: str, *, read: str = READ
    ) -> None:
        for picture in pictures:
            if not (picture.shown or self._extras):
                continue
            page.window(picture.width, dark=picture.dark)
            page.open("about:blank")  # else another fragment would not load the page again
            page.open(url)
            try:
                page.wait_for(f"({condition}) && ({read})")
            except AssertionError as error:
                raise DemoError(f"the page of {picture.name} was not complete: {error}", hint=SLOW) from error
            page.screenshot(self._build / f"{picture.name}.png", until=picture.until)
            self._say(f"{picture.name}.png")

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        while not holds():
            if not self._deadline.pause():
                raise DemoError(f"not after {TOTAL_S:.0f} s: {what}", hint=SLOW)
        self._say(what)

    @staticmethod
    def _at_rest(processes: Processes) -> bool:
        processes.read_logs()
        return processes.at_rest(TASKS) and len(processes.owners) == TASKS

    @staticmethod
    def _have_checkpoints(url: str) -> bool:
        with urlopen(f"{url}api/status", timeout=30) as answer:  # noqa: S310 - our own address
            return all(task["last_checkpoint_ms"] for task in json.load(answer)["tasks"])

    @staticmethod
    def _read_timeline(url: str) -> None:
        """The server keeps the entries that it has read: without a reader, its first read would miss the oldest."""
        with urlopen(f"{url}api/timeline", timeout=30) as answer:  # noqa: S310 - our own address
            answer.read()

    def _drill(self, *arguments: str) -> None:
        command = [*PIPELINE, "drill", *arguments]
        if exit_code_of(command, DRILL_S, self._environment, self._workspace, SLOW) != 0:
            raise DemoError(f"pipeline drill {' '.join(arguments)} failed", hint=SLOW)

    @contextmanager
    def _ui(self) -> Iterator[str]:
        """`pipeline ui`, and its address. It serves the page of a live app, too."""
        (port,) = choose_ports(1)
        command = [*PIPELINE, "ui", MODULE, "--http-port", str(port)]
        with (
            (self._workspace / "ui.log").open("wb") as log,
            subprocess.Popen(  # noqa: S603 - our own command
                command,
                cwd=self._workspace,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            ) as child,
        ):
            try:
                url = child.stdout.readline().decode().strip() if child.stdout is not None else ""
                if not url:
                    said = (self._workspace / "ui.log").read_text(encoding="utf-8")
                    raise DemoError(f"pipeline ui has not started: {said}")
                yield url
            finally:
                child.send_signal(signal.SIGINT)
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()


if __name__ == "__main__":
    sys.exit(main())
