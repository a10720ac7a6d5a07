"""`UiPort`: the page of an app without a worker, for `pipeline ui`. Everything is read from Kafka."""

from __future__ import annotations

from pipeline.config import HttpSettings
from pipeline.errors import ConfigError
from pipeline.http.application import Application, Route, json_answer
from pipeline.http.assets import page_routes
from pipeline.http.documents import AppDocuments, PageApp, StatusClients
from pipeline.http.server import HttpServer
from pipeline.ports import Clock, Logger

__all__ = ["UiPort"]


class UiPort:
    """Serves the page from `start` to `stop`.

    Args:
        app: The app.
        settings: The address and the token.
        clients: For Kafka.
        clock: The clock.
        log: The log.
    """

    def __init__(
        self, app: PageApp, settings: HttpSettings, clients: StatusClients, clock: Clock, log: Logger
    ) -> None:
        self._settings = settings
        self.documents = AppDocuments(app, clients, settings, clock)
        self.routes = {
            "/livez": Route(lambda _request: json_answer({"live": True}), open=True),
            **self.documents.routes,
            **page_routes(),
        }
        self._server = HttpServer(Application(self.routes, settings, log), settings.host, settings.port)

    @property
    def url(self) -> str:
        """The address of the page."""
        host = self._settings.host
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.port}/"

    def start(self) -> None:
        """Listen. Raises ConfigError if the address cannot be used."""
        try:
            self._server.start()
        except OSError as error:
            host, port = self._settings.host, self._settings.port
            raise ConfigError(
                f"cannot listen on {host} port {port}: {error.strerror or error}",
                hint="a worker or another program may use the port: choose another one with --http-port",
            ) from error

    def stop(self) -> None:
        """Close the port."""
        self._server.stop()
