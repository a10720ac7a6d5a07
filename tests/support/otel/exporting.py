"""`Exporting`: the sums app, whose worker exports to a collector."""

from __future__ import annotations

from typing import Any

import structlog

from pipeline.config import OtelSettings, WorkerSettings
from pipeline.otel.telemetry import Telemetry
from tests.support.http.scrape import Scraper
from tests.support.runtime.sums import Sums

__all__ = ["PARENT", "Exporting", "parent"]

PARENT = "00-{trace:032x}-{span:016x}-01"


def parent(number: int) -> str:
    """The `traceparent` of another program's span."""
    return PARENT.format(trace=number, span=number)


class Exporting:
    """`log`: the events of the export. `scrape`: what the HTTP port would answer."""

    def __init__(
        self, url: str, *, worker: WorkerSettings | None = None, sums: Sums | None = None, **settings: Any
    ) -> None:
        self.log = structlog.testing.CapturingLogger()
        self.sums = sums if sums is not None else Sums(settings=worker)
        self.driver = self.sums.driver
        self.scrape = Scraper(self.driver)
        self.telemetry = Telemetry(
            "sums", "w-1", OtelSettings(url, **settings), self.scrape.exporter.families, self.log
        )
        self.driver._tracer = self.telemetry.tracer

    def send(self, number: int, **headers: str) -> None:
        """Produce an input with these headers."""
        self.driver.send(
            self.sums.numbers, "a", number, headers=[(name, text.encode()) for name, text in headers.items()]
        )

    def run(self) -> None:
        """Handle and commit the inputs."""
        self.driver.run()

    def close(self) -> None:
        """Send what waits."""
        self.telemetry.close()

    @property
    def events(self) -> list[str]:
        """The names of the warnings that were logged, in order."""
        return [call.args[0] for call in self.log.calls if call.method_name == "warning"]
