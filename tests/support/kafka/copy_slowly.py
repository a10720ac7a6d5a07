"""`pipeline` with small commits of a copy, so that a kill can interrupt it with few records."""

from __future__ import annotations

from pipeline.cli.entry import main
from pipeline.ops.migration import copying

if __name__ == "__main__":
    copying.BATCH_RECORDS = 10
    main()
