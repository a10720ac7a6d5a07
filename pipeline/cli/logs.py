"""How logs leave the process: JSON lines on stderr, or readable ones when a person watches."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["configure_logs"]


def configure_logs(level: str = "info", *, worker: str | None = None) -> None:
    """Set up structlog, and the Kafka client's logger through the standard library.

    `worker`: the id that every line carries.
    """
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    terminal = sys.stderr.isatty()
    renderer: Processor = (
        _over_the_progress_line(structlog.dev.ConsoleRenderer(colors=True))
        if terminal
        else structlog.processors.JSONRenderer()
    )

    def name_worker(_logger: object, _method: str, event: EventDict) -> EventDict:
        if worker is not None:
            event.setdefault("worker", worker)
        return event

    structlog.configure(
        processors=[
            name_worker,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = _IntoStructlog(level=max(number, logging.WARNING))
    logging.basicConfig(handlers=[handler], level=handler.level, force=True)


def _over_the_progress_line(render: Processor) -> Processor:
    """The line that is rewritten each second may be another process's, so nobody can be asked to end it."""

    def rendered(logger: WrappedLogger, method: str, event: EventDict) -> str:
        return f"\r\x1b[K{render(logger, method, event)}"  # type: ignore[str-bytes-safe]

    return rendered


class _IntoStructlog(logging.Handler):
    """What libraries log becomes an event like our own, so that every line has one form."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(logging.ERROR, record.levelno)
        structlog.get_logger("pipeline").log(
            level, "library_log", logger=record.name, message=record.getMessage()
        )
