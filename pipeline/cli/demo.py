"""`pipeline demo`: kills workers of an app on a local Kafka, and compares the results with a run without Kafka."""

from __future__ import annotations

import random
from typing import Annotated

import typer
from rich.console import Console

from pipeline.broker import LocalKafka
from pipeline.cli.broker import step_progress
from pipeline.cli.options import print_message
from pipeline.demo.processes import Ended, ended_by_signals
from pipeline.demo.run import Demo, run_demo

__all__ = ["demo"]

_SECONDS = 30


def demo(
    seconds: Annotated[
        int, typer.Option(metavar="N", help="How many seconds payments are loaded.", min=3, max=3600)
    ] = _SECONDS,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Determines the payments and the order of the kills. Default: a random number.",
            min=0,
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep the temporary directory with all logs. It is always kept if the demo fails."
        ),
    ] = False,
) -> None:
    """Kill workers with SIGKILL while they process payments, and compare the results with a run without Kafka.

    Starts a Kafka of its own on a free port, with its data in a temporary directory; needs the extra `local`. Takes
    about a minute; the first run also downloads and prepares Kafka, which can take some minutes. The exit code is 0 if
    no result is lost, duplicated or wrong, else 1.
    """
    seed = seed if seed is not None else random.SystemRandom().randrange(10**6)
    console = Console(highlight=False, soft_wrap=True)
    print_message(f"seed {seed}: repeat with --seed {seed}")
    try:
        with ended_by_signals():
            exact = run_demo(Demo(seconds, seed, keep), console, _start)
    except Ended as ended:
        print_message(f"ended by {ended}; everything that was started has been ended, too")
        raise typer.Exit(ended.exit_code) from None
    if not exact:
        raise typer.Exit(1)


def _start(kafka: LocalKafka) -> None:
    with step_progress() as report:
        kafka.start(report=report)
