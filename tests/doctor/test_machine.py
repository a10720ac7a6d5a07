"""`pipeline doctor` on this machine: settings, state directory, checkpoint store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.config import KafkaSettings
from pipeline.doctor.findings import Finding, Level, run_check
from pipeline.doctor.machine import check_disk, check_settings, check_store, mount_of
from pipeline.errors import CheckpointStoreError
from pipeline.testing.memory_store import MemoryCheckpointStore

LOCAL = "/dev/sda1 / ext4 rw 0 0\n"


def levels(findings: Iterable[Finding]) -> set[Level]:
    return {finding.level for finding in findings}


def texts(findings: Iterable[Finding], level: Level) -> str:
    return "\n".join(f"{each.text} -> {each.hint}" for each in findings if each.level is level)


def test_a_password_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    """The file is often created with the default umask, so every local user can read the password."""
    path = tmp_path / "pipeline.toml"
    path.write_text("[kafka]\nsasl.password = 'pencil'\n")
    path.chmod(0o644)
    settings = KafkaSettings("kafka:9093", {"security.protocol": "SASL_SSL", "sasl.password": "pencil"})
    found = list(check_settings(settings, path))
    assert f"chmod 600 {path}" in texts(found, Level.WARNING)
    assert "pencil" not in str(found)
    path.chmod(0o600)
    assert levels(check_settings(settings, path)) == {Level.OK}
    path.write_text("[kafka]\nclient.rack = 'a'\n")
    path.chmod(0o644)
    assert levels(check_settings(settings, path)) == {Level.OK}  # the password is a variable


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"security.protocol": "SASL_PLAINTEXT"}, "without encryption"),
        ({"enable.ssl.certificate.verification": "false"}, "certificates of brokers are not verified"),
        ({"ssl.endpoint.identification.algorithm": "none"}, "host names of brokers are not verified"),
    ],
)
def test_an_unprotected_connection_is_a_warning(
    properties: dict[str, str], said: str, tmp_path: Path
) -> None:
    """Such settings are copied from first trials into production."""
    settings = KafkaSettings("kafka:9093", properties)
    assert said in texts(check_settings(settings, tmp_path / "none.toml"), Level.WARNING)


def test_a_writable_local_directory_is_fine_and_left_empty(tmp_path: Path) -> None:
    """The check must leave nothing behind that a worker would find."""
    assert levels(check_disk(tmp_path, LOCAL)) == {Level.OK}
    assert levels(check_disk(tmp_path / "not" / "yet", LOCAL)) == {Level.OK}
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker would end at its first commit."""

    def refuse(_handle: int) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    assert "cannot be written: Read-only file system" in texts(check_disk(tmp_path, LOCAL), Level.PROBLEM)


def test_a_file_in_the_place_of_the_directory_is_a_problem(tmp_path: Path) -> None:
    """The state directory cannot be created there."""
    (tmp_path / "state").touch()
    assert "is not a directory" in texts(check_disk(tmp_path / "state", LOCAL), Level.PROBLEM)


@pytest.mark.parametrize(
    ("kind", "level", "said"),
    [
        ("nfs4", Level.PROBLEM, "network file system"),
        ("tmpfs", Level.WARNING, "lost when the machine restarts"),
        ("overlay", Level.WARNING, "writable layer of a container"),
    ],
)
def test_an_unsuitable_file_system_is_reported(kind: str, level: Level, said: str, tmp_path: Path) -> None:
    """A state on a shared or volatile disk is lost or damaged on the first bad day."""
    mounts = f"{LOCAL}server:/export {tmp_path} {kind} rw 0 0\n"
    assert said in texts(check_disk(tmp_path / "state", mounts), level)


@pytest.mark.parametrize(("free", "level"), [(50 << 20, Level.PROBLEM), (500 << 20, Level.WARNING)])
def test_a_disk_with_little_room_is_reported(
    free: int, level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RocksDB stops its task when the disk is full."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: SimpleNamespace(total=1 << 40, free=free))
    assert "free of" not in texts(check_disk(tmp_path, LOCAL), level)
    assert f"{free >> 20} MiB of 1,024.0 GiB free" in texts(check_disk(tmp_path, LOCAL), level)


def test_the_innermost_mount_decides() -> None:
    """A network disk is often mounted below a local one; spaces in mount points are escaped."""
    mounts = f"{LOCAL}a /var/lib nfs rw 0 0\nb /var/lib/my\\040disk xfs rw 0 0\n"
    assert mount_of(Path("/var/lib/my disk/state"), mounts) == ("xfs", "/var/lib/my disk")
    assert mount_of(Path("/var/library"), mounts) == ("ext4", "/")


def test_a_store_that_works_is_left_empty() -> None:
    """The probe must not become an object that a cleanup has to explain."""
    store = MemoryCheckpointStore(lambda: 1_000)
    assert levels(check_store(store, "s3://bucket", "cluster", "app", 1_000)) == {Level.OK}
    assert list(store.objects("cluster/")) == []


@pytest.mark.parametrize("call", ["put", "get", "objects", "delete"])
def test_a_store_that_refuses_any_request_is_a_problem(call: str) -> None:
    """Checkpoints need all four; a role that may only write is found when a restore fails."""
    store = MemoryCheckpointStore(lambda: 1_000)
    store.faults.order(call, CheckpointStoreError("it refuses access", hint="runbooks/x.md"))
    found = run_check("store", lambda: check_store(store, "s3://bucket", "cluster", "app", 1_000))
    assert texts(found, Level.PROBLEM) == "it refuses access -> runbooks/x.md"


def test_a_store_with_another_clock_is_a_warning() -> None:
    """`checkpoints prune` computes ages with the clock of the store."""
    store = MemoryCheckpointStore(lambda: 61_000)
    found = list(check_store(store, "s3://bucket", "cluster", "app", 1_000))
    assert "its clock differs from this machine's by +60 s" in texts(found, Level.WARNING)


def test_a_check_that_fails_by_itself_is_a_problem_without_traceback() -> None:
    """A diagnosis that crashes does not help."""
    (found,) = run_check("disk", lambda: [Finding("disk", Level.OK, str(1 // 0))])
    assert found.level is Level.PROBLEM
    assert found.text == "the check failed with ZeroDivisionError: integer division or modulo by zero"
