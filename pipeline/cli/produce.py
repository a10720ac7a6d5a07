"""`pipeline produce`: a file to a topic, exactly once, resumable."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pipeline.cli.options import JsonOption, KafkaOption, counted, kafka_settings, print_json, say
from pipeline.client.limits import DEFAULT_RECORD_BYTES, record_bytes, row_limits
from pipeline.client.lines import Lines
from pipeline.client.load import LoadOptions, LoadPosition, LoadRequest
from pipeline.client.loader import Loader, LoadWorld, find_topic
from pipeline.client.opening import STANDARD_INPUT, file_format, open_bytes, unpacked_bytes
from pipeline.client.pace import Pace, paced_rows
from pipeline.config import KafkaSettings
from pipeline.core.names import LOADS_TOPIC
from pipeline.kafka.clients import ProducerLimits
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.producer import KafkaProducers
from pipeline.ports import TopicInfo
from pipeline.runtime.system import SystemClock, SystemRandom, ThreadExecutor

__all__ = ["produce"]

# Far above what a commit takes, so that a slow one is told from one that the client sent twice.
_RETRY_BACKOFF_MS = 200
_REPORT_S = 2.0


class Format(StrEnum):
    """How the file is read."""

    CSV = "csv"
    JSONL = "jsonl"


class OnMissingKey(StrEnum):
    """What happens to a row without a key."""

    ERROR = "error"
    NULL = "null"
    SKIP = "skip"


def produce(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="An existing topic.")],
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="CSV with a header line, or JSON lines; packed as .gz or .zip, too. - is stdin.",
        ),
    ],
    key: Annotated[str | None, typer.Option(metavar="FIELD", help="The field that becomes the key.")] = None,
    event_id: Annotated[
        str | None, typer.Option("--id", metavar="FIELD", help="The field that becomes the event id.")
    ] = None,
    timestamp: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="The field with the time: epoch ms or ISO 8601. Default: now."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The load, by which it is continued. Default: TOPIC/FILE's name; stdin needs one."),
    ] = None,
    file_kind: Annotated[
        Format | None, typer.Option("--format", help="Default: by the file's suffix.", show_default=False)
    ] = None,
    null: Annotated[
        list[str] | None, typer.Option(metavar="CELL", help="CSV cell that means null, as NA. Repeatable.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="CSV column that is never a number. Repeatable.")
    ] = None,
    on_missing_key: Annotated[OnMissingKey, typer.Option(help="A row without a key.")] = OnMissingKey.ERROR,
    batch: Annotated[int, typer.Option(help="Rows in a transaction.", min=1, max=100_000)] = 10_000,
    rate: Annotated[
        int | None, typer.Option(help="Records a second, at most. Default: as fast as it goes.", min=1)
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Load everything again, though some of it is loaded already.")
    ] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Load a file into a topic, exactly once. Run it again after any crash: it goes on where it was.

    Values are JSON objects, of CSV with every column. A CSV column is read as numbers when its cells at the
    beginning of the file are plain numbers, empty or null; 007, 1e5 and columns with such cells stay text.
    """
    shown = "standard input" if file == STANDARD_INPUT else file
    lines = Lines(open_bytes(file), shown)
    form = file_kind.value if file_kind else file_format(file)
    unnamed = file == STANDARD_INPUT and name is None
    if form is None or unnamed:
        needed = ["--format csv or --format jsonl"] if form is None else []
        needed += ["--name, by which the load is continued"] if unnamed else []
        raise typer.BadParameter(f"{shown} alone does not say enough: give {', and '.join(needed)}")
    load = name or f"{topic}/{Path(file).name}"
    if not load.isprintable() or len(load) > 200:
        raise typer.BadParameter(f"{load!r} cannot be the name of a load: up to 200 printable characters")
    options = LoadOptions(
        format=cast("Literal['csv', 'jsonl']", form),
        key=key,
        id=event_id,
        timestamp=timestamp,
        null=tuple(sorted(null or ())),
        text=tuple(sorted(text or ())),
    )
    settings = kafka_settings(kafka)
    cluster = KafkaCluster(settings)
    target = find_topic(cluster, topic, cluster.topics)
    request = LoadRequest(
        name=load, topic=topic, topic_id=target.topic_id, file=shown, options=options, restart=restart
    )
    batch = batch if rate is None else paced_rows(rate, batch)
    limits = row_limits(target.config, batch, SystemClock().wall_ms())
    _tune_garbage_collection()
    with _world(settings, cluster, target) as world:
        loader = Loader(world, request, lines, missing_key=on_missing_key.value, limits=limits)
        pace = Pace(rate, SystemClock()) if rate is not None else None
        report = _Report(loader, unpacked_bytes(file), pace, quiet=json, with_keys=key is not None)
        try:
            with report.showing():
                last = loader.run(report.progress)
        except KeyboardInterrupt:
            say("interrupted; run the same command again to continue")
            raise typer.Exit(130) from None
    if json:
        print_json(report.summary(last))
    else:
        typer.echo(report.closing(last))


def _tune_garbage_collection() -> None:
    """Rows hold no cycles: looking for some among ten thousand at a time is a tenth of the work."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@contextmanager
def _world(settings: KafkaSettings, cluster: KafkaCluster, topic: TopicInfo) -> Iterator[LoadWorld]:
    limits = ProducerLimits(
        retry_backoff_ms=_RETRY_BACKOFF_MS,
        message_bytes={topic.name: record_bytes(topic.config), LOADS_TOPIC: DEFAULT_RECORD_BYTES},
    )
    executor = ThreadExecutor(1)
    try:
        yield LoadWorld(
            cluster=cluster,
            producers=KafkaProducers(settings, limits),
            journals=lambda: KafkaJournalReader(settings),
            clock=SystemClock(),
            random=SystemRandom(),
            executor=executor,
            retry_backoff_ms=_RETRY_BACKOFF_MS,
        )
    finally:
        executor.close()
        cluster.close()


class _Report:
    """What people see while it runs, and the account at the end."""

    def __init__(
        self, loader: Loader, total_bytes: int | None, pace: Pace | None, *, quiet: bool, with_keys: bool
    ) -> None:
        self._loader = loader
        self._pace = pace
        self._with_keys = with_keys
        self._total_bytes = total_bytes
        self._quiet = quiet
        self._began_s = self._said_s = time.monotonic()
        self._show: Callable[[LoadPosition], None] = self._line

    @contextmanager
    def showing(self) -> Iterator[None]:
        console = Console(stderr=True)
        if self._quiet or not console.is_terminal:
            yield
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("loading", total=self._total_bytes)

            def show(position: LoadPosition) -> None:
                bar.update(task, completed=position.offset, description=self._rate(position))

            self._show = show
            yield

    def progress(self, position: LoadPosition) -> None:
        self._show(position)
        if self._pace is not None:
            self._pace(self._new(position))

    def closing(self, last: LoadPosition) -> str:
        if self._loader.already_done:
            return (
                f"load {last.name!r} is complete already: {counted(last.records, 'record')} in topic {last.topic}."
                " Nothing was written (--restart would load it again)"
            )
        seconds = self._seconds()
        before = self._loader.continued
        keys = "" if self._with_keys else " without keys"
        text = f"{counted(self._new(last), 'record')}{keys} to topic {last.topic} in {seconds:.1f} s"
        text += f" ({self._new(last) / seconds:,.0f} records/s)"
        if before is not None:
            text += f"; continued from line {before.line:,}, {counted(last.records, 'record')} in all"
        return text + (f"; {counted(last.skipped, 'row')} without a key skipped" if last.skipped else "")

    def summary(self, last: LoadPosition) -> dict[str, object]:
        before = self._loader.continued
        seconds = self._seconds()
        return {
            "load": last.name,
            "topic": last.topic,
            "file": last.file,
            "already_done": self._loader.already_done,
            "records": self._new(last),
            "records_in_all": last.records,
            "skipped": last.skipped,
            "lines": last.line,
            "bytes": last.offset,
            "continued_from_line": before.line if before else 0,
            "seconds": round(seconds, 3),
            "records_per_s": round(self._new(last) / seconds),
        }

    def _line(self, position: LoadPosition) -> None:
        if not self._quiet and time.monotonic() - self._said_s >= _REPORT_S:
            self._said_s = time.monotonic()
            say(self._rate(position))

    def _rate(self, position: LoadPosition) -> str:
        return f"{counted(position.records, 'record')}, {self._new(position) / self._seconds():,.0f}/s"

    def _new(self, position: LoadPosition) -> int:
        before = self._loader.continued
        return position.records - (before.records if before else 0)

    def _seconds(self) -> float:
        return max(time.monotonic() - self._began_s, 1e-3)
