"""`pipeline drill`: rehearses failures on live workers, and reports what they cost."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pipeline.api.app import DeclaredApp
from pipeline.cli.drill_reports import report_app, show_report
from pipeline.cli.logs import configure_logs
from pipeline.cli.lookup import find_app, parse_task
from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    confirm,
    print_json,
    print_message,
    quiet_kafka_settings,
)
from pipeline.cli.rendering import Column, print_table
from pipeline.config import MAX_PORT, Settings, load_settings
from pipeline.core.names import TaskChoice
from pipeline.core.suggestions import counted
from pipeline.drills.catalog import DRILLS, find_drill, read_suite, require_drill
from pipeline.drills.conditions import MEASURES, parse_conditions
from pipeline.drills.containers import ENGINES, Engine
from pipeline.drills.drill import Drill, Plan
from pipeline.drills.intent import IntentFile, undo
from pipeline.drills.network_faults import ProxyPlace
from pipeline.drills.observation import short
from pipeline.drills.proxy import NetworkProxy, serve
from pipeline.drills.report import Report
from pipeline.drills.reports import Reports
from pipeline.drills.runner import Runner
from pipeline.drills.scene import Options
from pipeline.drills.shadow_spec import ShadowSpec
from pipeline.drills.shadow_worker import run_shadow
from pipeline.errors import ConfigError, InputError, PipelineError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.object_store.checkpoint_store import open_checkpoint_store
from pipeline.ports import SystemClock
from pipeline.processes.lifeline import tie
from pipeline.processes.signals import heard_signals

__all__ = ["drill_app"]

ABORTED = 6
NOT_RESTORED = 7
PROXY_PORT = 9392
_CODES = {"held": 0, "deviated": 1, "aborted": ABORTED, "not restored": NOT_RESTORED}

drill_app = typer.Typer(
    help="Rehearse failures on live workers, and report what they cost.", no_args_is_help=True
)
drill_app.add_typer(report_app, name="report")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The drill, as in pipeline drill list.")]
AppOption = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="APP",
        help="The app, by its name or as MODULE:APP. Default: the one in drills.allow.",
        show_default=False,
    ),
]
WorkerOption = Annotated[
    str, typer.Option("--worker", metavar="ID", help="The target worker. Default: one with the most tasks.")
]
TaskOption = Annotated[
    TaskChoice | None,
    typer.Option(
        "--task", metavar="[GROUP/]N", help="The task, for drills on one. Default: any.", parser=parse_task
    ),
]
SecondsOption = Annotated[
    float | None,
    typer.Option("--seconds", help="How long the fault lasts. Default: as the drill describes.", min=0.1),
]
MaxTasksOption = Annotated[
    int | None,
    typer.Option("--max-tasks", metavar="N", help="Refuse if more tasks would be affected.", min=0),
]
ContainersOption = Annotated[
    str | None,
    typer.Option(
        "--containers",
        metavar="ENGINE",
        help=f"Also find workers in containers of this host, with this command: {' or '.join(ENGINES)}.",
        show_default=False,
    ),
]
SinceOption = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="START",
        help="Where shadow-replay begins: a time, or TOPIC/PARTITION/OFFSET. Default: as early as possible.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


@drill_app.command("list")
def list_(json: JsonOption = False) -> None:
    """Show all drills."""
    if json:
        print_json([{"name": name, "summary": drill.summary} for name, drill in DRILLS.items()])
        return
    print_table((Column("drill"), Column("what it does")), ([n, d.summary] for n, d in DRILLS.items()))


@drill_app.command("plan")
def plan_(
    name: NameArgument,
    app: AppOption = None,
    worker: WorkerOption = "",
    task: TaskOption = None,
    seconds: SecondsOption = None,
    max_tasks: MaxTasksOption = None,
    containers: ContainersOption = None,
    since: SinceOption = "",
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a drill would do: targets, affected tasks, and the predicted seconds. Changes nothing.

    A drill whose precondition is not met is refused with the reason, and the exit code is 1.
    """
    require_drill(name)
    with _open(app, kafka, containers) as place:
        options = Options(worker, task, seconds, max_tasks, app or "", since=since)
        plan, met = place.runner.plan(find_drill(name, place.declared), options)
        if json:
            print_json(_plan_document(name, plan, met))
        else:
            _show_plan(name, plan, met)


@drill_app.command("run")
def run_(
    name: NameArgument,
    app: AppOption = None,
    worker: WorkerOption = "",
    task: TaskOption = None,
    seconds: SecondsOption = None,
    max_tasks: MaxTasksOption = None,
    abort_if: Annotated[
        str,
        typer.Option(
            "--abort-if",
            metavar="EXPR",
            help=f"Abort when this comparison is true. Measures: {', '.join(MEASURES)}.",
        ),
    ] = "",
    since: SinceOption = "",
    reason: Annotated[str, typer.Option("--reason", help="The reason of the drill, for the report.")] = "",
    containers: ContainersOption = None,
    yes: YesOption = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Run a drill on the live workers of this host, and write its report.

    The exit code is 0 if the hypothesis held, 1 if the app deviated from it or the drill was refused, 6 if it was
    aborted, and 7 if not everything could be restored.
    """
    require_drill(name)
    conditions = parse_conditions(abort_if) if abort_if else ()
    with _open(app, kafka, containers) as place:
        options = Options(worker, task, seconds, max_tasks, app or "", reason, conditions, since)
        report = _run(place, find_drill(name, place.declared), options, yes=yes)
        if json:
            print_json(report)
        else:
            show_report(report)
    raise typer.Exit(_CODES[report.verdict])


@drill_app.command("suite")
def suite_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TOML file that lists drills.")],
    app: AppOption = None,
    containers: ContainersOption = None,
    yes: YesOption = False,
    kafka: KafkaOption = None,
) -> None:
    """Run the drills of a file, one after the other. A drill that is not restored ends the suite.

    The exit code is the most serious one of its drills. A refused drill counts as 1.
    """
    suite = read_suite(file)
    chosen = [(each.name, each.options(suite.reason, app or "")) for each in suite.drill]
    for name, _ in chosen:
        require_drill(name)
    codes = []
    with _open(app, kafka, containers) as place:
        confirm(f"run {counted(len(chosen), 'drill')} on app {place.app}?", yes=yes)
        for name, options in chosen:
            print_message(f"--- {name}")
            drill = find_drill(name, place.declared)
            try:
                report = _run(place, drill, options, yes=True)
            except PipelineError as error:
                print_message(f"error: {error}")
                codes.append(error.exit_code)
                continue
            codes.append(_CODES[report.verdict])
            print_message(f"{drill.name}: {report.verdict}")
            if codes[-1] == NOT_RESTORED:
                break
    raise typer.Exit(max(codes))


@drill_app.command("abort")
def abort(app: AppOption = None) -> None:
    """Abort the running drill. It restores what it changed, and ends with exit code 6."""
    settings = load_settings()
    name = _app_name(app, settings)
    intent = IntentFile(settings.drills.directory, name)
    found = intent.read()
    if found is None:
        raise InputError(f"no drill of app {name} runs", hint="see pipeline drill report list")
    if not found.driller.alive:
        raise InputError(
            f"the process of {found.id} has ended",
            hint=f"restore what it changed: pipeline drill undo --app {name}",
        )
    intent.ask_to_abort()
    print_message(f"asked {found.id} to abort")


@drill_app.command("undo")
def undo_(app: AppOption = None) -> None:
    """Undo the changes of a drill that was killed. The exit code is 7 if something cannot be restored."""
    settings = load_settings()
    name = _app_name(app, settings)
    intent = IntentFile(settings.drills.directory, name)
    found = intent.read()
    if found is None:
        print_message(f"no drill of app {name} is open: there is nothing to restore")
        return
    if found.driller.alive:
        raise InputError(
            f"drill {found.id} runs, as process {found.driller.pid}", hint="end it: pipeline drill abort"
        )
    failed = False
    for each in undo(found, SystemClock()):
        print_message(f"{each.what}: {each.result}")
        failed |= each.failed
    if failed:
        print_message(
            f"not everything is restored\n  -> correct the cause, and run pipeline drill undo --app {name} again"
        )
        raise typer.Exit(NOT_RESTORED)
    intent.end()
    print_message(f"{found.id}: everything is restored")


@drill_app.command("proxy")
def proxy_(
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1.", min=1, max=MAX_PORT)] = PROXY_PORT,
    kafka: KafkaOption = None,
) -> None:
    """Run a proxy to Kafka for network drills until Ctrl-C. Workers that use its address can be slowed or cut off.

    A fault ends at its deadline, also if the drill was killed. The proxy does not understand TLS.
    """
    settings = load_settings({"bootstrap_servers": kafka})
    if "SSL" in settings.kafka.properties.get("security.protocol", "").upper():
        raise ConfigError(
            "Kafka is reached with TLS, and the proxy cannot read encrypted requests",
            hint="rehearse network failures where Kafka has a listener without TLS",
        )
    servers, stop = settings.kafka.bootstrap_servers, threading.Event()
    with heard_signals(stop), closing(NetworkProxy(servers, port)) as proxy:
        print_message(f"proxy to {servers}: start workers with --kafka {proxy.servers}")
        serve(proxy, ProxyPlace.of_port(settings.drills.directory.absolute(), port), servers, stop)


@drill_app.command("shadow-worker", hidden=True)
def shadow_worker(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The live app.")],
    spec: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The input and the ends of the replay, written by the drill."),
    ],
    log: Annotated[Path, typer.Option("--log", help="The file that it logs to.")],
    supervised: Annotated[str, typer.Option("--supervised", help="The pipes to the process of the drill.")],
    kafka: KafkaOption = None,
) -> None:
    """Run the shadow app of a drill. The drill starts this process, which ends with the drill."""
    tie(supervised)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    configure_logs("info", worker="shadow")
    found = ShadowSpec.read(spec)
    app = find_app(target)
    try:
        run_shadow(app, found, load_settings({"bootstrap_servers": kafka}))
    except PipelineError as error:
        print_message(f"error: {error}")
        os._exit(error.exit_code)


@dataclass(frozen=True, slots=True)
class _Place:
    """What a command needs of an app."""

    app: str
    declared: DeclaredApp | None
    settings: Settings
    runner: Runner


@contextmanager
def _open(app: str | None, kafka: str | None, containers: str | None) -> Iterator[_Place]:
    if containers is not None and containers not in ENGINES:
        raise InputError(
            f"there is no container engine {containers!r}",
            hint=f"--containers {' or --containers '.join(ENGINES)}",
        )
    wait = quiet_kafka_settings(kafka)
    settings = load_settings({"bootstrap_servers": kafka})
    name = _app_name(app, settings)
    declared = find_app(app) if app is not None and ":" in app else None
    with (
        closing(KafkaCluster(wait, CommandWait(wait))) as cluster,
        closing(KafkaJournalReader(wait)) as reader,
    ):
        store = open_checkpoint_store(settings.worker.checkpoint_store)
        engine = Engine(containers) if containers is not None else None
        runner = Runner(name, settings, cluster, reader, store, SystemClock(), print_message, engine)
        yield _Place(name, declared, settings, runner)


def _app_name(app: str | None, settings: Settings) -> str:
    """The name of the app. Raises ConfigError if it is not given and drills.allow does not name exactly one."""
    if app is not None:
        return find_app(app).name if ":" in app else app
    if len(settings.drills.allow) == 1:
        return settings.drills.allow[0]
    known = ", ".join(settings.drills.allow)
    raise ConfigError(
        f"drills.allow names {'several apps: ' + known if known else 'no app'}, and --app is not given",
        hint="add --app, or set allow under [drills] in pipeline.toml",
    )


def _run(place: _Place, drill: Drill, options: Options, *, yes: bool) -> Report:
    reports = Reports(place.settings.drills.directory)

    def agreed(plan: Plan) -> None:
        reports.require_usable()
        if not yes:
            _show_plan(drill.name, plan, [])
        confirm(f"run {drill.name} on app {place.app}?", yes=yes)

    report, path = reports.save(place.runner.run(drill, options, agreed))
    print_message(f"report: {path}")
    return report


def _show_plan(name: str, plan: Plan, met: list[str]) -> None:
    for fact in met:
        typer.echo(f"met: {fact}")
    typer.echo(f"drill: {name}")
    typer.echo(f"target: {plan.target}")
    for action in plan.actions:
        typer.echo(f"  - {action}")
    typer.echo(f"effect: {plan.effect}")
    if plan.tasks:
        named = ", ".join(map(short, plan.tasks[:12])) + (" ..." if len(plan.tasks) > 12 else "")
        typer.echo(f"affected: {counted(len(plan.tasks), 'task')}: {named}")
        typer.echo(f"predicted: about {plan.predicted_s:.1f} s until the last of them commits again")


def _plan_document(name: str, plan: Plan, met: list[str]) -> dict[str, object]:
    return {
        "drill": name,
        "target": plan.target,
        "actions": list(plan.actions),
        "effect": plan.effect,
        "tasks": [short(task) for task in plan.tasks],
        "predicted_s": round(plan.predicted_s, 1),
        "preconditions": met,
    }
