"""The entry point of the `pipeline` command. Ctrl-C ends it without a traceback, also during its imports."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line. This is the console script."""
    try:
        from pipeline.cli.main import main as run  # noqa: PLC0415 - the import takes long enough to be interrupted

        run()
    except KeyboardInterrupt:
        sys.exit(130)
