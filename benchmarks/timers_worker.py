"""The app whose timers `benchmarks.timers` counts, and a worker that runs it: NAME SERVERS STATE_DIR.

An event with a due time sets a timer for its key. Any other event is published: with the key LATE or NEXT in `fired`,
beside the outputs of timers, otherwise in `answers`. Each of the two has one partition, so a reader sees the order.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from benchmarks import NOT_DECLARED
from pipeline import App, Context, Event, FiredTimer, KafkaSettings, Settings, WorkerSettings
from pipeline.app import declared_app
from pipeline.cli.logs import configure_logs
from pipeline.processes.wiring import run_app

__all__ = ["LATE", "NEXT", "TIMERS", "TimedEvent", "answers_topic", "events_topic", "fired_topic", "make_app"]

LATE = "late"  # the key of the record that makes all timers due
NEXT = "next"  # the key of the record after it
TIMERS = "alarms"


class TimedEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An input. `due_ms`: of the timer of its key; 0 for an event that is published at once."""

    at_ms: int
    due_ms: int = 0


def events_topic(name: str) -> str:
    return f"{name}-events"


def fired_topic(name: str) -> str:
    return f"{name}-fired"


def answers_topic(name: str) -> str:
    return f"{name}-answers"


def make_app(name: str) -> App:
    """The app, over topics that begin with its name."""
    app = App(name)
    events = app.topic(
        events_topic(name), key=str, value=TimedEvent, event_time_ms=lambda event: event.value.at_ms
    )
    fired = app.topic(fired_topic(name), key=str, value=int)
    answers = app.topic(answers_topic(name), key=str, value=int)
    alarms = app.timers(TIMERS, key=str)

    @app.handler(events)
    def take(event: Event[str, TimedEvent], ctx: Context) -> None:
        if event.value.due_ms:
            ctx.timers(alarms)[event.key] = event.value.due_ms
        else:
            ctx.send(fired if event.key in {LATE, NEXT} else answers, event.key, event.value.at_ms)

    @app.on_timer(alarms)
    def fire(timer: FiredTimer[str], ctx: Context) -> None:
        ctx.send(fired, timer.key, timer.due_ms)

    return app


if __name__ == "__main__":
    own_name, servers, state_dir = sys.argv[1:]
    configure_logs("info")
    settings = Settings(
        KafkaSettings(servers),
        WorkerSettings(state_dir=Path(state_dir), worker_id="bench", topics_dir=NOT_DECLARED),
    )
    run_app(declared_app(make_app(own_name)), settings)
