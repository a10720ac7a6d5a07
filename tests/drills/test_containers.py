"""Workers in containers: how they are found, and what a drill does with them."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path, PurePosixPath

import msgspec
import pytest

from pipeline.core.membership import Member
from pipeline.drills.catalog import find_drill
from pipeline.drills.containers import Container, ContainerWorker, Engine, find_containers
from pipeline.drills.intent import Intent, IntentFile, StartContainer
from pipeline.drills.scene import RefusedDrillError, Scene
from pipeline.errors import InputError
from pipeline.ports import SystemClock
from pipeline.rocksdb.crash_files import NOTE
from tests.support.drills.engine_contract import check_engine
from tests.support.drills.fake_engine import FakeEngine
from tests.support.drills.scenes import APP, scene_of, settings_of
from tests.support.runtime.fleet import Fleet

MEMBERS = {"1-a": Member("a", "1-a", 1, "ring"), "2-b": Member("b", "2-b", 1, "ring")}
WORDS = ["worker", "sums:app"]
PODMAN = Engine("podman")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """`podman` is the fake one."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return FakeEngine(tmp_path)


def write_note(files: Path, place: str, process: str) -> None:
    """The note of a worker process, as crash_files writes it."""
    note = files / place.lstrip("/") / NOTE
    note.parent.mkdir(parents=True)
    head = struct.pack("<B?QB64s", 1, False, 1, len(process), process.encode())
    note.write_bytes(head.ljust(4096, b"\0"))


def test_a_container_is_found_by_the_process_in_its_note(engine: FakeEngine) -> None:
    """Neither the name of a container nor a label proves that it is the worker that Kafka lists."""
    write_note(
        engine.add("shop-a-1", WORDS, environment={"PIPELINE_STATE_DIR": "/state"}), "/state/sums", "1-a"
    )
    write_note(engine.add("shop-b-1", [*WORDS, "--state-dir", "data"]), "/app/data/sums", "2-b")
    write_note(engine.add("old-a", WORDS, environment={"PIPELINE_STATE_DIR": "/state"}), "/state/sums", "0-a")
    write_note(engine.add("a-load", ["produce", "flights"]), "/state/sums", "1-a")
    engine.add("empty", WORDS)
    found = find_containers(APP, MEMBERS, PODMAN)
    assert [(each.worker, each.process.name) for each in found] == [("a", "shop-a-1"), ("b", "shop-b-1")]
    assert [str(each.place) for each in found] == ["/state/sums", "/app/data/sums"]
    assert [each.volume for each in found] == [True, False]


def test_the_fake_engine_keeps_the_contract(engine: FakeEngine) -> None:
    """The tests of drills on containers rely on it; tests/containers runs the same on podman."""
    files = engine.add("shop-a-1", WORDS, environment={"PIPELINE_STATE_DIR": "/state"})
    write_note(files, "/state/sums", "1-a")
    (worker,) = find_containers(APP, MEMBERS, PODMAN)
    check_engine(worker, lambda path: (files / str(path).lstrip("/")).is_dir())


def test_a_missing_engine_says_where_to_run_the_drill(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Containers of another host look like no containers at all."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="the command podman was not found") as caught:
        find_containers(APP, MEMBERS, PODMAN)
    assert "on the host of the containers" in (caught.value.hint or "")


def test_what_the_engine_says_is_in_the_error(engine: FakeEngine) -> None:
    """A missing right, for example, is only explained by the engine."""
    del engine
    with pytest.raises(InputError, match="podman pause nothing: Error: no such container"):
        PODMAN.run("pause", "nothing")


def test_an_engine_that_cannot_be_run_is_named(engine: FakeEngine, tmp_path: Path) -> None:
    """A broken installation must not look like a host without containers."""
    del engine
    (tmp_path / "podman").write_text("")  # neither a program nor a script
    with pytest.raises(InputError, match=r"podman ps: .*Exec format error") as caught:
        PODMAN.run("ps")
    assert "podman ps" in (caught.value.hint or "")


def test_an_intent_starts_a_container_after_the_driller_was_killed(tmp_path: Path) -> None:
    """The file must have all that the engine needs."""
    file = IntentFile(tmp_path, APP)
    file.begin(file.new("kill-worker-1", "kill-worker", APP, "kafka:9092", SystemClock()))
    step = StartContainer("a", Container("podman", "1" * 64, "shop-a-1", "2026-01-01"))
    file.add(step)
    assert msgspec.json.decode(file.path.read_bytes(), type=Intent).steps == (step,)


def _scene(tmp_path: Path, *, volume: bool = True) -> Scene:
    worker = ContainerWorker(
        "a",
        "1-a",
        Container("podman", "1" * 64, "shop-a-1", "2026-01-01"),
        PurePosixPath("/state/sums"),
        volume,
        "image",
        "",
        WORDS,
    )
    scene = scene_of(Fleet.at_rest("a", "b"), settings_of(tmp_path), local=())
    return replace(scene, workers=[worker])


@pytest.mark.parametrize("drill", ["fill-disk", "scale-out", "replay-from-checkpoint"])
def test_drills_that_need_files_are_refused_for_containers(tmp_path: Path, drill: str) -> None:
    """They would act on a path of the host, which is another directory."""
    with pytest.raises(RefusedDrillError, match=r"runs in container shop-a-1") as refused:
        list(find_drill(drill).check(_scene(tmp_path)))
    assert refused.value.name == "container"


def test_a_disk_of_a_container_is_lost_only_on_a_volume(tmp_path: Path) -> None:
    """The container's own layer cannot be reached while it does not run."""
    with pytest.raises(RefusedDrillError, match="is not below a volume") as refused:
        list(find_drill("lose-disk").check(_scene(tmp_path, volume=False)))
    assert refused.value.name == "no-volume"
    assert "podman can start container shop-a-1" in "".join(find_drill("lose-disk").check(_scene(tmp_path)))


@pytest.mark.parametrize(
    "drill", ["kill-worker", "freeze-worker", "rolling-restart", "scale-in", "lose-disk"]
)
def test_a_plan_names_the_container(tmp_path: Path, drill: str) -> None:
    """The operator confirms this text."""
    scene = _scene(tmp_path)
    list(find_drill(drill).check(scene))
    plan = find_drill(drill).plan(scene)
    assert "shop-a-1" in " ".join([plan.target, *plan.actions]) or drill == "rolling-restart"
    assert plan.predicted_s > 0
