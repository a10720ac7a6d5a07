"""Who may enter the directories that hold users' data: the modes that the stores, the broker and checkpoints leave."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.broker.directories import make_dir
from pipeline.core.names import TaskId
from pipeline.directories import close_to_others, make_private
from pipeline.object_store.checkpoint_store import open_checkpoint_store
from pipeline.rocksdb.rocks import RocksStores


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    """The worst case: nothing is taken from the mode that a program asks for."""
    before = os.umask(0)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_directory_that_is_created_is_private(tmp_path: Path) -> None:
    """A parent that admits everyone would let them rename what is below it."""
    make_private(tmp_path / "a" / "b" / "c")
    assert [_mode(tmp_path / part) for part in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_a_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """The root may be a mount that the operator prepared."""
    tmp_path.chmod(0o750)
    make_private(tmp_path)
    make_private(tmp_path / "a")
    assert _mode(tmp_path) == 0o750


def test_a_file_in_the_place_is_an_error(tmp_path: Path) -> None:
    """The caller names it."""
    (tmp_path / "a").touch()
    with pytest.raises(FileExistsError):
        make_private(tmp_path / "a")


@pytest.mark.parametrize(
    ("mode", "after"), [(0o755, 0o700), (0o777, 0o700), (0o701, 0o700), (0o750, 0o750), (0o700, 0o700)]
)
def test_what_everyone_could_enter_is_closed(tmp_path: Path, mode: int, after: int) -> None:
    """Earlier releases used the umask; a mode that gives only the group access is deliberate."""
    tmp_path.chmod(mode)
    close_to_others(tmp_path)
    assert _mode(tmp_path) == after


def test_a_workers_state_is_closed_to_other_users(tmp_path: Path) -> None:
    """It holds the values of every table."""
    stores = RocksStores(tmp_path / "new" / "state", 1 << 20)
    stores.claim("app")
    stores.open(TaskId("app", "main", 0)).close()
    assert _mode(tmp_path / "new") == _mode(tmp_path / "new" / "state" / "app") == 0o700
    stores.release("app")


def test_a_state_of_an_earlier_release_is_closed_by_a_claim(tmp_path: Path) -> None:
    """An upgrade must not need the operator for it; the directory above is his."""
    (tmp_path / "app").mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    stores = RocksStores(tmp_path, 1 << 20)
    stores.claim("app")
    assert (_mode(tmp_path), _mode(tmp_path / "app")) == (0o755, 0o700)
    stores.release("app")


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(("root", "app"), [(0o755, 0o700), (0o2775, 0o2770)])
def test_checkpoints_in_a_directory_are_closed_to_others(
    tmp_path: Path, root: int, app: int, earlier: bool
) -> None:
    """They are whole copies of the state. A root that its group may write to is shared on purpose."""
    tmp_path.chmod(root)
    if earlier:
        (tmp_path / "app").mkdir(mode=0o775)
    store = open_checkpoint_store(tmp_path.as_uri())
    assert store is not None
    store.put("app/main/0/objects/x", [b"x"], 1)
    assert (_mode(tmp_path), _mode(tmp_path / "app")) == (root, app)


def test_a_brokers_directories_are_closed_to_others(tmp_path: Path) -> None:
    """The records of every topic are below them."""
    make_dir(tmp_path / "cache" / "brokers" / "9092")
    assert _mode(tmp_path / "cache") == _mode(tmp_path / "cache" / "brokers" / "9092") == 0o700
