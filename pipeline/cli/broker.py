"""`pipeline broker`: runs Apache Kafka on this machine, for development."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.broker import BrokerError, LocalKafka, Report, Status, StepProgress, default_data_dir
from pipeline.config import load_settings
from pipeline.kafka.reachable import local_port

__all__ = ["broker_app", "step_progress"]

broker_app = typer.Typer(
    name="broker",
    help="Run Apache Kafka on this machine, for development. Needs neither Java nor Docker.",
    no_args_is_help=True,
)

_PORT = 9092
_POLL_S = 0.2

_Port = Annotated[
    int | None,
    typer.Option(
        help=f"The port of the first node; the other nodes use the ports after it. Default: the port that "
        f"PIPELINE_KAFKA or pipeline.toml names, otherwise {_PORT}.",
        min=1,
        max=65533,
    ),
]
_DataDir = Annotated[
    Path | None,
    typer.Option(
        help="The directory of records and logs. Default: a directory per port in the user's cache."
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


@broker_app.command()
def start(
    port: _Port = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            help="1 or 3. Three nodes replicate all records. Default: 1 for a new broker; a broker that was started "
            "before keeps its number."
        ),
    ] = None,
    data_dir: _DataDir = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="First delete all records and topics of this broker.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Start a Kafka broker on this machine. The first start downloads Kafka (45 MB).

    If the broker is running, this changes nothing. If only some of its nodes are running, this starts the others.
    """
    kafka = _kafka(port, data_dir, nodes=nodes, fresh=fresh)
    began = time.monotonic()
    with step_progress() as report:
        started = kafka.start(fresh=fresh, report=report)
    took = f"started in {time.monotonic() - began:.1f} s" if started else "was already running"
    _say(f"Kafka {took}: {kafka.bootstrap_servers}")
    _say(f"  cluster {kafka.cluster_id}, records and logs in {kafka.data_dir}")
    asked = load_settings().kafka.bootstrap_servers
    if local_port(asked) != local_port(kafka.bootstrap_servers):
        _say(
            f"  other commands use {asked}. To use this Kafka: export PIPELINE_KAFKA={kafka.bootstrap_servers}"
        )
    if as_json:
        typer.echo(json.dumps(_as_dict(kafka.status())))


@broker_app.command()
def stop(port: _Port = None, data_dir: _DataDir = None) -> None:
    """Stop the broker. Its records are kept. The exit code is also 0 if no broker runs."""
    kafka = _kafka(port, data_dir)
    with step_progress() as report:
        stopped = kafka.stop(report)
    _say(
        "stopped"
        if stopped
        else f"no broker runs in {kafka.data_dir}. For another one, give its --port or --data-dir"
    )


@broker_app.command()
def status(
    port: _Port = None,
    data_dir: _DataDir = None,
    as_json: _Json = False,
) -> None:
    """Show whether the broker serves clients. Exit code 1 if a node does not."""
    found = _kafka(port, data_dir).status()
    if as_json:
        typer.echo(json.dumps(_as_dict(found)))
    elif not found.nodes:
        typer.echo(f"no broker was started in {found.data_dir}")
    else:
        typer.echo(
            f"Apache Kafka {found.kafka_version} at {found.bootstrap_servers}, cluster {found.cluster_id}"
        )
        for node in found.nodes:
            process = f"process {node.pid}" if node.pid else "not running"
            serving = ", serving" if node.answers else ", not serving yet" if node.pid else ""
            typer.echo(f"  node {node.id}  port {node.port}  {process}{serving}  log {node.log}")
    if not found.running:
        options = (f" --port {port}" if port else "") + (f" --data-dir {data_dir}" if data_dir else "")
        _say(f"  -> pipeline broker start{options}")
        raise typer.Exit(1)


@broker_app.command()
def logs(
    port: _Port = None,
    data_dir: _DataDir = None,
    node: Annotated[int, typer.Option(help="The number of the node.")] = 1,
    lines: Annotated[int, typer.Option(help="How many of the last lines to print.", min=0)] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Also print new lines, until Ctrl-C.")
    ] = False,
) -> None:
    """Print the end of a node's log."""
    found = _kafka(port, data_dir).status()
    log = next((n.log for n in found.nodes if n.id == node and n.log.exists()), None)
    if log is None:
        raise BrokerError(
            f"node {node} has no log in {found.data_dir}",
            hint="list the nodes: pipeline broker status. Then give --port or --node",
        )
    with log.open(encoding="utf-8", errors="replace") as file:
        for line in file.readlines()[-lines:] if lines else ():
            typer.echo(line, nl=False)
        while follow:
            grown = file.read()
            typer.echo(grown, nl=False)
            if not grown:
                time.sleep(_POLL_S)


def _kafka(
    port: int | None, data_dir: Path | None, *, nodes: int | None = None, fresh: bool = False
) -> LocalKafka:
    """The broker of the options, or else that of other commands. Missing options are those of the last start."""
    usual = port or local_port(load_settings().kafka.bootstrap_servers) or _PORT
    where = data_dir or default_data_dir(usual)
    # With `fresh`, the old state is deleted. It is not read, because it may be damaged.
    known = () if fresh else LocalKafka(where).status().nodes
    if port is None:
        port = known[0].port if known else usual
    return LocalKafka(where, port, nodes or len(known) or 1)


def _as_dict(found: Status) -> dict[str, object]:
    return {
        "running": found.running,
        "bootstrap_servers": found.bootstrap_servers,
        "cluster_id": found.cluster_id,
        "kafka_version": found.kafka_version,
        "data_dir": str(found.data_dir),
        "nodes": [
            {"id": n.id, "port": n.port, "pid": n.pid, "serving": n.answers, "log": str(n.log)}
            for n in found.nodes
        ],
    }


@contextmanager
def step_progress() -> Iterator[Report]:
    """Report progress: on a terminal as one line that changes, otherwise as one line per step."""
    console = Console(stderr=True)
    if not console.is_terminal:
        seen: set[str] = set()

        def report_line(progress: StepProgress) -> None:
            if progress.step not in seen:
                seen.add(progress.step)
                _say(f"{progress}")

        yield report_line
        return
    with console.status("checking") as shown:
        yield lambda progress: shown.update(str(progress))


def _say(text: str) -> None:
    typer.echo(text, err=True)
