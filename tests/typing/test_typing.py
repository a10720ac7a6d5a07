"""The declared types reach the user's editor: right programs pass mypy --strict, wrong ones fail at their line."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.typing import example

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
EXPECTED = re.compile(r"# error: ([a-z-]+)$")


def mypy(path: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    # A user's own configuration, not this repository's.
    return subprocess.run(
        [
            sys.executable,
            *("-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}"),
            *("--follow-imports=silent", "--show-error-codes", str(path)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def test_a_right_program_type_checks(cache: Path) -> None:
    """Without a single cast or ignore: unions, tombstones, optional keys, own codecs, handlers of many topics."""
    result = mypy(HERE / "example.py", cache)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_program_that_type_checks_also_runs() -> None:
    """Types that pass and declarations that raise would be worse than no types."""
    assert example.a_test_of_it() == [example.Delay(1, 10)] * 2
    assert example.a_test_of_a_service() == 0


def test_mistakes_are_found_at_their_lines(cache: Path) -> None:
    """Each line of mistakes.txt that is marked is an error of that kind, and no other line is one."""
    source = (HERE / "mistakes.txt").read_text(encoding="utf-8")
    path = cache / "mistakes.py"
    path.write_text(source, encoding="utf-8")
    result = mypy(path, cache)
    found = re.findall(r"^[^:]+:(\d+): error: .*\[([a-z-]+)\]$", result.stdout, re.MULTILINE)
    assert sorted((int(line), kind) for line, kind in found) == expected(source.splitlines()), result.stdout
    assert len(found) > 20


def expected(lines: Sequence[str]) -> list[tuple[int, str]]:
    marked = [(number, EXPECTED.search(line)) for number, line in enumerate(lines, 1)]
    return [(number, match.group(1)) for number, match in marked if match is not None]
