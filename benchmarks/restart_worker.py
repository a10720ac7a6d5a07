"""python -m benchmarks.restart_worker APP HOST:PORT DIRECTORY: the worker whose restart is measured."""

from __future__ import annotations

import sys
import time
from pathlib import Path


def main() -> None:
    """Import what `pipeline worker` imports, and run."""
    entered_s = time.monotonic()
    # All imports happen here, because they are a part of what is measured.
    import pipeline.cli.main  # noqa: F401, PLC0415
    from benchmarks.restart_app import work  # noqa: PLC0415

    name, servers, directory = sys.argv[1:4]
    work(entered_s, name, servers, Path(directory))


if __name__ == "__main__":
    main()
