"""Requests to the page of an app on the in-memory Kafka, without a socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
import structlog

from pipeline import App
from pipeline.app import declared_app
from pipeline.config import HttpSettings
from pipeline.http.application import Application, Route
from pipeline.http.documents import AppDocuments, DrillReports, PageApp, StatusClients
from pipeline.http.ui import page_routes
from pipeline.testing import TestDriver
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader, MemorySources

__all__ = ["Asked"]


class Asked:
    """The documents of an app, as `pipeline ui` serves them.

    Args:
        driver: The app's driver.
        app: The app; None for its name only.
        name: The app's name.
        token: The token of the port; a request has it.
        reports: The reports of drills.
    """

    def __init__(
        self,
        driver: TestDriver,
        app: App | None,
        name: str,
        *,
        token: str = "",
        reports: DrillReports | None = None,
    ) -> None:
        broker = driver.broker
        clients = StatusClients(
            lambda: MemoryCluster(broker), lambda: MemoryJournalReader(broker), lambda: MemorySources(broker)
        )
        declared = declared_app(app) if app is not None else None
        about = PageApp(
            name, declared, "shop:app" if app is not None else "MODULE:APP", "kafka:9", reports=reports
        )
        self._token = token
        self._settings = HttpSettings(token=token)
        self._documents = AppDocuments(about, clients, self._settings, driver.clock)
        self._clock = driver.clock

    @property
    def routes(self) -> Mapping[str, Route]:
        return {**self._documents.routes, **page_routes()}

    def get(self, path: str, **query: str) -> Any:
        """The document at a path, read now: the clock is moved on, so that no earlier read is shared."""
        self._clock.advance(2)
        status, _, body = self.ask(path, urlencode(query))
        assert status == 200, body
        return msgspec.json.decode(body)

    def ask(self, path: str, query: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body)."""
        application = Application(self.routes, self._settings, structlog.testing.CapturingLogger())
        found: list[Any] = []
        environ = {
            "PATH_INFO": path,
            "REQUEST_METHOD": "GET",
            "QUERY_STRING": query,
            "HTTP_HOST": "127.0.0.1:8080",
            "HTTP_AUTHORIZATION": f"Bearer {self._token}",
            **headers,
        }
        body = b"".join(application(environ, lambda *given: found.extend(given)))
        return int(found[0].split()[0]), dict(found[1]), body
