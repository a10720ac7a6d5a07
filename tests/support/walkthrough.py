"""Runs a page like a reader: saves its files, runs its commands in one shell, and compares the output.

A code block after text such as "Save this as `NAME`:" is a file. Blocks in `sh` are commands. A block without a
language shows output: each of its lines must be in the output, apart from white space and from numbers that differ
between runs. If it shows a line that begins with `error:`, the last command before it is expected to fail.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.pages import sections

__all__ = ["Page", "environment_of_a_reader", "page_of", "printed_commands", "read_page"]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SAVED = re.compile(r"\b[Ss]ave (?:this|it|them|the [\w ]+)\s+as\s+`([\w./-]+)`[^:]*:\s*\Z")
# The broker runs already, and the packages are installed.
_DONE_BEFORE = re.compile(r"^(pipeline broker|pip install|export PIPELINE_KAFKA)\b.*\n", re.MULTILINE)
_NOTHING = re.compile(r"(?!)")
_VARIES = re.compile(r"\b\d+(\.\d+)? s\b|\b\d\d:\d\d:\d\d\b|\b\d{4}-\d\d-\d\dT[\d:.]+Z|\b[\d,]+ records?/s")


@dataclass(frozen=True)
class Page:
    """The files and commands of a page, and its expected output."""

    files: dict[str, str]
    script: str
    shown: list[str]

    def save(self, directory: Path) -> None:
        """Write the files in their first version on the page."""
        for name, text in self.files.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")

    def run(
        self, directory: Path, kafka: str, timeout_s: float = 400, python: Path = Path(sys.executable)
    ) -> str:
        """Run all commands in `directory`. Returns their output. Ends processes that they leave running.

        Args:
            directory: where the commands are run.
            kafka: the value of `PIPELINE_KAFKA`.
            timeout_s: the time for all commands.
            python: the Python whose directory has the commands.

        Raises:
            AssertionError: A command failed, or the page shows a line that is not in the output.
        """
        environment = {**environment_of_a_reader(python), "PIPELINE_KAFKA": kafka}
        log = directory / "transcript.txt"
        with log.open("wb") as output:
            shell = subprocess.Popen(
                ["/bin/bash", "-c", f"set -eux\n{self.script}"],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | None = shell.wait(timeout_s)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end_all(shell)
        said = log.read_text(encoding="utf-8", errors="replace")
        assert code == 0, said[-4_000:]
        found = _comparable(said)
        assert [line for line in self.shown if _comparable(line) not in found] == [], said[-8_000:]
        return said


def read_page(document: Path, *headings: str) -> Page:
    """The files, commands and outputs of a page, in order, without commands that install or run a broker.

    `headings`: only those of these sections.
    """
    text = document.read_text(encoding="utf-8")
    found = sections(text)
    return page_of("\n".join(found[name] for name in headings) if headings else text, _DONE_BEFORE)


def page_of(text: str, left_out: re.Pattern[str] = _NOTHING) -> Page:
    """Like `read_page`, for a text. `left_out`: command lines that are not run."""
    files: dict[str, str] = {}
    parts: list[str] = []
    shown: list[str] = []
    end = 0
    for block in _BLOCK.finditer(text):
        language, body = block.groups()
        saved = _SAVED.search(text[end : block.start()])
        end = block.end()
        if saved:
            files.setdefault(saved[1], body)
            folder = Path(saved[1]).parent.as_posix()
            parts.append(f"mkdir -p {folder}\ncat > {saved[1]} <<'END_OF_FILE'\n{body}END_OF_FILE\n")
        elif language == "sh":
            parts.append(left_out.sub("", body))
        elif not language:
            if re.search(r"^error:", body, re.MULTILINE):
                parts[-1] = f"{parts[-1].rstrip()} && exit 99 || true\n"
            shown += [line for line in body.splitlines() if line.strip()]
    return Page(files, "".join(parts), shown)


def printed_commands(text: str) -> list[str]:
    """The commands that `pipeline new` prints: its indented lines."""
    return re.findall(r"^  (\S.*)$", text, re.MULTILINE)


def environment_of_a_reader(python: Path = Path(sys.executable)) -> dict[str, str]:
    """The environment of this process without settings, with the commands next to a Python in PATH."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
    return {**without, "PATH": f"{python.parent}:{os.environ['PATH']}"}


def _comparable(text: str) -> str:
    return " ".join(_VARIES.sub("N", text).split())


def _end_all(shell: subprocess.Popen[bytes]) -> None:
    """Kill the session of the shell, which contains all background processes of the page."""
    try:
        os.killpg(shell.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    shell.wait()
