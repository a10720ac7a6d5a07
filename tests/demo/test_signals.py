"""A demonstration that is ended early leaves no process and no directory behind."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, time
from pipeline.demo.processes import Ended, ended_by_signals

try:
    with ended_by_signals():
        try:
            print("open", flush=True)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGINT)  # a second one, as the closing begins
            print("closed", flush=True)
except Ended as ended:
    print(ended)
    sys.exit(ended.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_closes_what_is_open_and_a_second_one_does_not_stop_that(number: signal.Signals) -> None:
    """Otherwise SIGTERM would leave a Kafka and three workers running."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "open\n"
        process.send_signal(number)
        assert process.stdout.read() == f"closed\n{number.name}\n"
    assert process.returncode == 128 + number
