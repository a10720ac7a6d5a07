"""The page of an app: its files, `page_routes`, and `UiPort`, which serves it without a worker for `pipeline ui`.

The files are read once, at the start. They have a directory that is named by their content, so browsers may keep them
forever. The page itself is requested again each time. It has no inline script or style, and loads nothing from other
hosts. `UiPort` reads everything else from Kafka.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from http import HTTPStatus
from pathlib import Path

from pipeline.config import HttpSettings
from pipeline.errors import ConfigError
from pipeline.http.application import Answer, Application, Request, Route, failed, json_answer
from pipeline.http.documents import AppDocuments, PageApp, StatusClients
from pipeline.http.server import HttpServer
from pipeline.installation import runbooks_dir
from pipeline.ports import Clock, Logger

__all__ = ["PAGE_POLICY", "UiPort", "page_routes"]

_FILES = Path(__file__).with_name("page")
_INDEX = "index.html"
_PLACE = b"ASSETS/"  # in the page, before the name of a file
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_routes() -> Mapping[str, Route]:
    """The page, its files, and the runbooks that it links. None of them is about an app, so none needs a token."""
    files = {path.name: path.read_bytes() for path in sorted(_FILES.iterdir()) if path.suffix in _TYPES}
    digest = blake2b(digest_size=8)
    for name, content in files.items():
        digest.update(name.encode() + content)
    place = f"assets/{digest.hexdigest()}/"
    index = (_FILES / _INDEX).read_bytes().replace(_PLACE, place.encode())
    etag = f'"{blake2b(index, digest_size=8).hexdigest()}"'
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": PAGE_POLICY,
        "ETag": etag,
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }

    def page(request: Request) -> Answer:
        if etag in request.if_none_match:
            return Answer(b"", "text/html; charset=utf-8", HTTPStatus.NOT_MODIFIED, headers)
        return Answer(index, "text/html; charset=utf-8", HTTPStatus.OK, headers)

    def asset(request: Request) -> Answer:
        name = request.path.removeprefix(f"/{place}")
        if name not in files:
            return failed(HTTPStatus.NOT_FOUND, "there is no such file", "reload the page")
        kept = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Answer(files[name], _TYPES[Path(name).suffix], HTTPStatus.OK, kept)

    return {
        "/": Route(page, open=True),
        "/assets/": Route(asset, open=True),
        "/runbooks/": Route(_runbook, open=True),
    }


def _runbook(request: Request) -> Answer:
    """The runbook NAME at /runbooks/NAME.md, as errors name it, and at /runbooks/NAME/, as alerts link it."""
    pages = {path.stem: path for path in runbooks_dir().glob("*.md")}
    page = pages.get(request.path.removeprefix("/runbooks/").removesuffix("/").removesuffix(".md"))
    if page is None:
        return failed(HTTPStatus.NOT_FOUND, "there is no such runbook", "list all runbooks: pipeline runbook")
    return Answer(page.read_bytes(), "text/plain; charset=utf-8")


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
