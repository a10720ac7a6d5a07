"""The state file of a data directory."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from pipeline.broker.reporting import BrokerError
from pipeline.broker.state import (
    BrokerState,
    NodeState,
    erase,
    new_cluster_id,
    node_dir,
    pid_of,
    read_state,
    write_state,
)

STATE = BrokerState.new("4.3.1", "c", (NodeState(1, 9092, 9093), NodeState(2, 9094, 9095)))


def test_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    """`stop` and `status` know the broker from it."""
    write_state(tmp_path, STATE.with_pids({2: 77}))
    found = read_state(tmp_path)
    assert found is not None
    assert [node.pid for node in found.nodes] == [0, 77]
    assert found.bootstrap_servers == "127.0.0.1:9092,127.0.0.1:9094"


def test_directory_without_a_broker_has_no_state(tmp_path: Path) -> None:
    """Neither has one that does not exist."""
    assert read_state(tmp_path) is None
    assert read_state(tmp_path / "none") is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 1}', b"[]"])
def test_damaged_state_is_an_error_with_a_way_out(tmp_path: Path, content: bytes) -> None:
    """A file edited by hand must not end in a traceback, or in a second broker on the same records."""
    (tmp_path / "broker.json").write_bytes(content)
    with pytest.raises(BrokerError, match="cannot be understood") as caught:
        read_state(tmp_path)
    assert f"pipeline broker start --data-dir {tmp_path} --fresh" in (caught.value.hint or "")


def test_state_of_another_version_is_refused(tmp_path: Path) -> None:
    """A newer release may mean something else by the same fields."""
    write_state(tmp_path, msgspec.structs.replace(STATE, version=2))
    with pytest.raises(BrokerError, match="version 2"):
        read_state(tmp_path)


def test_recorded_id_of_another_process_does_not_count(tmp_path: Path) -> None:
    """Ids are reused: this one is the test's own."""
    assert pid_of(tmp_path, NodeState(1, 9092, 9093, pid=os.getpid())) == 0


def test_erase_takes_only_what_a_broker_made(tmp_path: Path) -> None:
    """`--fresh --data-dir` with a mistyped directory must not delete a user's files."""
    write_state(tmp_path, STATE)
    (node_dir(tmp_path, 1) / "data").mkdir(parents=True)
    (tmp_path / "thesis.txt").write_text("mine")

    erase(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_cluster_ids_differ_and_have_kafkas_form() -> None:
    """Kafka takes 22 characters of URL-safe base64; one that begins with a dash would be read as an option."""
    ids = {new_cluster_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(len(id_) == 22 and not id_.startswith("-") for id_ in ids)
