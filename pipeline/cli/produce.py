"""`pipeline produce`: loads files into a topic, exactly once. A load can be resumed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.loading import LoadReport
from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    print_json,
    print_message,
    quiet_kafka_settings,
)
from pipeline.config import DEFAULT_TOPICS_DIR, KafkaSettings, load_settings
from pipeline.core.names import LOADS_TOPIC
from pipeline.kafka.clients import ProducerLimits
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.producer import KafkaProducers
from pipeline.ops.loading.decisions import LoadRequest
from pipeline.ops.loading.file_sequence import FileSequence
from pipeline.ops.loading.files import InputFile, find_files, one_format
from pipeline.ops.loading.formats.compression import STANDARD_INPUT
from pipeline.ops.loading.formats.readers import FORMATS, Reading
from pipeline.ops.loading.formats.rows import MissingKey
from pipeline.ops.loading.loader import (
    DEFAULT_RECORD_BYTES,
    LoadEnvironment,
    Loader,
    RateLimit,
    find_topic,
    paced_rows,
    record_bytes,
    row_limits,
)
from pipeline.ops.loading.positions import Format, LoadOptions
from pipeline.ports import SystemClock, TopicInfo
from pipeline.processes.system import SystemRandom, ThreadExecutor

__all__ = ["produce"]

# Far above the duration of a commit, so that a slow commit can be distinguished from one that the client sent twice.
_RETRY_BACKOFF_MS = 200


class OnMissingKey(StrEnum):
    """What to do with a row without a key."""

    ERROR = "error"
    NULL = "null"
    SKIP = "skip"


def produce(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="An existing topic.")],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="CSV with a header line, JSON lines, or Parquet. CSV and JSON may be compressed (.gz, .zst, .zip). "
            "Several files, or those of a folder, are loaded in this order. - is standard input.",
        ),
    ],
    key: Annotated[str | None, typer.Option(metavar="FIELD", help="The field that is the key.")] = None,
    event_id: Annotated[
        str | None, typer.Option("--id", metavar="FIELD", help="The field that is the event id.")
    ] = None,
    timestamp: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="The field with the time: epoch ms or ISO 8601. Default: now."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="The name of the load. A later run with this name resumes it. Default: TOPIC/FILE. Required for "
            "several files and for standard input."
        ),
    ] = None,
    file_kind: Annotated[
        Format | None,
        typer.Option(
            "--format", help="The format of all files. Default: by their suffixes.", show_default=False
        ),
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option(metavar="CELL", help="A CSV cell that means null, such as NA. Repeatable."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="A CSV column that is always text. Repeatable.")
    ] = None,
    on_missing_key: Annotated[
        OnMissingKey, typer.Option(help="What to do with a row without a key.")
    ] = OnMissingKey.ERROR,
    batch: Annotated[int, typer.Option(help="Rows per transaction.", min=1, max=100_000)] = 10_000,
    rate: Annotated[
        int | None,
        typer.Option(
            help="Records per second, averaged over the run: the load catches up after a pause. Default: no limit.",
            min=1,
        ),
    ] = None,
    resume_only: Annotated[
        bool,
        typer.Option(
            "--resume-only", help="Only resume a load; it is an error if there is no load of this name."
        ),
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Load all files again from their start.")
    ] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Load files into a topic, exactly once. After a crash, run the same command again: it resumes.

    Each transaction also commits the position of the load. A later run with the same name checks that the loaded data
    is unchanged, and resumes after it: in the middle of a file, at lines that were appended to a file, or at files that
    were added to the end of the list.

    Values are JSON objects. Those of CSV and Parquet have every column. A CSV column has numbers if its cells at the
    start of the first file are plain numbers, empty or null. Cells such as 007 and 1e5 make it a text column.
    """
    if resume_only and restart:
        raise typer.BadParameter("--resume-only and --restart exclude each other: give one of them")
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
    request = _Request(topic, load, options, on_missing_key.value, batch, rate, restart, resume_only)
    _load(request, found, quiet_kafka_settings(kafka), quiet=json)


def _check_declaration(topic: str) -> None:
    """If the declaration of the topic requires event ids, refuse a load without them. Raises ConfigError."""
    directory = Path(load_settings({}).worker.topics_dir or DEFAULT_TOPICS_DIR)
    if directory.is_dir():
        from pipeline.ops.topics.checking import check_load  # noqa: PLC0415 - the YAML library is slow to import

        check_load(topic, directory)


@dataclass(frozen=True, slots=True)
class _Request:
    """The arguments of the command, checked as far as this is possible without Kafka."""

    topic: str
    name: str
    options: LoadOptions
    missing_key: MissingKey
    batch: int
    rate: int | None
    restart: bool
    resume_only: bool


def _load(request: _Request, files: list[InputFile], settings: KafkaSettings, *, quiet: bool) -> None:
    """Load the files and print the summary. If `quiet`, print only the summary, as JSON."""
    cluster = KafkaCluster(settings, CommandWait(settings))
    target = find_topic(cluster, request.topic, cluster.topics)
    load = LoadRequest(
        name=request.name,
        topic=request.topic,
        topic_id=target.topic_id,
        options=request.options,
        restart=request.restart,
        resume_only=request.resume_only,
    )
    batch = request.batch if request.rate is None else paced_rows(request.rate, request.batch)
    limits = row_limits(target.config, batch, SystemClock().wall_ms())
    sequence = FileSequence(files, Reading(request.topic, request.options, request.missing_key, limits))
    _tune_garbage_collection()
    with _environment(settings, cluster, target) as environment:
        loader = Loader(environment, load, sequence)
        rate_limit = RateLimit(request.rate, SystemClock()) if request.rate is not None else None
        report = LoadReport(
            loader, sequence, files, rate_limit, quiet=quiet, with_keys=request.options.key is not None
        )
        try:
            with report.showing():
                last = loader.run(report.progress)
        except KeyboardInterrupt:
            print_message("interrupted. To resume, run the same command again")
            raise typer.Exit(130) from None
    if quiet:
        print_json(report.summary(last))
    else:
        typer.echo(report.closing(last))


def _format_and_name(
    topic: str, named: list[str], files: list[InputFile], kind: Format | None, given: str | None
) -> tuple[Format, str]:
    """Return the format of the files and the name of the load.

    Raises:
        BadParameter: One of them is missing. The message names everything that is missing.
    """
    form = one_format(files, kind)
    unnamed = given is None and (len(named) > 1 or files[0].path == STANDARD_INPUT)
    if form is None or unnamed:
        shown = "a list of files" if len(named) > 1 else files[0].shown
        needed = [f"--format {' or --format '.join(FORMATS)}"] if form is None else []
        needed += ["--name, which identifies the load"] if unnamed else []
        raise typer.BadParameter(f"{shown} is not enough: give {', and '.join(needed)}")
    if FORMATS[form].seeks and files[0].size is None:
        raise typer.BadParameter(f"{form} cannot be read from a pipe, because its reader seeks: give a file")
    first = Path(named[0])
    name = given or f"{topic}/{(first.resolve() if first.is_dir() else first).name}"
    if not name.isprintable() or len(name) > 200:
        raise typer.BadParameter(f"{name!r} is not a valid name of a load: at most 200 printable characters")
    return form, name


def _tune_garbage_collection() -> None:
    """Collect garbage rarely. Rows have no reference cycles, and the search for cycles costs a tenth of the time."""
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
