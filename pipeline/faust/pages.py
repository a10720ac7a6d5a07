"""`FaustPages`: the pages of an application, on the HTTP port of its worker.

Faust's own aiohttp application answers them, on the loop of the app. It listens nowhere: for each request, a thread of
the HTTP port makes a pair of connected sockets, hands one of them over to the loop, and sends the request through the
other one. So a view gets a real request of aiohttp, with its headers, its query and its body.

    client --> HTTP port --> thread of the server --> socket pair --> aiohttp, on the loop --> view
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from typing import Any

from aiohttp.web import AppRunner

from pipeline.errors import ConfigError, InputError, UnreachableError
from pipeline.http.application import PageAnswer, PageRequest
from pipeline.http.port import PAGE_THREADS
from pipeline.http.server import MAX_ANSWER_BYTES

__all__ = ["FaustPages", "has_pages"]

_ROOM_S = 1.0  # a request waits this long for one of the threads
_ANSWER_S = 120.0
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "te"})
_OURS = frozenset({"/livez", "/readyz", "/metrics"})
_BELOW_OURS = ("/api/", "/assets/", "/runbooks/")


def has_pages(app: Any) -> bool:
    """Whether an app has pages of its own: of `@app.page`, `app.web.route`, or a blueprint."""
    web = vars(app).get("web")  # the property would create it
    return web is not None and bool(web.views or len(web.web_app.router.routes()) or _blueprints(web))


def _blueprints(web: Any) -> list[Any]:
    """The blueprints that the app has added. Those of Faust itself show parts of its engine, which does not run."""
    own = web._enabled_blueprints()  # noqa: SLF001
    return [each for each in web.blueprints._enabled if each not in own]  # noqa: SLF001


class FaustPages:
    """`start` and `stop` run on the loop of the app. Raises ConfigError if a page has a path of the worker."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._web = app.web
        self._runner: AppRunner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room = threading.Semaphore(PAGE_THREADS)
        if not hasattr(self._web, "web_app"):
            raise ConfigError(
                f"the web driver {type(self._web).__module__} is not carried over from Faust",
                hint="leave web= out: pages are served by aiohttp",
            )
        for path in self._web.views:
            if path.rstrip("/") in _OURS or path.startswith(_BELOW_OURS):
                raise ConfigError(
                    f"the application has a page {path}, and this path belongs to the worker",
                    hint="choose another path for the page",
                )

    def replaces(self, path: str) -> bool:
        """Whether a page of the application has this path."""
        return path in self._web.views

    async def start(self) -> None:
        """Begin to answer."""
        web = self._web
        web.blueprints._enabled = _blueprints(web)  # noqa: SLF001
        _ = web.cors  # as Faust does, before the first route
        web.init_server()
        runner = AppRunner(web.web_app, access_log=None)
        await runner.setup()
        self._loop, self._runner = asyncio.get_running_loop(), runner

    async def stop(self) -> None:
        """End the requests that are being answered, and close the application."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def answer(self, request: PageRequest) -> PageAnswer:
        """Let the application answer a request. Raises PipelineError."""
        if not self._room.acquire(timeout=_ROOM_S):
            raise UnreachableError(
                f"{PAGE_THREADS} requests wait for pages of the application already", hint="try again"
            )
        try:
            return self._answer(request)
        except TimeoutError:
            raise UnreachableError(
                f"the page has not answered within {_ANSWER_S:.0f} s", hint="see the log of the worker"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"the page has not answered: {error!r}", hint="the worker may be stopping; try again"
            ) from error
        finally:
            self._room.release()

    def _answer(self, request: PageRequest) -> PageAnswer:
        loop, runner = self._loop, self._runner
        if loop is None or runner is None or loop.is_closed():
            raise UnreachableError("the worker is starting, or stops", hint="try again")
        ours, theirs = socket.socketpair()
        connection = http.client.HTTPConnection("pages", timeout=_ANSWER_S)
        connection.sock = ours
        ours.settimeout(_ANSWER_S)
        try:
            serving = loop.connect_accepted_socket(runner.server, theirs)  # type: ignore[arg-type]
            asyncio.run_coroutine_threadsafe(serving, loop).result(_ANSWER_S)
            headers = {
                name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP
            }
            connection.request(
                request.method, request.target, request.body or None, {**headers, "Connection": "close"}
            )
            response = connection.getresponse()
            body = response.read(MAX_ANSWER_BYTES + 1)
        finally:
            connection.close()
        if len(body) > MAX_ANSWER_BYTES:
            raise InputError(
                f"the page is larger than {MAX_ANSWER_BYTES} bytes", hint="let it answer in several parts"
            )
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
        length = response.getheader("Content-Length") if request.method == "HEAD" else str(len(body))
        if length is not None:
            kept.append(("Content-Length", length))
        return PageAnswer(response.status, response.reason, kept, body)
