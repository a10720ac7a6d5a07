"""Sequences of in-memory files, and the positions that a loader would commit."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from pipeline.ops.loading.decisions import LoadRequest, LoadStep, advance
from pipeline.ops.loading.file_sequence import FileSequence, Stretch
from pipeline.ops.loading.files import InputFile
from pipeline.ops.loading.formats.compression import Opened, logical_name
from pipeline.ops.loading.formats.readers import Reading
from pipeline.ops.loading.formats.rows import MissingKey, RowLimits
from pipeline.ops.loading.positions import LoadOptions, LoadPosition, decode_position, encode_position

__all__ = ["OPTIONS", "read_all", "sequence_of", "step"]

OPTIONS = LoadOptions(format="jsonl")


def sequence_of(
    files: Mapping[str, bytes],
    options: LoadOptions = OPTIONS,
    *,
    batch_rows: int = 4,
    missing_key: MissingKey = "error",
    **limits: Any,
) -> FileSequence:
    """A sequence of the files of a mapping, in its order."""
    return FileSequence(
        [InputFile(name, logical_name(name), len(data)) for name, data in files.items()],
        Reading("t", options, missing_key, RowLimits(batch_rows=batch_rows, **limits)),
        lambda path, _unpack: Opened(path, io.BytesIO(files[path]), None),
    )


def step(previous: LoadPosition | None, stretch: Stretch, options: LoadOptions = OPTIONS) -> LoadPosition:
    """The position that is committed with the rows, in the form in which the next run reads it from Kafka."""
    request = LoadRequest(name="n", topic="t", topic_id="id-1", options=options)
    added = LoadStep(len(stretch.outputs), stretch.skipped, stretch.end, stretch.finished)
    position = advance(previous, request, 1, added, "nonce")
    decoded = decode_position(encode_position(position), "n")
    assert decoded == position
    return decoded


def read_all(
    sequence: FileSequence, position: LoadPosition | None = None
) -> tuple[list[bytes], LoadPosition]:
    """The values after `position`, and the load's position after them. Raises the error of a row."""
    values: list[bytes] = []
    if sequence.begin(position):
        assert position is not None
        return values, position
    while True:
        stretch = sequence.read(0)
        values += [output.value or b"" for output in stretch.outputs]
        if stretch.error is not None:
            raise stretch.error
        position = step(position, stretch, sequence._reading.options)
        if stretch.finished:
            return values, position
