"""The app of `benchmarks.recovery`, for `pipeline worker`. The variable RECOVERY_APP has its name."""

from __future__ import annotations

import os

from benchmarks.restart_app import make_app

__all__ = ["app"]

app = make_app(os.environ["RECOVERY_APP"])
