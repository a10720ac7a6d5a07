"""Configures the log: JSON lines on standard error, or readable lines if it is a terminal."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["configure_logs"]


def configure_logs(level: str = "info", *, worker: str | None = None) -> None:
    """Configure structlog, and route standard-library logging into it.

    Args:
        level: The lowest level that is logged. An unknown level means info; `--log-level` accepts only known ones.
        worker: The worker's id, which is added to every line.
    """
    level_number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
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
        wrapper_class=structlog.make_filtering_bound_logger(level_number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = _IntoStructlog(level=max(level_number, logging.WARNING))
    logging.basicConfig(handlers=[handler], level=handler.level, force=True)


def _over_the_progress_line(render: Processor) -> Processor:
    """Erase the progress line before each event.

    The line may belong to another process, so it cannot be completed with a newline.
    """

    def rendered(logger: WrappedLogger, method: str, event: EventDict) -> str:
        return f"\r\x1b[K{render(logger, method, event)}"  # type: ignore[str-bytes-safe]

    return rendered


class _IntoStructlog(logging.Handler):
    """Turns messages of libraries into events, so that all lines have the same format."""

    def emit(self, record: logging.LogRecord) -> None:
        # The events of this package have no level above ERROR, so that one filter finds every error.
        level = min(logging.ERROR, record.levelno)
        structlog.get_logger("pipeline").log(
            level, "library_log", logger=record.name, message=record.getMessage()
        )
