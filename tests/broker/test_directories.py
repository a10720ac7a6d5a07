"""Where things are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.broker.directories import cache_dir, default_data_dir, explain_os_errors, write_atomically
from pipeline.broker.reporting import BrokerError


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"PIPELINE_CACHE_DIR": "/a/b", "XDG_CACHE_HOME": "/x"}, Path("/a/b")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/exactly-once-pipeline")),
        ({"XDG_CACHE_HOME": "relative"}, Path("~/.cache/exactly-once-pipeline").expanduser()),
        ({}, Path("~/.cache/exactly-once-pipeline").expanduser()),
    ],
)
def test_cache_directory_follows_the_environment(environ: dict[str, str], expected: Path) -> None:
    """Our own variable wins over the system's, and a relative XDG path is ignored, as its rules say."""
    assert cache_dir(environ) == expected


def test_data_directory_depends_on_the_port_alone() -> None:
    """`start` in one directory and `stop` in another must mean the same broker."""
    environ = {"PIPELINE_CACHE_DIR": "/a"}
    assert default_data_dir(9092, environ) != default_data_dir(9192, environ)
    assert default_data_dir(9092, environ) == Path("/a/brokers/9092")


def test_atomic_write_leaves_no_other_file(tmp_path: Path) -> None:
    """A state file is replaced many times in a broker's life."""
    write_atomically(tmp_path / "f", b"1")
    write_atomically(tmp_path / "f", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"2"


def test_full_disk_is_an_error_that_names_it() -> None:
    """/dev/full refuses every byte as a full disk does."""
    with (
        pytest.raises(BrokerError, match="the disk of /dev/full is full"),
        explain_os_errors(Path("/dev/full")),
    ):
        Path("/dev/full").write_bytes(b"x")
