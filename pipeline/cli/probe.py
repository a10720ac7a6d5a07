"""`pipeline probe`: checks whether the worker on this machine is live or ready, for images without curl.

It is the health check of the image. It reads the same settings as the worker, so it finds the worker's port.
"""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from pipeline.config import MAX_PORT, HttpSettings, load_settings
from pipeline.errors import ConfigError, InputError

__all__ = ["probe"]

# An address that means every address of this machine is not one to connect to.
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here


class Question(StrEnum):
    """What to ask: /livez or /readyz."""

    LIVE = "live"
    READY = "ready"


class _Answer(msgspec.Struct, frozen=True):
    error: str = ""
    hint: str = ""


def probe(
    question: Annotated[
        Question, typer.Argument(metavar="[live|ready]", help="Ask /livez or /readyz.", show_default=True)
    ] = Question.LIVE,
    http_host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The worker's address. Default: http.host.")
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="The worker's port. Default: http.port.", min=1, max=MAX_PORT),
    ] = None,
    timeout_s: Annotated[float, typer.Option(help="Seconds to wait for the answer.", min=0.1)] = 3.0,
    config: Annotated[Path | None, typer.Option(help="The settings file. Default: pipeline.toml.")] = None,
) -> None:
    """Check whether the worker on this machine is live or ready, over its HTTP port. If not, the exit code is 1.

    A container is healthy if its worker is live. A worker that is not ready may be restoring its tasks.
    """
    settings = load_settings({"http_host": http_host, "http_port": http_port}, file=config).http
    if not settings.port:
        raise ConfigError(
            "http.port is not set, so the worker has no HTTP port",
            hint="set PIPELINE_HTTP_PORT for the worker and for this command",
        )
    status, answer = _ask(settings, f"/{question}z", timeout_s)
    if status != HTTPStatus.OK:
        raise InputError(
            f"the worker is not {question}: {answer.error or f'HTTP status {status}'}",
            hint=answer.hint or None,
        )
    typer.echo(question)


def _ask(settings: HttpSettings, path: str, timeout_s: float) -> tuple[int, _Answer]:
    host = _LOOPBACK_OF.get(settings.host, settings.host)
    connection = HTTPConnection(host, settings.port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        with connection.getresponse() as response:  # `connection.close` leaves a response open
            return response.status, msgspec.json.decode(response.read(), type=_Answer)
    except (OSError, HTTPException, msgspec.DecodeError) as error:
        reason = (
            f"no answer within {timeout_s:g} s" if isinstance(error, TimeoutError) else f"no answer: {error}"
        )
        raise InputError(
            f"http://{host}:{settings.port}{path}: {reason}",
            hint="look into the worker's log for http_listening or http_port_unavailable",
        ) from None
    finally:
        connection.close()
