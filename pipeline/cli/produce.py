"""`pipeline produce`: files to a topic, exactly once, resumable."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from pipeline.cli.loading import LoadReport
from pipeline.cli.options import CommandWait, JsonOption, KafkaOption, kafka_settings, print_json, say
from pipeline.config import DEFAULT_TOPICS_DIR, KafkaSettings, load_settings
from pipeline.core.names import LOADS_TOPIC
from pipeline.kafka.clients import ProducerLimits
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.producer import KafkaProducers
from pipeline.ops.loading.decisions import LoadRequest
from pipeline.ops.loading.file_sequence import FileSequence, Reading
from pipeline.ops.loading.files import InputFile, find_files, one_format
from pipeline.ops.loading.formats.opening import STANDARD_INPUT
from pipeline.ops.loading.formats.rows import MissingKey
from pipeline.ops.loading.limits import DEFAULT_RECORD_BYTES, record_bytes, row_limits
from pipeline.ops.loading.loader import LoadEnvironment, Loader, find_topic
from pipeline.ops.loading.positions import Format as FormatName
from pipeline.ops.loading.positions import LoadOptions
from pipeline.ops.loading.rate_limit import RateLimit, paced_rows
from pipeline.ports import SystemClock, TopicInfo
from pipeline.processes.system import SystemRandom, ThreadExecutor

__all__ = ["produce"]

# Far above what a commit takes, so that a slow one is told from one that the client sent twice.
_RETRY_BACKOFF_MS = 200


class Format(StrEnum):
    """How files are read."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


class OnMissingKey(StrEnum):
    """What happens to a row without a key."""

    ERROR = "error"
    NULL = "null"
    SKIP = "skip"


def produce(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="An existing topic.")],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="CSV with a header line, JSON lines (also packed: .gz, .zst, .zip) or Parquet. Several, or a folder, "
            "are loaded one after the other, in this order. - is standard input.",
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
        typer.Option(
            help="The load, by which it is continued. Default: TOPIC/FILE's name; several files, and stdin, need one."
        ),
    ] = None,
    file_kind: Annotated[
        Format | None,
        typer.Option("--format", help="Of all files. Default: by their suffixes.", show_default=False),
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
        int | None,
        typer.Option(
            help="Records a second, on the average: what was late is made up for. Default: as fast as it goes.",
            min=1,
        ),
    ] = None,
    from_checkpoint: Annotated[
        bool,
        typer.Option("--from-checkpoint", help="Only continue: an error when nothing of this load is known."),
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Load everything again, though some of it is loaded already.")
    ] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Load files into a topic, exactly once. Run it again after any crash: it resumes.

    Each transaction also carries how far the load has come, under the load's name. A later run of the name checks that
    what is loaded is unchanged, and goes on behind it: in the middle of a file, with what a file has grown by, or with
    files that were added to the end of the list.

    Values are JSON objects, of CSV and Parquet with every column. A CSV column is read as numbers when its cells at
    the beginning of the first file are plain numbers, empty or null; 007, 1e5 and columns with such cells stay text.
    """
    if from_checkpoint and restart:
        raise typer.BadParameter("--from-checkpoint continues and --restart begins again: give one of them")
    found = find_files(files)
    form, load = _format_and_name(topic, files, found, file_kind, name)
    options = LoadOptions(
        format=form,
        key=key,
        id=event_id,
        timestamp=timestamp,
        null=tuple(sorted(null or ())),
        text=tuple(sorted(text or ())),
    )
    if event_id is None:
        _check_declaration(topic)
    wish = _Wish(topic, load, options, on_missing_key.value, batch, rate, restart, from_checkpoint)
    _load(wish, found, kafka_settings(kafka), quiet=json)


def _check_declaration(topic: str) -> None:
    """Where the topic is declared here, it says whether its events need ids. Raises ConfigError."""
    directory = Path(load_settings({}).worker.topics_dir or DEFAULT_TOPICS_DIR)
    if directory.is_dir():
        from pipeline.ops.topics.checking import check_load  # noqa: PLC0415 - YAML takes its time to load

        check_load(topic, directory)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What was asked for, checked as far as that goes without Kafka."""

    topic: str
    name: str
    options: LoadOptions
    missing_key: MissingKey
    batch: int
    rate: int | None
    restart: bool
    insist: bool


def _load(wish: _Wish, files: list[InputFile], settings: KafkaSettings, *, quiet: bool) -> None:
    """Load, and print the account: as JSON and nothing else when it shall be `quiet`."""
    cluster = KafkaCluster(settings, CommandWait(settings))
    target = find_topic(cluster, wish.topic, cluster.topics)
    request = LoadRequest(
        name=wish.name,
        topic=wish.topic,
        topic_id=target.topic_id,
        options=wish.options,
        restart=wish.restart,
        insist=wish.insist,
    )
    batch = wish.batch if wish.rate is None else paced_rows(wish.rate, wish.batch)
    limits = row_limits(target.config, batch, SystemClock().wall_ms())
    series = FileSequence(files, Reading(wish.topic, wish.options, wish.missing_key, limits))
    _tune_garbage_collection()
    with _environment(settings, cluster, target) as environment:
        loader = Loader(environment, request, series)
        pace = RateLimit(wish.rate, SystemClock()) if wish.rate is not None else None
        report = LoadReport(loader, series, files, pace, quiet=quiet, with_keys=wish.options.key is not None)
        try:
            with report.showing():
                last = loader.run(report.progress)
        except KeyboardInterrupt:
            say("interrupted; run the same command again to continue")
            raise typer.Exit(130) from None
    if quiet:
        print_json(report.summary(last))
    else:
        typer.echo(report.closing(last))


def _format_and_name(
    topic: str, named: list[str], files: list[InputFile], kind: Format | None, given: str | None
) -> tuple[FormatName, str]:
    """The format of the files and the name of the load. Raises BadParameter, for all that is missing at once."""
    form = one_format(files, kind.value if kind else None)
    unnamed = given is None and (len(named) > 1 or files[0].path == STANDARD_INPUT)
    if form is None or unnamed:
        shown = "a list of files" if len(named) > 1 else files[0].shown
        needed = [f"--format {' or --format '.join(Format)}"] if form is None else []
        needed += ["--name, by which the load is continued"] if unnamed else []
        raise typer.BadParameter(f"{shown} alone does not say enough: give {', and '.join(needed)}")
    if form == "parquet" and files[0].size is None:
        raise typer.BadParameter("Parquet is read from its end: it cannot come from a pipe. Give a file")
    first = Path(named[0])
    name = given or f"{topic}/{(first.resolve() if first.is_dir() else first).name}"
    if not name.isprintable() or len(name) > 200:
        raise typer.BadParameter(f"{name!r} cannot be the name of a load: up to 200 printable characters")
    return cast("FormatName", form), name


def _tune_garbage_collection() -> None:
    """Rows hold no cycles: looking for some among ten thousand at a time is a tenth of the work."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@contextmanager
def _environment(
    settings: KafkaSettings, cluster: KafkaCluster, topic: TopicInfo
) -> Iterator[LoadEnvironment]:
    limits = ProducerLimits(
        retry_backoff_ms=_RETRY_BACKOFF_MS,
        message_bytes={topic.name: record_bytes(topic.config), LOADS_TOPIC: DEFAULT_RECORD_BYTES},
    )
    executor = ThreadExecutor(1)
    try:
        yield LoadEnvironment(
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
