"""`pipeline demo`: kills three workers that process generated payments, and compares their results.

1. Start a Kafka on a free port, with its data in a temporary directory. Create the topics.
2. Start three workers, and load the payments at a fixed rate.
3. While the load runs: kill the loader and the workers at random, and restart each, with its state directory or with
   an empty one.
4. When all results are there, stop the workers.
5. Compare the output topic and the tables with the results that `comparison.py` computes without Kafka.

A fixed time limit would fail on a loaded machine, although the demonstration advances there, slowly. So the limit
starts again with each progress (`Progress`).

Everything that is started listens on 127.0.0.1, and is ended with the demonstration, whatever happens to it.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pipeline.broker import LocalKafka
from pipeline.core.suggestions import counted, noun
from pipeline.demo.comparison import Comparison, Expected, Found, compare, fold, show, write_payments
from pipeline.demo.processes import DemoError, Processes, signals_postponed
from pipeline.demo.reading import OutputTopic, opened, table_rows
from pipeline.ports import Clock, Deadline, SystemClock

__all__ = ["IDLE_S", "Demo", "NoProgressError", "Progress", "run_demo"]

APP = "pipeline.demo.app:app"
INPUT, OUTPUT = "demo-payments", "demo-results"
PARTITIONS = 8
WORKERS = ("a", "b", "c")
RATE = 1_500  # payments a second: a laptop has processors to spare
_DECLARATION = """name: {topic}
partitions: {partitions}
owner: pipeline demo
key: the account, text
value: {value}, a JSON object
"""
_STOP_S = 35.0
_POLL_S = 0.05

# More than three workers need to start, or one to restore its tasks from a checkpoint, on a loaded machine.
IDLE_S = 120.0


class NoProgressError(DemoError):
    """There was no progress for too long."""


class Progress:
    """Counts the results, and waits for conditions as long as there is progress.

    Progress is a new result, or a call of `step`. The workers' logs are not: a worker that only retries also logs.

    Args:
        clock: the source of time.
        count: the number of results so far.
        expected: the number of results at the end.
        idle_s: seconds without progress after which a wait fails.
    """

    def __init__(
        self, clock: Clock, count: Callable[[], int], expected: int, idle_s: float | None = None
    ) -> None:
        self._clock = clock
        self._count = count
        self._idle_s = IDLE_S if idle_s is None else idle_s
        self._began_s = clock.monotonic_s()
        self.expected = expected
        self.results = 0
        self.step()

    def step(self) -> None:
        """A part of the demonstration is complete: the time limit starts again."""
        self._deadline = Deadline(self._clock, self._idle_s, _POLL_S)

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for a condition. Raises NoProgressError after `idle_s` without progress; `what` names the wait there."""
        self._count_results()
        while not condition():
            if not self._deadline.pause():
                seconds = self._clock.monotonic_s() - self._began_s
                raise NoProgressError(
                    f"the demonstration made no progress for {self._idle_s:.0f} s, while it waited for {what}: "
                    f"after {seconds:.0f} s, there were {self.results:,} of {self.expected:,} results",
                    hint="end other programs that need the processors, and repeat; the cause is in the logs",
                )
            self._count_results()

    def wait_for_results(self, at_rest: Callable[[], bool], lag: Callable[[], int]) -> None:
        """Wait until `at_rest` holds and all results are there, or all that can still come.

        Args:
            at_rest: whether each task has a worker.
            lag: the number of payments that no worker has processed.

        Raises:
            NoProgressError: results are missing, and their payments are not processed.
        """
        try:
            self.wait_for("the results", lambda: at_rest() and self.results >= self.expected)
        except NoProgressError:
            if not at_rest() or lag():
                raise
            # Results are lost: all payments are processed, so none will follow. The comparison counts them.

    def _count_results(self) -> None:
        count = self._count()
        if count > self.results:
            self.results = count
            self.step()


@dataclass(frozen=True)
class Demo:
    """What to run.

    Attributes:
        seconds: how long payments are loaded.
        seed: determines the payments and the order of the kills. The times of the kills vary.
        keep: keep the temporary directory, with all logs, also if all results are exact.
    """

    seconds: int
    seed: int
    keep: bool = False


def run_demo(demo: Demo, console: Console, start: Callable[[LocalKafka], None]) -> bool:
    """Run it, and print the comparison. After a failure, the temporary directory is kept, and its path is printed.

    Args:
        demo: what to run.
        console: where the kills and the comparison are printed.
        start: starts the Kafka, and shows the progress.

    Returns:
        Whether all results are exactly those of the run without Kafka.

    Raises:
        DemoError: a worker or the loader failed, or there was no progress.
        BrokerError: Kafka could not be started.
    """
    with _workspace(console, keep=demo.keep) as workspace:
        kafka = LocalKafka(workspace.directory / "kafka")
        try:
            start(kafka)
            processes = Processes(kafka.bootstrap_servers, workspace.directory, APP, workspace.directory)
            with closing(processes), opened(kafka.bootstrap_servers, OUTPUT, PARTITIONS) as output:
                exact = _Run(demo, console, processes).run(workspace.directory, output)
        finally:
            with signals_postponed():
                kafka.stop()
        workspace.keep |= not exact
        return exact


class _Run:
    """One run, on a Kafka that serves."""

    def __init__(self, demo: Demo, console: Console, processes: Processes) -> None:
        self._demo = demo
        self._console = console
        self._processes = processes
        self._clock = SystemClock()
        self._chance = random.Random(demo.seed)  # noqa: S311 - repeatable, and no secret
        self._began_s = self._clock.monotonic_s()
        self._kills = 0

    def run(self, workspace: Path, output: OutputTopic) -> bool:
        """Steps 1 to 5; whether everything is exact."""
        # 1.
        count = RATE * self._demo.seconds
        file = workspace / "payments.jsonl"
        write_payments(file, count, self._demo.seed)
        expected = fold(file)
        _declare_topics(workspace / "topics")
        self._processes.command("topics", "apply")
        with output.counting() as counter:
            progress = Progress(self._clock, counter, count)
            # 2.
            for name in WORKERS:
                self._processes.worker(name)
            self._settle(progress)
            self._say(
                f"{len(WORKERS)} workers share {PARTITIONS} tasks; {count:,} payments, {RATE:,} a second"
            )
            self._began_s = self._clock.monotonic_s()
            progress.step()
            # 3.
            self._load_with_kills(file, progress)
            # 4.
            progress.wait_for_results(self._at_rest, self._lag)
        self._processes.stop(self._processes.alive, _STOP_S)
        seconds = self._clock.monotonic_s() - self._began_s
        # 5.
        lines = self._compare(expected, output)
        show(lines, self._console)
        exact = all(line.exact for line in lines)
        if not exact:
            self._say(f"NOT EXACT: {counted(max(line.wrong for line in lines), 'wrong account')}")
        records = lines[0]
        self._say(
            f"demo: {count} {noun(count, 'event')}, {counted(self._kills, 'kill')}, {records.lost} lost, "
            f"{records.duplicated} duplicated, "
            f"{seconds:.0f} s"
        )
        return exact

    def _load_with_kills(self, file: Path, progress: Progress) -> None:
        """Load the file; until its end, kill one process after the other. Each fault is used before one is repeated."""
        loader = self._load(file)
        faults: list[Callable[[], None]] = []
        while True:
            rest = Deadline(self._clock, self._chance.uniform(0.5, 2.0), _POLL_S)
            progress.wait_for(
                "the load",
                lambda rest=rest, loader=loader: rest.has_passed() or self._ended(loader),  # type: ignore[misc]
            )
            if self._ended(loader):
                return
            if not faults:
                faults = [self._restart, self._restart_on_an_empty_disk]
                self._chance.shuffle(faults)
                loader = self._kill_loader(loader, file)
                continue
            faults.pop()()
            self._settle(progress)

    def _lag(self) -> int:
        status = json.loads(self._processes.command("status", "demo", "--json"))
        return sum(task["lag"] for task in status["tasks"])

    def _restart(self) -> None:
        name = self._kill_worker()
        self._say_when(f"worker {name} killed, and restarted")
        self._processes.worker(name)

    def _restart_on_an_empty_disk(self) -> None:
        name = self._kill_worker()
        self._say_when(f"worker {name} killed, and restarted without its state directory")
        self._processes.worker(name, empty_disk=True)

    def _kill_worker(self) -> str:
        victim = self._chance.choice(sorted(self._processes.alive, key=lambda worker: worker.name))
        victim.child.kill()
        victim.child.wait()
        self._kills += 1
        return victim.name

    def _kill_loader(self, loader: subprocess.Popen[bytes], file: Path) -> subprocess.Popen[bytes]:
        """Kill it unless it has just finished; the process that resumes the load."""
        loader.kill()
        if loader.wait() != -signal.SIGKILL:
            return loader
        self._kills += 1
        self._say_when("loader killed, and restarted")
        return self._load(file)

    def _load(self, file: Path) -> subprocess.Popen[bytes]:
        return self._processes.loader(INPUT, file, "--key", "account", "--rate", str(RATE))

    def _ended(self, loader: subprocess.Popen[bytes]) -> bool:
        code = loader.poll()
        if code not in {None, 0}:
            raise DemoError(f"the loader ended with exit code {code}", hint=f"read loader-{INPUT}.log")
        return code == 0

    def _compare(self, expected: Expected, output: OutputTopic) -> list[Comparison]:
        rows = table_rows(self._processes, "demo", "main", "accounts")
        return compare(expected.results, expected.accounts, Found(output.read(), rows))

    def _at_rest(self) -> bool:
        self._processes.read_logs()
        return self._processes.at_rest(PARTITIONS)

    def _settle(self, progress: Progress) -> None:
        progress.wait_for(f"{len(WORKERS)} workers with {PARTITIONS} live tasks", self._at_rest)

    def _say_when(self, what: str) -> None:
        self._say(f"  {self._clock.monotonic_s() - self._began_s:4.1f} s  {what}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)


def _declare_topics(directory: Path) -> None:
    directory.mkdir()
    for topic, value in ((INPUT, "one payment"), (OUTPUT, "what happened to the payment")):
        text = _DECLARATION.format(topic=topic, partitions=PARTITIONS, value=value)
        (directory / f"{topic}.yaml").write_text(text, encoding="utf-8")


@dataclass
class _Workspace:
    """The temporary directory, and whether to keep it."""

    directory: Path
    keep: bool


@contextmanager
def _workspace(console: Console, *, keep: bool) -> Iterator[_Workspace]:
    """A temporary directory. It is kept after an error, which its logs explain, but not after a signal."""
    workspace = _Workspace(Path(tempfile.mkdtemp(prefix="pipeline-demo-")), keep)
    directory = workspace.directory
    try:
        yield workspace
    except Exception:
        workspace.keep = any(directory.iterdir())
        raise
    finally:
        if workspace.keep:
            console.print(f"kept, with the logs of all processes: {directory}", markup=False)
        else:
            with signals_postponed():
                shutil.rmtree(directory, ignore_errors=True)
