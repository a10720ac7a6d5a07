"""Where the `pipeline` command begins: Ctrl-C ends it without a traceback from here on, also amid its imports."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the console script."""
    try:
        from pipeline.cli.main import main as run  # noqa: PLC0415 - loading takes long enough to be interrupted

        run()
    except KeyboardInterrupt:
        sys.exit(130)
