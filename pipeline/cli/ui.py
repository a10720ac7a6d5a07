"""`pipeline ui`: serves the page of an app, also while no worker runs."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import replace
from typing import Annotated

import structlog
import typer

from pipeline.api.app import DeclaredApp
from pipeline.cli.logs import configure_logs
from pipeline.cli.lookup import app_named, find_app
from pipeline.cli.options import CommandWait, KafkaOption, print_message, quiet_kafka_settings
from pipeline.config import MAX_PORT, HttpSettings, load_settings
from pipeline.drills.reports import ServedReports
from pipeline.errors import InputError
from pipeline.http.documents import PageApp
from pipeline.http.ui import UiPort
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import SystemClock
from pipeline.processes.observers import servers_for_commands, status_clients
from pipeline.processes.signals import heard_signals
from pipeline.runtime.status import read_status

__all__ = ["DEFAULT_PORT", "ui", "warning_without_token"]

DEFAULT_PORT = 8080
_HTTP = HttpSettings()


def ui(
    app: Annotated[
        str,
        typer.Argument(
            metavar="APP",
            help="The app: MODULE:APP as for pipeline worker, or its name. With a name, keys and values are shown as "
            "text, and the topics that handlers write are unknown.",
        ),
    ],
    kafka: KafkaOption = None,
    http_host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help=f"The address to listen on. Default: http.host, which is {_HTTP.host}."
        ),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help=f"The port to listen on; 0 for any free one. Default: http.port; if that is 0, {DEFAULT_PORT}.",
            min=0,
            max=MAX_PORT,
        ),
    ] = None,
) -> None:
    """Serve the page of an app until Ctrl-C: tasks, workers, the last minutes, dead letters, drills.

    Everything is read from Kafka, so the page also works while no worker runs. It changes nothing. If http.token is
    set, the page asks for it; without a token, only this host can read the page's data.
    """
    declared: DeclaredApp | None = find_app(app) if ":" in app else None
    name = app_named(app)
    kafka_settings = quiet_kafka_settings(kafka)
    settings = load_settings({"http_host": http_host, "http_port": http_port})
    http = settings.http
    if http_port is None and not http.port:
        http = replace(http, port=DEFAULT_PORT)
    configure_logs("error")
    with (
        closing(KafkaCluster(kafka_settings, CommandWait(kafka_settings))) as cluster,
        closing(KafkaJournalReader(kafka_settings)) as reader,
    ):
        try:
            read_status(name, cluster, reader, time.time_ns() // 1_000_000)
        except InputError:
            if declared is None:
                raise
            print_message(
                f"app {name} has no data in this Kafka yet: the page shows it once a worker has started"
            )
    about = PageApp(
        name,
        declared,
        app if declared is not None else "MODULE:APP",
        servers_for_commands(kafka_settings),
        reports=ServedReports(settings.drills.directory),
    )
    port = UiPort(
        about, http, status_clients(kafka_settings), SystemClock(), structlog.get_logger("pipeline")
    )
    stop = threading.Event()
    with heard_signals(stop):
        port.start()
        try:
            typer.echo(port.url)
            if warning := warning_without_token(http):
                print_message(warning)
            print_message("Ctrl-C ends it")
            while not stop.wait(1.0):
                pass
        finally:
            port.stop()
    print_message("stopped")


def warning_without_token(http: HttpSettings) -> str:
    """What to print if other hosts can connect, but no request gets data; else nothing."""
    if http.loopback or http.token:
        return ""
    return (
        f"warning: there is no token, and {http.host} is not a loopback address: requests for data are refused (403), "
        "also from this host\n"
        "  -> set a token: PIPELINE_HTTP_TOKEN, or http.token in pipeline.toml. Or listen on 127.0.0.1"
    )
