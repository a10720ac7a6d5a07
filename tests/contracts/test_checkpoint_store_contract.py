"""What checkpoints rest on: objects that are there whole or not at all, and a plain word when the store fails."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from pipeline.errors import CheckpointStoreError, ConfigError, CorruptStateError, DamagedCheckpointError
from pipeline.object_store.checkpoint_store import PIECE_BYTES, open_checkpoint_store
from pipeline.ports import CheckpointStore
from pipeline.testing.memory_store import MemoryCheckpointStore

BUCKET = "checkpoints"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 on this machine, with a bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")).close()  # noqa: S310
    yield endpoint
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment by which clients find it; its endpoint."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return s3_endpoint


def opened(url: str) -> CheckpointStore:
    store = open_checkpoint_store(url)
    assert store is not None
    return store


@pytest.fixture(params=["memory", "file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, unique_name: str) -> CheckpointStore:
    """A store: the fake one, a directory, and S3 below a prefix."""
    if request.param == "memory":
        return MemoryCheckpointStore(lambda: time.time_ns() // 1_000_000)
    if request.param == "file":
        return opened(tmp_path.as_uri())
    request.getfixturevalue("s3")
    return opened(f"s3://{BUCKET}/{unique_name}")


def content(store: CheckpointStore, name: str) -> bytes:
    return b"".join(store.get(name))


def test_an_object_is_read_as_it_was_written(store: CheckpointStore) -> None:
    """Empty ones, too: RocksDB has such files."""
    for name, data in {"a/objects/1-x": b"one", "a/objects/2-x": b"", "a/manifests/3": bytes(70_000)}.items():
        store.put(name, iter([data]), len(data))
        assert content(store, name) == data


def test_a_large_object_goes_in_pieces_and_comes_whole(store: CheckpointStore) -> None:
    """Uneven pieces, larger and smaller than a part of an upload; none of it is held at once."""
    pieces = [bytes([n]) * size for n, size in enumerate((PIECE_BYTES + 1, 5, PIECE_BYTES - 3, 1_000))]
    size = sum(map(len, pieces))
    store.put("a/objects/large", iter(pieces), size)
    assert content(store, "a/objects/large") == b"".join(pieces)
    assert [found.size for found in store.objects("a/")] == [size]


def test_an_object_whose_content_fails_is_not_there(store: CheckpointStore) -> None:
    """An upload that was cut short must not pass for an object; the reason is told as it was."""

    def failing(size: int) -> Iterator[bytes]:
        yield bytes(size)
        raise CorruptStateError("the file cannot be read")

    for size in (10, PIECE_BYTES * 2):
        with pytest.raises(CorruptStateError, match="cannot be read"):
            store.put("a/objects/failed", failing(size), size + 10)
    assert list(store.objects("a/")) == []


def test_objects_are_listed_below_a_prefix_only(store: CheckpointStore) -> None:
    """A task's objects are judged by themselves: task 1's are not task 10's."""
    before_ms = int(time.time() * 1000) - 2_000  # S3 says seconds
    names = [
        "c/app/main/1/objects/x",
        "c/app/main/1/manifests/y",
        "c/app/main/10/objects/z",
        "c/app/m/1/objects/w",
    ]
    for name in names:
        store.put(name, [b"12345"], 5)
    found = list(store.objects("c/app/main/1/"))
    assert sorted(item.name for item in found) == sorted(names[:2])
    assert {item.size for item in found} == {5}
    assert all(before_ms <= item.modified_ms <= time.time() * 1000 + 2_000 for item in found)
    assert list(store.objects("c/nothing/")) == []


def test_deleting_is_repeatable(store: CheckpointStore) -> None:
    """A worker that died while it deleted is followed by one that does it again."""
    for name in ("a/1", "a/2", "a/3"):
        store.put(name, [b"x"], 1)
    store.delete(["a/1", "a/missing", "a/2"])
    store.delete(["a/1"])
    assert [found.name for found in store.objects("a/")] == ["a/3"]


def test_an_object_that_is_not_there_is_damage(store: CheckpointStore) -> None:
    """Its checkpoint cannot be used; trying again would not bring it back."""
    with pytest.raises(DamagedCheckpointError, match="a/missing"):
        content(store, "a/missing")


# What only the real stores can show


def test_no_store_is_none() -> None:
    """An empty setting means no checkpoints."""
    assert open_checkpoint_store("") is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("/var/lib/checkpoints", "must begin with one of file://, s3://, gs://, az://"),
        ("http://host/bucket", "must begin with"),
        ("file://relative/path", "no absolute directory"),
        ("file:///", "no absolute directory"),
        ("s3://key:secret@bucket/x", "more than a place"),
        ("s3://bucket/x?access_key=y", "more than a place"),
        ("s3://", "cannot be opened"),
        ("az://container/x", "cannot be opened"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and not when the first checkpoint is due; a secret in a URL would reach the log."""
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigError, match=says) as caught:
        open_checkpoint_store(url)
    assert "secret" not in str(caught.value)


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """It may be a disk that is not mounted: checkpoints would fill another one, and not be found again."""
    with pytest.raises(ConfigError, match="no directory") as caught:
        open_checkpoint_store((tmp_path / "missing").as_uri())
    assert caught.value.hint is not None
    assert "mkdir -p" in caught.value.hint


def test_a_directory_that_vanishes_is_no_missing_object(tmp_path: Path) -> None:
    """Unmounted while running: checkpoints are not damaged, and a restore must wait for them."""
    place = tmp_path / "mount"
    place.mkdir()
    store = opened(place.as_uri())
    store.put("a/1", [b"x"], 1)
    shutil.rmtree(place)
    for act in (lambda: content(store, "a/1"), lambda: list(store.objects("a/"))):
        with pytest.raises(CheckpointStoreError, match=r"its directory .* does not exist"):
            act()


def test_a_bucket_that_is_not_there_is_no_missing_object(s3: str) -> None:
    """A typing error in the URL, said as such."""
    store = opened("s3://no-such-bucket/x")
    for act in (
        lambda: content(store, "a/1"),
        lambda: store.put("a/1", [b"x"], 1),
        lambda: list(store.objects("a/")),
    ):
        with pytest.raises(CheckpointStoreError, match="its bucket does not exist") as caught:
            act()
        assert "runbooks/checkpoint-store-unavailable.md" in str(caught.value.hint)


def test_a_store_that_does_not_answer_is_unavailable(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes within seconds: an upload that hangs would be an unreported outage."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    store = opened(f"s3://{BUCKET}/x")
    began = time.monotonic()
    with pytest.raises(CheckpointStoreError, match="does not answer"):
        store.put("a/1", [b"x"], 1)
    assert time.monotonic() - began < 20


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The kernel refuses a file that grows beyond a limit as it does on a full disk; nothing half stays."""
    store = opened(tmp_path.as_uri())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(CheckpointStoreError, match=os.strerror(errno.EFBIG)):
            store.put("a/1", iter([bytes(PIECE_BYTES)] * 2), 2 * PIECE_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)
    assert list(store.objects("a/")) == []


def test_what_a_full_or_closed_disk_says_is_understood(tmp_path: Path) -> None:
    """The words that the operating system has for it, as the store's messages carry them."""
    store = opened(tmp_path.as_uri())
    made = store._failure("writing x", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))  # type: ignore[attr-defined]
    assert "it is full" in made.message
    made = store._failure("writing x", OSError(errno.EACCES, os.strerror(errno.EACCES)))  # type: ignore[attr-defined]
    assert "it refuses access" in made.message


def test_an_object_is_synced_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal is truncated on the strength of it: the machine may go down a moment later."""
    synced: list[str] = []
    real = os.fsync

    def note(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    opened(tmp_path.as_uri()).put("a/b/1", [b"x"], 1)
    assert synced == [str(tmp_path / name) for name in ("a/b/1", "a/b", "a")] + [str(tmp_path)]


def test_the_fake_fails_as_it_is_told() -> None:
    """Outages, refusals and losses are brought about by tests, each once."""
    store = MemoryCheckpointStore()
    away = CheckpointStoreError("away")
    for call in ("put", "get", "objects", "delete"):
        store.fail_next(call, away)
    with pytest.raises(CheckpointStoreError):
        store.put("a", [b"x"], 1)
    store.put("a", [b"x"], 1)
    for act in (lambda: content(store, "a"), lambda: list(store.objects("")), lambda: store.delete(["a"])):
        with pytest.raises(CheckpointStoreError):
            act()
    assert store.faults.left() == []
    assert store.names() == ["a"]
    store.damage("a", lambda data: data + b"y")
    with contextlib.closing(store.get("a")) as found:  # type: ignore[type-var]
        assert next(found) == b"xy"
