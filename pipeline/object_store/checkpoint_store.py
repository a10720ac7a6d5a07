"""Stores checkpoints in a directory or an object store: `open_checkpoint_store`, by URL.

Guarantees that writes are atomic and durable: files in a directory are synced before `put` returns, because the journal
is truncated afterwards. Memory is bounded by a few pieces per transfer, for objects of any size. Failed requests are
retried for some seconds, then CheckpointStoreError is raised.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from pipeline.directories import close_to_others
from pipeline.errors import CheckpointStoreError, ConfigError, DamagedCheckpointError
from pipeline.ports import CheckpointStore, StoredObject

__all__ = ["SCHEMES", "ObjectCheckpointStore", "open_checkpoint_store"]

SCHEMES = ("file", "s3", "gs", "az")
PIECE_BYTES = 8 * 1024 * 1024
FILE_PIECE_BYTES = 1024 * 1024
PARTS_AT_ONCE = 4  # the parallel parts of one upload

_HINT = "follow runbooks/checkpoint-store-unavailable.md"
_CLIENT: Any = {"connect_timeout": "5s", "read_timeout": "20s"}
_RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_NO_BUCKET = ("nosuchbucket", "containernotfound", "bucket does not exist")
# Fragments of error messages of object stores and disks, and the explanation for the operator.
_MEANINGS = (
    (("no space left", "quota", "insufficientstorage", "507 "), "it is full"),
    (
        (
            "permission denied",
            "accessdenied",
            "403 ",
            "401 ",
            "unauthenticated",
            "authorization",
            "read-only",
        ),
        "it refuses access",
    ),
    (("credential", "account must be specified"), "there are no credentials for it"),
    (("error sending request", "timed out", "timeout", "connect", "dns"), "it does not answer"),
)


def open_checkpoint_store(url: str) -> CheckpointStore | None:
    """The store at `url` (see SCHEMES); None if `url` is empty. Raises ConfigError with the URL and the reason.

    Credentials, regions and endpoints come from the same environment variables as for the tools of the cloud provider.
    A plain-text endpoint requires AWS_ALLOW_HTTP=true or AZURE_ALLOW_HTTP=true.
    """
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ConfigError(
            f"worker.checkpoint_store is {url!r}; it must begin with one of "
            + ", ".join(f"{scheme}://" for scheme in SCHEMES),
            hint="for example file:///var/lib/checkpoints, or s3://BUCKET/PREFIX",
        )
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            "worker.checkpoint_store holds more than a place",
            hint="give credentials by the environment, not in the URL",
        )
    if parts.scheme == "file":
        return _directory(url, parts.netloc, Path(unquote(parts.path)))
    try:
        return ObjectCheckpointStore(from_url(url, client_options=_client(), retry_config=_RETRIES), url)
    except BaseError as error:
        raise ConfigError(
            f"worker.checkpoint_store {url} cannot be opened: {_first_line(error)}",
            hint="write it as file:///DIRECTORY or s3://BUCKET/PREFIX, and check its credentials",
        ) from error


def _directory(url: str, host: str, path: Path) -> ObjectCheckpointStore:
    # A missing directory may be a disk that is not mounted, so it is not created.
    if host or not path.is_absolute() or path == Path("/"):
        raise ConfigError(
            f"worker.checkpoint_store {url} names no absolute directory",
            hint="write file:///var/lib/checkpoints",
        )
    if not path.is_dir():
        raise ConfigError(
            f"worker.checkpoint_store {url}: there is no directory {path}",
            hint=f"mount it, or make it: mkdir -p {path}",
        )
    return ObjectCheckpointStore(LocalStore(path), url, path)


def _client() -> Any:
    allowed = {os.environ.get(name, "").lower() for name in ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP")}
    return {**_CLIENT, "allow_http": "true" in allowed}


class ObjectCheckpointStore:
    """`ports.CheckpointStore` on an obstore store. `directory`: its root; None for a cloud store."""

    def __init__(self, store: Any, url: str, directory: Path | None = None) -> None:
        self._store = store
        self._url = url
        self._directory = directory

    def put(self, name: str, content: Iterable[bytes], size: int) -> None:
        """Write an object of `size` bytes, atomically and durably."""
        try:
            if self._directory is not None:
                _protect(self._directory / name.partition("/")[0])
            if size <= PIECE_BYTES:
                obstore.put(self._store, name, b"".join(content))
            else:
                pieces = iter(content)
                obstore.put(
                    self._store,
                    name,
                    pieces,
                    use_multipart=True,
                    chunk_size=PIECE_BYTES,
                    max_concurrency=PARTS_AT_ONCE,
                )
            if self._directory is not None:
                _sync(self._directory, name)
        except (BaseError, OSError) as error:
            raise self._failure(f"writing {name}", error) from error

    def get(self, name: str) -> Iterator[bytes]:
        """The content of an object in pieces. Raises DamagedCheckpointError if it does not exist."""
        try:
            if self._directory is not None:
                yield from _file_pieces(self._directory / name)
                return
            # Range requests have ten times the throughput of the library's streams.
            first = obstore.get(self._store, name, options={"range": (0, PIECE_BYTES)})
            size = first.meta["size"]
            yield bytes(first.bytes())
            for start in range(PIECE_BYTES, size, PIECE_BYTES):
                end = min(start + PIECE_BYTES, size)
                yield bytes(obstore.get_range(self._store, name, start=start, end=end))
        except (BaseError, OSError) as error:
            if any(words in str(error) for words in ("InvalidRange", " 416 ")):
                return  # the first range of an empty object does not exist
            if isinstance(error, FileNotFoundError) and self._gone(error) is None:
                raise DamagedCheckpointError(
                    f"object {name} is not in the checkpoint store {self._url}"
                ) from error
            raise self._failure(f"reading {name}", error) from error

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose names begin with `prefix`, in any order. `prefix` ends with a slash."""
        try:
            if self._directory is not None:
                self._directory.stat()  # the library treats a missing directory as empty
            for page in obstore.list(self._store, prefix.rstrip("/")):
                for found in page:
                    modified_ms = int(found["last_modified"].timestamp() * 1000)
                    yield StoredObject(found["path"], found["size"], modified_ms)
        except (BaseError, OSError) as error:
            raise self._failure(f"listing {prefix}", error) from error

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects. Names that do not exist are ignored."""
        for name in names:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as error:
                raise self._failure(f"deleting {name}", error) from error

    def _gone(self, error: Exception) -> str | None:
        """The reason if the directory or the bucket itself is missing; None if only the object is."""
        if self._directory is not None:
            return None if self._directory.is_dir() else f"its directory {self._directory} does not exist"
        return "its bucket does not exist" if any(word in str(error).lower() for word in _NO_BUCKET) else None

    def _failure(self, what: str, error: Exception) -> CheckpointStoreError:
        text = str(error).lower()
        found = next((says for words, says in _MEANINGS if any(word in text for word in words)), "it fails")
        return CheckpointStoreError(
            f"the checkpoint store {self._url}: {self._gone(error) or found}, {what}: {_first_line(error)}",
            hint=_HINT,
        )


def _protect(app: Path) -> None:
    """Create the directory of an app's checkpoints, for this user only, or for the group that may write to the root.

    The operator creates the root. This function does not, because the root may be a mount point.
    """
    shared = bool(app.parent.stat().st_mode & stat.S_IWGRP)
    app.mkdir(mode=0o770 if shared else 0o700, exist_ok=True)
    close_to_others(app, share_with_group=shared)


def _file_pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(FILE_PIECE_BYTES):
            yield piece


def _sync(root: Path, name: str) -> None:
    """Sync the file and its parent directories, which may be new."""
    path = root / name
    for place in (path, *path.parents):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        if place == root:
            return


def _first_line(error: Exception) -> str:
    """The library's message without its debug output."""
    return str(error).split("\n", 1)[0][:300]
