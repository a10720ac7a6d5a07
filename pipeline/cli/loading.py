"""What people see while `pipeline produce` runs, and the account at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pipeline.cli.options import print_message
from pipeline.core.suggestions import counted
from pipeline.ops.loading.file_sequence import FileSequence
from pipeline.ops.loading.files import InputFile
from pipeline.ops.loading.formats.readers import FORMATS
from pipeline.ops.loading.loader import Loader, RateLimit
from pipeline.ops.loading.positions import LoadPosition

__all__ = ["LoadReport"]

_REPORT_S = 2.0


class LoadReport:
    """Reports the progress of one load. The bar counts the bytes of the files on disk, so no file is opened for it."""

    def __init__(
        self,
        loader: Loader,
        sequence: FileSequence,
        files: Sequence[InputFile],
        rate_limit: RateLimit | None,
        *,
        quiet: bool,
        with_keys: bool,
    ) -> None:
        self._loader = loader
        self._sequence = sequence
        self._files = len(files)
        sizes = [file.size for file in files if file.size is not None]
        self._total_bytes = sum(sizes) if len(sizes) == len(files) else None
        self._rate_limit = rate_limit
        self._with_keys = with_keys
        self._quiet = quiet
        self._began_s = self._said_s = time.monotonic()
        self._show: Callable[[str], None] = self._line
        sequence.on_check = self._checked

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show a progress bar on a terminal, and otherwise a line every two seconds."""
        console = Console(stderr=True)
        if self._quiet or not console.is_terminal:
            yield
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("loading", total=self._total_bytes)

            def show(text: str) -> None:
                bar.update(task, completed=self._sequence.consumed(), description=text)

            self._show = show
            yield

    def progress(self, position: LoadPosition) -> None:
        """Show a committed position. If the load has a rate, wait until it allows the next records."""
        self._show(self._rate(position))
        if self._rate_limit is not None:
            self._rate_limit(self._new(position))

    def closing(self, last: LoadPosition) -> str:
        """The summary as text."""
        if self._loader.already_done:
            return (
                f"load {last.name!r} is already complete: {counted(last.records, 'record')} in topic {last.topic}."
                " Nothing was written. To load the files again, add --restart"
            )
        seconds = self._seconds()
        before = self._loader.continued
        keys = "" if self._with_keys else " without keys"
        files = f" from {counted(self._files, 'file')}" if self._files > 1 else ""
        source = files if before is None else ""
        text = f"{counted(self._new(last), 'record')}{keys}{source} to topic {last.topic} in {seconds:.1f} s"
        text += f" ({counted(round(self._new(last) / seconds), 'record')}/s)"
        if before is not None:
            where = f" of {before.file}" if self._files > 1 else ""
            text += f"; resumed at {FORMATS[last.options.format].unit} {before.line:,}{where}"
            text += f", {counted(last.records, 'record')}{files} in total"
        return text + (f"; {counted(last.skipped, 'row')} without a key skipped" if last.skipped else "")

    def summary(self, last: LoadPosition) -> dict[str, object]:
        """The summary as a JSON document. `lines` and `bytes` (of Parquet: rows) are those of the last file."""
        before = self._loader.continued
        seconds = self._seconds()
        return {
            "load": last.name,
            "topic": last.topic,
            "files": self._files,
            "file": last.file,
            "already_complete": self._loader.already_done,
            "records": self._new(last),
            "total_records": last.records,
            "skipped_rows": last.skipped,
            "lines": last.line,
            "bytes": last.offset,
            "resumed_from_file": before.file if before else None,
            "resumed_from_line": before.line if before else 0,
            "duration_s": round(seconds, 3),
            "records_per_s": round(self._new(last) / seconds),
        }

    def _checked(self, number: int, count: int) -> None:
        self._show(f"checking the loaded files: {number:,} of {counted(count, 'file')}")

    def _line(self, text: str) -> None:
        if not self._quiet and time.monotonic() - self._said_s >= _REPORT_S:
            self._said_s = time.monotonic()
            print_message(text)

    def _rate(self, position: LoadPosition) -> str:
        text = f"{counted(position.records, 'record')}, {self._new(position) / self._seconds():,.0f}/s"
        return text + (
            f", file {position.finished_files.count + 1:,} of {self._files:,}" if self._files > 1 else ""
        )

    def _new(self, position: LoadPosition) -> int:
        before = self._loader.continued
        return position.records - (before.records if before else 0)

    def _seconds(self) -> float:
        return max(time.monotonic() - self._began_s, 1e-3)
