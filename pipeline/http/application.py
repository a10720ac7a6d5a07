"""`Application`: the paths of an HTTP port, their methods, and who may read them.

Probes, metrics and the files of the page are open. Every other path needs the token if there is one. Without a token,
such a path is served only on a loopback address, and only to requests that name a loopback host: a page from elsewhere,
whose name resolves to 127.0.0.1, cannot read it through a browser.

A route whose path ends with a slash also answers all paths below it, except the route `/`.

Pages of an application (`Pages`) have the paths that no route has, and any method. They are open, as they are in a web
server of their own: the application decides whom it answers.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote

import msgspec

from pipeline.config import HttpSettings
from pipeline.errors import PipelineError
from pipeline.ports import Logger

__all__ = [
    "Answer",
    "Application",
    "PageAnswer",
    "PageRequest",
    "Pages",
    "Request",
    "Route",
    "failed",
    "json_answer",
]

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_METHODS = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Request:
    """What a route may look at.

    `accept`, `if_none_match`: as in the headers. `query`: the last value of each parameter.
    """

    path: str
    accept: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    if_none_match: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """A path. `open`: it is served without a token."""

    answer: Callable[[Request], Answer]
    open: bool = False


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request for a page. `target`: the path as it was sent, with the query. `headers`: by name, in any case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """The answer of a page. `headers`: as they are sent, with the length of the body."""

    status: int
    reason: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class Pages(Protocol):
    """Pages of an application, on the HTTP port of its worker. Called on the threads of the server."""

    def replaces(self, path: str) -> bool:
        """Whether a page of the application has the path of one of our own pages, and replaces it."""
        ...

    def answer(self, request: PageRequest) -> PageAnswer:
        """The answer of a page. Raises PipelineError, which is answered with status 503."""
        ...


def json_answer(document: Any, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Answer:
    """An answer with one JSON document."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(msgspec.json.encode(document) + b"\n", "application/json", status, named)


class Application:
    """A WSGI application.

    Args:
        routes: By path.
        settings: The address and the token.
        log: For errors of a route.
        pages: Those of the application, if it has any.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        settings: HttpSettings,
        log: Logger,
        pages: Pages | None = None,
    ) -> None:
        self._pages = pages
        self._routes = routes
        self._settings = settings
        self._log = log

    def __call__(self, environ: Mapping[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        # As the specification of WSGI says, each character stands for one byte.
        path = str(environ.get("PATH_INFO", "")).encode("latin-1", "replace").decode(errors="replace")
        page = self._page(path, environ)
        if isinstance(page, PageAnswer):
            start(f"{page.status} {page.reason}", list(page.headers))
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [page.body]
        answer = page if page is not None else self._answer(path, environ)
        headers = {
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            **answer.headers,
        }
        start(f"{answer.status.value} {answer.status.phrase}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _page(self, path: str, environ: Mapping[str, Any]) -> PageAnswer | Answer | None:
        """The answer of a page of the application; None if the path is one of ours."""
        pages = self._pages
        if pages is None or (self._route(path) is not None and not pages.replaces(path)):
            return None
        try:
            return pages.answer(_page_request(environ))
        except PipelineError as error:
            return failed(HTTPStatus.SERVICE_UNAVAILABLE, error.message, error.hint or "")
        except Exception as error:  # noqa: BLE001 - as in `_answer`
            self._log.error("http_request_failed", path=path, error=type(error).__name__, message=str(error))
            return failed(HTTPStatus.BAD_GATEWAY, "the page could not be read", "see the worker's log")

    def _answer(self, path: str, environ: Mapping[str, Any]) -> Answer:
        route = self._route(path)
        if route is None:
            known = ", ".join(self._routes)
            return failed(HTTPStatus.NOT_FOUND, "there is no such path", f"the paths are {known}")
        if environ["REQUEST_METHOD"] not in _METHODS:
            refused = failed(HTTPStatus.METHOD_NOT_ALLOWED, "this port is read-only", "use GET")
            return Answer(refused.body, refused.content_type, refused.status, {"Allow": ", ".join(_METHODS)})
        refusal = None if route.open else self._refusal(environ)
        if refusal is not None:
            return refusal
        try:
            return route.answer(_request(path, environ))
        except PipelineError as error:
            return failed(HTTPStatus.SERVICE_UNAVAILABLE, error.message, error.hint or "")
        except Exception as error:  # noqa: BLE001 - a bug in a route must not end a thread of the server
            self._log.error("http_request_failed", path=path, error=type(error).__name__, message=str(error))
            return failed(HTTPStatus.INTERNAL_SERVER_ERROR, "the worker could not answer", "see its log")

    def _route(self, path: str) -> Route | None:
        """The route of this path, or the longest one that the path is below."""
        if path in self._routes:
            return self._routes[path]
        above = [
            each for each in self._routes if each.endswith("/") and each != "/" and path.startswith(each)
        ]
        return self._routes[max(above, key=len)] if above else None

    def _refusal(self, environ: Mapping[str, Any]) -> Answer | None:
        """The answer to a request that may not read a protected path; None if it may."""
        token = self._settings.token
        if token:
            given = str(environ.get("HTTP_AUTHORIZATION", ""))
            if hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                return None
            if given.startswith("Bearer "):
                reason, hint = "the token is wrong", "use the value of http.token (PIPELINE_HTTP_TOKEN)"
            else:
                reason, hint = "this path needs a token", "Authorization: Bearer TOKEN"
            refused = failed(HTTPStatus.UNAUTHORIZED, reason, hint)
            return Answer(refused.body, refused.content_type, refused.status, {"WWW-Authenticate": "Bearer"})
        host = str(environ.get("HTTP_HOST", ""))
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self._settings.loopback and name in _LOOPBACK_NAMES:
            return None
        where = "to requests for localhost" if self._settings.loopback else "on a loopback address"
        return failed(
            HTTPStatus.FORBIDDEN,
            f"without a token, this path is served only {where}",
            "set http.token (PIPELINE_HTTP_TOKEN)",
        )


def _request(path: str, environ: Mapping[str, Any]) -> Request:
    return Request(
        path,
        str(environ.get("HTTP_ACCEPT", "")),
        dict(parse_qsl(str(environ.get("QUERY_STRING", "")), keep_blank_values=True)),
        str(environ.get("HTTP_IF_NONE_MATCH", "")),
    )


def _page_request(environ: Mapping[str, Any]) -> PageRequest:
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").title(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name == "CONTENT_TYPE" and value)
    }
    path = quote(str(environ.get("PATH_INFO", "")).encode("latin-1", "replace"), safe="/:@!$&'()*+,;=~")
    query = str(environ.get("QUERY_STRING", ""))
    target = f"{path}?{query}" if query else path
    return PageRequest(str(environ["REQUEST_METHOD"]), target, headers, environ["wsgi.input"].read())


def failed(status: HTTPStatus, message: str, hint: str) -> Answer:
    """The answer to a failed request: the reason and the next step."""
    return json_answer({"error": message, "hint": hint}, status)
