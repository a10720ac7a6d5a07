"""`Application`: the paths of an HTTP port, their methods, and who may read them.

Probes, metrics and the files of the page are open. Every other path needs the token if there is one. Without a token,
such a path is served only on a loopback address, and only to requests that name a loopback host: a page from elsewhere,
whose name resolves to 127.0.0.1, cannot read it through a browser.

A route whose path ends with a slash also answers all paths below it, except the route `/`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from pipeline.config import HttpSettings
from pipeline.errors import PipelineError
from pipeline.ports import Logger

__all__ = ["Answer", "Application", "Request", "Route", "failed", "json_answer"]

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
    """

    def __init__(self, routes: Mapping[str, Route], settings: HttpSettings, log: Logger) -> None:
        self._routes = routes
        self._settings = settings
        self._log = log

    def __call__(self, environ: Mapping[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        answer = self._answer(environ)
        headers = {
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            **answer.headers,
        }
        start(f"{answer.status.value} {answer.status.phrase}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _answer(self, environ: Mapping[str, Any]) -> Answer:
        # As the specification of WSGI says, each character stands for one byte.
        path = str(environ.get("PATH_INFO", "")).encode("latin-1", "replace").decode(errors="replace")
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


def failed(status: HTTPStatus, message: str, hint: str) -> Answer:
    """The answer to a failed request: the reason and the next step."""
    return json_answer({"error": message, "hint": hint}, status)
