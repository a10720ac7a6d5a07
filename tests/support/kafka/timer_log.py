"""The app of the timer tests on a real Kafka. Names come from the environment: every test has its own topics."""

from __future__ import annotations

import os

from tests.support.runtime.timer_app import TimerApp

PREFIX = os.environ.get("COUNTS_PREFIX", "timers")

app = TimerApp(prefix=f"{PREFIX}-").app
