"""A workbench for injected errors: workers that meet them, and the log of these workers."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from pipeline.config import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from tests.support.checker import Promise
from tests.support.kafka.harness import DEADLINE_S, PARTITIONS, Workbench
from tests.support.kafka.producing import ordered_producer
from tests.support.waiting import wait_until

__all__ = ["TroubledBench"]


class TroubledBench(Workbench):
    """The app with injected errors is `tests.support.kafka.troubles`; `finish` runs the fixed app."""

    def __init__(
        self,
        servers: str,
        prefix: str,
        directory: Path,
        *,
        partitions: int = PARTITIONS,
        tasks: int | None = None,
    ) -> None:
        super().__init__(servers, prefix, directory, partitions=partitions, tasks=tasks)
        self.environment: dict[str, str] = {}

    def promises(self) -> tuple[Promise, ...]:
        """The promises of the fixed app, except that records may be skipped."""
        return tuple(replace(promise, skips=True) for promise in super().promises())

    def troubled_worker(
        self, trouble: str = "", at: int = -1, policy: str = "stop", *arguments: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker that meets `trouble` at the input number `at`."""
        self.environment |= {"TROUBLE": trouble, "TROUBLE_AT": str(at), "TROUBLE_POLICY": policy}
        return self._spawn(
            "-m", "pipeline", "worker", "tests.support.kafka.troubles:app", "--kafka", self.servers,
            "--state-dir", str(self.state_dir), *arguments,
        )  # fmt: skip

    def restricted_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker of the fixed app to which file permissions apply, also where the tests run as root."""
        return self._spawn(
            "-m", "tests.support.unprivileged",
            "-m", "pipeline", "worker", "tests.support.kafka.sums:app", "--kafka", self.servers,
            "--state-dir", str(self.state_dir),
        )  # fmt: skip

    def refused(self) -> subprocess.CompletedProcess[str]:
        """Run a start of the fixed app that must fail, without a stack trace."""
        done = self.command(
            "worker",
            "tests.support.kafka.sums:app",
            "--kafka",
            self.servers,
            "--state-dir",
            str(self.state_dir),
        )
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def configure(self, topic: str, name: str, value: str) -> None:
        """Change a setting of a topic, and wait until the cluster shows it."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self.servers})
        [done] = admin.incremental_alter_configs([resource]).values()
        done.result(DEADLINE_S)
        cluster = KafkaCluster(KafkaSettings(self.servers))
        wait_until(lambda: cluster.describe([topic])[topic].config[name] == value, lambda: f"{topic}: {name}")

    def send_raw(self, key: bytes, value: bytes) -> None:
        """Produce one record of any bytes to partition 0."""
        producer = ordered_producer(self.servers, message_max_bytes=2_000_000)
        refused: list[object] = []
        producer.produce(
            f"{self.prefix}-amounts",
            value,
            key,
            partition=0,
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
        assert producer.flush(DEADLINE_S) == 0
        assert refused == []

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of this name in the log of all workers so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = [msgspec.json.decode(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [event for event in found if event["event"] == name]

    def wait_for_event(self, name: str, times: int = 1, *, seconds: float = 0) -> dict[str, Any]:
        """Wait for this many events of a name, the last with an outage of `seconds`. Returns the last event."""

        def came() -> bool:
            found = self.events(name)
            return len(found) >= times and found[-1].get("unreachable_s", 0) >= seconds

        wait_until(came, lambda: f"{name} never came:\n{self.log.read_text()}", DEADLINE_S + seconds)
        return self.events(name)[-1]

    def settle(self, worker: subprocess.Popen[bytes]) -> None:
        """Wait until this worker has processed all inputs, stop it, and check."""
        self.wait_for_outputs(worker, within_s=2 * DEADLINE_S)
        wait_until(lambda: self.counted() >= len(self.sent), self.log.read_text)
        assert self.stop(worker) == 0, self.log.read_text()
        self.check()

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self.environment}
