"""How logs leave the process: JSON lines on stderr, or readable ones when a person watches."""

from __future__ import annotations

import logging
import sys

import structlog

__all__ = ["configure_logs"]


def configure_logs(level: str = "info") -> None:
    """Set up structlog, and the Kafka client's logger through the standard library."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=True) if terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
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


class _IntoStructlog(logging.Handler):
    """What libraries log becomes an event like our own, so that every line has one form."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(logging.ERROR, record.levelno)
        structlog.get_logger("pipeline").log(
            level, "library", logger=record.name, message=record.getMessage()
        )
