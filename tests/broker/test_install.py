"""Installing: only the files that the lock names, whatever happens on the way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.broker.install import Jar, Lock, ensure_installed, install_dir, shipped_lock
from pipeline.broker.reporting import BrokerError

_DEADLINE_S = 60.0
CONTENTS = {"org.example:one:1": b"first jar", "org.example:two:2": b"the second jar"}


def _jar(coordinate: str) -> Jar:
    content = CONTENTS[coordinate]
    name = "-".join(coordinate.split(":")[1:]) + ".jar"
    return Jar(coordinate, name, len(content), hashlib.sha256(content).hexdigest())


LOCK = Lock("9.9.9", tuple(_jar(coordinate) for coordinate in CONTENTS))


class Repository:
    """Serves the contents above, and counts."""

    def __init__(self, contents: dict[str, bytes] | None = None) -> None:
        self.contents = dict(CONTENTS if contents is None else contents)
        self.served: list[str] = []

    def fetch(self, coordinate: str, into: Path) -> Path:
        """What jgo does for the real ones."""
        if coordinate not in self.contents:
            raise ConnectionError(f"no route to the repository of {coordinate}")
        self.served.append(coordinate)
        path = into / coordinate.replace(":", "_")
        path.write_bytes(self.contents[coordinate])
        return path


def test_jars_are_installed_as_the_lock_names_them(tmp_path: Path) -> None:
    """The class path is built from what this returns."""
    paths = ensure_installed(tmp_path, LOCK, fetch=Repository().fetch)

    assert [path.name for path in paths] == ["one-1.jar", "two-2.jar"]
    assert [path.read_bytes() for path in paths] == list(CONTENTS.values())


def test_second_start_downloads_nothing(tmp_path: Path) -> None:
    """A later start must be quick and must work without a network."""
    ensure_installed(tmp_path, LOCK, fetch=Repository().fetch)

    offline = Repository({})
    assert len(ensure_installed(tmp_path, LOCK, fetch=offline.fetch)) == 2
    assert offline.served == []


def test_download_with_a_wrong_sum_is_refused_and_thrown_away(tmp_path: Path) -> None:
    """What a proxy or a mirror changed must never be run."""
    altered = Repository(CONTENTS | {"org.example:two:2": b"something else"})

    with pytest.raises(BrokerError, match=r"two-2\.jar has the wrong sum") as caught:
        ensure_installed(tmp_path, LOCK, fetch=altered.fetch)

    assert caught.value.hint is not None
    assert not list(tmp_path.rglob("two-2.jar"))
    assert not list(tmp_path.rglob("verified.json"))


def test_installed_jar_that_was_changed_is_refused(tmp_path: Path) -> None:
    """The cache is writable by the user's other programs; the lock file is what counts."""
    first, _second = ensure_installed(tmp_path, LOCK, fetch=Repository().fetch)
    first.write_bytes(b"evil jar!")  # as long as the right one

    with pytest.raises(BrokerError, match=r"one-1\.jar is not the file that was installed") as caught:
        ensure_installed(tmp_path, LOCK, fetch=Repository().fetch)

    assert "rm -r" in (caught.value.hint or "")


def test_touched_but_equal_jar_is_accepted_again(tmp_path: Path) -> None:
    """A cache copied from another machine has other times and the right contents."""
    first, _second = ensure_installed(tmp_path, LOCK, fetch=Repository().fetch)
    first.write_bytes(first.read_bytes())

    offline = Repository({})
    ensure_installed(tmp_path, LOCK, fetch=offline.fetch)
    assert offline.served == []


def test_missing_jar_alone_is_downloaded_again(tmp_path: Path) -> None:
    """A download cut short, or a cleaner of caches, costs only what is missing."""
    _first, second = ensure_installed(tmp_path, LOCK, fetch=Repository().fetch)
    second.unlink()

    repository = Repository()
    ensure_installed(tmp_path, LOCK, fetch=repository.fetch)
    assert repository.served == ["org.example:two:2"]


def test_what_a_killed_download_left_is_not_taken_for_a_jar(tmp_path: Path) -> None:
    """jgo would return a half file in its directory as if it were whole."""
    incoming = install_dir(tmp_path, LOCK) / "incoming"
    incoming.mkdir(parents=True)
    (incoming / "org.example_one_1").write_bytes(b"fir")

    paths = ensure_installed(tmp_path, LOCK, fetch=Repository().fetch)
    assert paths[0].read_bytes() == CONTENTS["org.example:one:1"]
    assert not incoming.exists()


def test_the_cause_of_a_failed_download_is_told_and_not_where_its_client_met_it(tmp_path: Path) -> None:
    """The address alone fills the line, and what went wrong comes last."""

    def fetch(coordinate: str, into: Path) -> Path:
        raise OSError(
            f"Pool(host='h'): Max retries exceeded with url: /{'x' * 200} (Caused by Proxy('away'))"
        )

    with pytest.raises(BrokerError, match=r"cannot download (one-1|two-2)\.jar: Proxy\('away'\)"):
        ensure_installed(tmp_path, LOCK, fetch=fetch)


def test_without_a_network_the_error_names_the_jar_and_the_way_out(tmp_path: Path) -> None:
    """The first start is the only one that needs the network, and says so."""
    with pytest.raises(BrokerError, match=r"cannot download (one-1|two-2)\.jar: no route") as caught:
        ensure_installed(tmp_path, LOCK, fetch=Repository({}).fetch)

    assert "the first start needs the network" in (caught.value.hint or "")


def test_cache_below_a_file_is_an_error_with_a_hint(tmp_path: Path) -> None:
    """A mistyped PIPELINE_CACHE_DIR must not end in a traceback."""
    (tmp_path / "file").write_text("")

    with pytest.raises(BrokerError, match="is not a directory") as caught:
        ensure_installed(tmp_path / "file", LOCK, fetch=Repository().fetch)

    assert "PIPELINE_CACHE_DIR" in (caught.value.hint or "")


def test_two_installations_at_once_download_once(tmp_path: Path) -> None:
    """Two test runs on a new machine start together."""
    repository = Repository()
    first_is_downloading, go_on = threading.Event(), threading.Event()

    def slow(coordinate: str, into: Path) -> Path:
        first_is_downloading.set()
        go_on.wait(_DEADLINE_S)
        return repository.fetch(coordinate, into)

    waiting = threading.Event()
    one = threading.Thread(target=lambda: ensure_installed(tmp_path, LOCK, fetch=slow))
    two = threading.Thread(
        target=lambda: ensure_installed(
            tmp_path, LOCK, fetch=repository.fetch, report=_when("waiting", waiting.set)
        )
    )
    one.start()
    assert first_is_downloading.wait(_DEADLINE_S)
    two.start()
    assert waiting.wait(_DEADLINE_S)
    go_on.set()
    one.join(_DEADLINE_S)
    two.join(_DEADLINE_S)

    assert sorted(repository.served) == sorted(CONTENTS)


def test_shipped_lock_pins_every_jar_to_one_file() -> None:
    """The lock that users get: Kafka itself is in it, and no two jars share a name."""
    lock = shipped_lock()

    assert lock.kafka_version == "4.4.0"
    assert "org.apache.kafka:kafka_2.13:4.4.0" in {jar.coordinate for jar in lock.jars}
    assert len({jar.file for jar in lock.jars}) == len(lock.jars)
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in lock.jars)


def _when(word: str, react: Callable[[], object]) -> Callable[[object], None]:
    def report(progress: object) -> None:
        if word in str(progress):
            react()

    return report
