"""Workers with HTTP ports, of the app in `delays.py`: handlers with dead letters, a second group, and a sink."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import msgspec

from pipeline.config import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.support.kafka.producing import ordered_producer
from tests.support.pages import ROOT

__all__ = ["MonitoredFleet"]

_APP = "tests.support.monitoring.delays:app"
_PARTITIONS = 2
_STOP_S = 60.0
_PAUSE_S = 0.2
BAD = 666


class MonitoredFleet:
    """Worker processes by port. Input arrives all the time, until `close`."""

    def __init__(self, servers: str, name: str, directory: Path) -> None:
        self.name = name
        self._servers = servers
        self._directory = directory
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._stopped = threading.Event()
        with closing(KafkaCluster(KafkaSettings(servers))) as cluster:
            cluster.create([TopicSpec(f"{name}-{topic}", _PARTITIONS) for topic in ("flights", "totals")])
        with closing(sqlite3.connect(directory / "totals.db")) as database:
            database.execute(
                "CREATE TABLE totals (carrier TEXT PRIMARY KEY, flights INTEGER, minutes INTEGER)"
            )
            database.commit()
        (directory / "store").mkdir()
        self._producer = ordered_producer(servers)
        self._input = threading.Thread(target=self._send_input, daemon=True)
        self._input.start()

    def start(self, port: int) -> None:
        """Start the worker of a port."""
        with (self._directory / f"{port}.log").open("ab") as log:
            self._children[port] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pipeline", "worker", _APP, "--kafka", self._servers),
                    *("--worker-id", f"worker-{port}", "--state-dir", str(self._directory / f"state-{port}")),
                    *("--http-port", str(port)),
                ],
                cwd=self._directory,
                env={
                    **os.environ,
                    "DELAYS_PREFIX": self.name,
                    "PYTHONPATH": str(ROOT),
                    "PIPELINE_CHECKPOINT_STORE": f"file://{self._directory / 'store'}",
                    "PIPELINE_CHECKPOINT_INTERVAL_S": "2",
                    "PIPELINE_TOPICS_DIR": "",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self, port: int) -> None:
        """SIGKILL to the worker of a port."""
        self._children[port].kill()
        self._children[port].wait()

    def send_bad(self) -> None:
        """Send a record that becomes a dead letter."""
        self._send("B6", BAD)

    def check_running(self) -> None:
        """Fail if a worker has ended by itself."""
        ended = [
            port for port, child in self._children.items() if child.poll() not in {None, -signal.SIGKILL}
        ]
        assert not ended, self.story()

    def story(self) -> str:
        """The ends of the workers' logs."""
        return "\n".join(path.read_text()[-3_000:] for path in sorted(self._directory.glob("*.log")))

    def close(self) -> None:
        """Stop the input and the workers."""
        self._stopped.set()
        self._input.join(_STOP_S)
        self._producer.flush(_STOP_S)
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        for child in self._children.values():
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _send_input(self) -> None:
        number = 0
        while not self._stopped.wait(_PAUSE_S):
            for carrier in ("AA", "UA", "B6"):
                self._send(carrier, number % 60)
            number += 1

    def _send(self, carrier: str, dep_delay: int) -> None:
        value = msgspec.json.encode({"carrier": carrier, "dep_delay": dep_delay})
        self._producer.produce(f"{self.name}-flights", value, carrier)
        self._producer.poll(0)
