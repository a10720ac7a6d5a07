"""A drill refuses by name what it cannot do safely, and changes nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pipeline import App, Context, Event, Sqlite, Tumbling
from pipeline.app import declared_app
from pipeline.core.names import TaskChoice, TaskId
from pipeline.core.recovery_time import DEFAULT_SPEED
from pipeline.drills.catalog import DRILLS, find_drill, read_suite
from pipeline.drills.drill import Drill
from pipeline.drills.intent import IntentFile
from pipeline.drills.scene import Options, RefusedDrillError, Scene
from pipeline.drills.shadow_replay import ShadowReplay
from pipeline.drills.workers import Process
from pipeline.errors import InputError, UnreachableError
from tests.support.drills.proxied import behind_proxy
from tests.support.drills.scenes import APP, observer_of, runner_of, scene_of, settings_of
from tests.support.runtime.fleet import Fleet


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    """Two workers with two tasks each, at rest."""
    return Fleet.at_rest("a", "b")


def _handle(event: Event[str, int], ctx: Context) -> None:
    raise AssertionError((event, ctx))


def _refused(drill: str | Drill, scene: Scene) -> str:
    found = find_drill(drill) if isinstance(drill, str) else drill
    with pytest.raises(RefusedDrillError) as refused:
        list(found.check(scene))
    assert refused.value.hint
    assert f"refused ({refused.value.name})" in refused.value.message
    return refused.value.name


def _run_refused(
    fleet: Fleet, directory: Path, drill: str = "kill-worker", **settings: object
) -> RefusedDrillError:
    runner = runner_of(fleet, settings_of(directory, **settings))  # type: ignore[arg-type]
    with pytest.raises(RefusedDrillError) as refused:
        runner.plan(find_drill(drill), Options(max_tasks=1))
    return refused.value


def test_an_app_that_is_not_named_is_never_drilled(fleet: Fleet, tmp_path: Path) -> None:
    """A drill on the wrong machine must not begin because of a default."""
    assert _run_refused(fleet, tmp_path, allow=()).name == "not-allowed"
    assert _run_refused(fleet, tmp_path, allow=("sums2",)).name == "not-allowed"


@pytest.mark.parametrize(("alive", "next_step"), [(True, "drill abort"), (False, "drill undo")])
def test_a_second_drill_is_refused_while_one_is_open(
    fleet: Fleet, tmp_path: Path, alive: bool, next_step: str
) -> None:
    """Two faults at once prove nothing, and the intent of the first one would be lost."""
    file = IntentFile(tmp_path, APP)
    intent = file.new("kill-worker-1", "kill-worker", APP, "kafka:9092", fleet.clock)
    if not alive:
        intent = msgspec.structs.replace(intent, driller=Process(os.getpid(), 1))
    file.begin(intent)
    refused = _run_refused(fleet, tmp_path)
    assert refused.name == "drill-open"
    assert next_step in str(refused)


def test_an_app_without_a_worker_here_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    """Workers on other hosts are members, too, and must not be guessed at."""
    assert _run_refused(fleet, tmp_path).name == "no-local-worker"


def test_more_tasks_than_allowed_are_refused(fleet: Fleet, tmp_path: Path) -> None:
    """--max-tasks bounds the blast radius before the fault."""
    runner = runner_of(fleet, settings_of(tmp_path))
    scene = scene_of(fleet, settings_of(tmp_path), options=Options(max_tasks=1))
    with pytest.raises(RefusedDrillError, match="would affect 2 tasks, and --max-tasks is 1") as refused:
        runner._planned(find_drill("kill-worker"), scene)
    assert refused.value.name == "too-many-tasks"
    assert len(runner._planned(find_drill("kill-worker"), scene_of(fleet, settings_of(tmp_path))).tasks) == 2


def test_an_app_that_is_not_steady_is_refused(tmp_path: Path) -> None:
    """A fault on top of another one would be blamed for both."""
    fleet = Fleet.at_rest("a")
    fleet.kill(fleet.nodes[0])
    observer = observer_of(fleet)
    fleet.clock.advance(11.0)
    observer.look(status=True)
    with pytest.raises(RefusedDrillError) as refused:
        runner_of(fleet, settings_of(tmp_path))._check_steady(observer)
    assert refused.value.name == "not-steady"
    assert "4 of 4 tasks are not live" in refused.value.message


def test_a_fault_does_not_follow_an_outage_of_kafka(tmp_path: Path) -> None:
    """The seconds of the outage would be taken for those of the recovery."""
    fleet = Fleet.at_rest("a")
    observer = observer_of(fleet)
    fleet.broker.fail_next("member_ids", UnreachableError("the brokers do not answer"))
    observer.look(status=True)
    observer.look(status=True)
    with pytest.raises(RefusedDrillError, match="Kafka was unreachable before the fault") as refused:
        runner_of(fleet, settings_of(tmp_path))._check_steady(observer)
    assert refused.value.name == "not-steady"


def test_a_worker_that_is_not_here_is_refused_by_its_id(fleet: Fleet, tmp_path: Path) -> None:
    """A mistyped id must not harm another worker."""
    scene = scene_of(fleet, settings_of(tmp_path), options=Options(worker="c"))
    assert _refused("kill-worker", scene) == "worker-not-found"


@pytest.mark.parametrize("drill", ["freeze-worker", "scale-in"])
def test_drills_that_need_a_second_worker_are_refused_for_one(tmp_path: Path, drill: str) -> None:
    """Without another worker, such a drill is an outage."""
    scene = scene_of(Fleet.at_rest("a"), settings_of(tmp_path), local=("a",))
    assert _refused(drill, scene) == "one-worker"


@pytest.mark.parametrize("drill", ["kill-worker", "lose-disk", "rolling-restart", "fill-disk"])
def test_a_worker_that_could_not_be_restarted_is_not_ended(fleet: Fleet, tmp_path: Path, drill: str) -> None:
    """A drill ends only what it can start again."""
    assert _refused(drill, scene_of(fleet, settings_of(tmp_path), command=())) == "command-unknown"


@pytest.mark.parametrize("drill", ["scale-in", "scale-out"])
def test_processes_of_a_supervisor_are_not_scaled(fleet: Fleet, tmp_path: Path, drill: str) -> None:
    """The supervisor would start the worker again, and its command cannot be copied."""
    assert _refused(drill, scene_of(fleet, settings_of(tmp_path), supervised=True)) == "supervised"


@pytest.mark.parametrize("drill", ["broker-restart", "broker-down"])
def test_a_broker_that_we_did_not_start_is_not_stopped(fleet: Fleet, tmp_path: Path, drill: str) -> None:
    """The Kafka of a team must survive a drill of one app."""
    scene = scene_of(fleet, settings_of(tmp_path, broker_dir=str(tmp_path / "none")))
    assert _refused(drill, scene) == "foreign-broker"


@pytest.mark.parametrize("drill", ["store-down", "damage-checkpoint"])
def test_a_store_that_is_not_a_directory_here_is_not_touched(
    fleet: Fleet, tmp_path: Path, drill: str
) -> None:
    """An object store belongs to others, too."""
    assert _refused(drill, scene_of(fleet, settings_of(tmp_path))) == "no-store"
    remote = settings_of(tmp_path, store="s3://bucket/prefix")
    assert _refused(drill, scene_of(fleet, remote)) == "store-not-local"


def test_a_directory_that_cannot_be_moved_is_not_taken(fleet: Fleet, tmp_path: Path) -> None:
    """The drill would fail in the middle, with the worker stopped."""
    mounted = Path("/proc")
    assert _refused("lose-disk", scene_of(fleet, settings_of(tmp_path), place=mounted)) == "mount-point"
    store = settings_of(tmp_path, store=mounted.as_uri())
    assert _refused("store-down", scene_of(fleet, store)) == "store-not-movable"
    missing = settings_of(tmp_path, store=(tmp_path / "missing").as_uri())
    assert _refused("store-down", scene_of(fleet, missing)) == "store-not-found"


def test_a_store_without_checkpoints_is_not_taken_away(fleet: Fleet, tmp_path: Path) -> None:
    """The drill could not show that the store is used again."""
    assert (
        _refused("store-down", scene_of(fleet, settings_of(tmp_path, store=tmp_path.as_uri())))
        == "no-checkpoint"
    )


def test_a_checkpoint_is_not_damaged_without_two_others(fleet: Fleet, tmp_path: Path) -> None:
    """The task must be able to restore without the damaged one."""
    scene = scene_of(fleet, settings_of(tmp_path, store=tmp_path.as_uri()))
    assert _refused("damage-checkpoint", scene) == "too-few-checkpoints"


def test_a_disk_is_not_lost_that_could_not_be_restored(tmp_path: Path) -> None:
    """A truncated journal without a checkpoint is a loss, and not a drill."""
    fleet = Fleet.at_rest("a", "b")
    for number in range(4):
        journal = TaskId(APP, "main", number).journal
        fleet.broker.truncate(journal, 2)
    assert _refused("lose-disk", scene_of(fleet, settings_of(tmp_path))) == "nothing-to-restore-from"
    assert _refused("replay-from-checkpoint", scene_of(fleet, settings_of(tmp_path))) == "no-store"


def test_a_disk_that_others_use_is_not_filled(fleet: Fleet, tmp_path: Path) -> None:
    """A full root file system is an incident of the host."""
    place = tmp_path / "state" / APP
    place.mkdir(parents=True)
    assert _refused("fill-disk", scene_of(fleet, settings_of(tmp_path), place=place)) == "shared-disk"


def test_a_record_is_written_only_to_a_topic_that_is_named(fleet: Fleet, tmp_path: Path) -> None:
    """The record stays in the topic, where readers of other teams get it."""
    assert _refused("poison-record", scene_of(fleet, settings_of(tmp_path))) == "no-poison-topic"


@pytest.mark.parametrize(
    ("app", "name"),
    [(None, "code-needed"), ("strict", "no-dead-letters"), ("other", "not-an-input")],
)
def test_a_poison_record_needs_dead_letters(fleet: Fleet, tmp_path: Path, app: str | None, name: str) -> None:
    """A handler that stops its task at the record would turn the drill into an outage."""
    declared = App(APP)
    numbers = declared.topic("numbers", key=str, value=int)
    others = declared.topic("others", key=str, value=int)
    declared.handler(numbers if app == "strict" else others)(_handle)
    scene = scene_of(fleet, settings_of(tmp_path, poison_topics=("numbers",)))
    with pytest.raises(RefusedDrillError) as refused:
        list(find_drill("poison-record", declared_app(declared) if app else None).check(scene))
    assert refused.value.name == name


@pytest.mark.parametrize("number", range(4))
def test_a_drill_on_a_task_takes_a_worker_that_runs_it(fleet: Fleet, tmp_path: Path, number: int) -> None:
    """On another worker, replay-from-checkpoint would compare no state, and hold."""
    scene = scene_of(fleet, settings_of(tmp_path), options=Options(task=TaskChoice(number)))
    assert TaskId(APP, "main", number) in scene.tasks_of(scene.victim().worker)


@pytest.mark.parametrize("drill", ["kill-worker", "freeze-worker", "lose-disk"])
def test_a_task_that_no_worker_here_runs_is_refused(fleet: Fleet, tmp_path: Path, drill: str) -> None:
    """A mistyped task, or one of another host, must not harm the worker with the most tasks."""
    scene = scene_of(fleet, settings_of(tmp_path), options=Options(task=TaskChoice(7)))
    assert _refused(drill, scene) == "no-task"
    scene = scene_of(fleet, settings_of(tmp_path), options=Options(task=TaskChoice(0, "other")))
    assert _refused(drill, scene) == "no-task"
    elsewhere = scene_of(fleet, settings_of(tmp_path)).tasks_of("b")[0].number
    scene = scene_of(fleet, settings_of(tmp_path), options=Options(task=TaskChoice(elsewhere)), local=("a",))
    assert _refused(drill, scene) == "no-task"


@pytest.mark.parametrize(("worker", "task"), [("", 7), ("a", "of b")])
def test_a_replay_without_a_state_to_compare_is_refused(
    fleet: Fleet, tmp_path: Path, worker: str, task: int | str
) -> None:
    """A drill that compares nothing must not say that all states are equal."""
    scene = scene_of(fleet, settings_of(tmp_path))
    number = task if isinstance(task, int) else scene.tasks_of("b")[0].number
    scene.options = Options(worker, TaskChoice(number))
    assert _refused("replay-from-checkpoint", scene) == "no-task"


def test_the_plan_of_a_poison_record_names_no_partition(fleet: Fleet, tmp_path: Path) -> None:
    """The record has no key, so a partition in the plan would be another one than that of the record."""
    declared = App(APP)
    numbers = declared.topic("numbers", key=str, value=int)
    declared.handler(numbers, on_error="dead_letter")(_handle)
    scene = scene_of(fleet, settings_of(tmp_path, poison_topics=("numbers",)))
    plan = find_drill("poison-record", declared_app(declared)).plan(scene)
    assert plan.target == "topic numbers"


@pytest.mark.parametrize("drill", ["slow-network", "cut-network"])
def test_network_drills_are_refused_without_a_proxy(fleet: Fleet, tmp_path: Path, drill: str) -> None:
    """They are in the catalogue, so that a suite that names them fails with the reason."""
    assert _refused(drill, scene_of(fleet, settings_of(tmp_path))) == "no-proxy"


@pytest.mark.parametrize("drill", ["slow-network", "cut-network"])
def test_a_worker_beside_its_proxy_is_not_disturbed(fleet: Fleet, tmp_path: Path, drill: str) -> None:
    """The fault would reach a part of its connections only, which is no failure of a network."""
    scene = scene_of(fleet, settings_of(tmp_path))
    with behind_proxy(tmp_path) as proxied:
        assert f"only through the proxy at {proxied.note.servers}" in "".join(find_drill(drill).check(scene))
        proxied.write(kafka=f"127.0.0.1:{proxied.direct}")
        assert _refused(drill, scene) == "past-the-proxy"
        proxied.write(process=Process(os.getpid(), 1))  # the proxy has ended
        assert _refused(drill, scene) == "no-proxy"


def test_the_only_worker_is_not_cut_off(tmp_path: Path) -> None:
    """No other worker could take over, and none could fence it."""
    scene = scene_of(Fleet.at_rest("a"), settings_of(tmp_path), local=("a",))
    with behind_proxy(tmp_path):
        assert _refused("cut-network", scene) == "one-worker"
        assert list(find_drill("slow-network").check(scene))


def _shadow(name: str, kind: str) -> ShadowReplay:
    """The drill with an app that has one group, which reads the numbers of the sums app."""
    app = App(name)
    numbers = app.topic("numbers", key=str, value=int)
    app.table("totals", key=str, value=int)
    if kind == "windows":
        app.window("hours", key=str, value=int, size=Tumbling(3600), grace_s=0, default=0)
    if kind == "sinks":
        app.group("rows").sink(numbers, Sqlite("rows.db", "rows", row=lambda event: {"id": event.key}))
    else:
        (app if kind in {"main", "windows"} else app.group(kind)).handler(numbers)(_handle)
    return ShadowReplay(declared_app(app))


def test_a_replay_runs_only_the_code_of_the_live_app(fleet: Fleet, tmp_path: Path) -> None:
    """Each other app would differ in every row, or write to a database."""
    scene = scene_of(fleet, settings_of(tmp_path))
    assert _refused(ShadowReplay(), scene) == "code-needed"
    assert _refused(_shadow("other", "main"), scene) == "another-app"
    assert _refused(_shadow(APP, "sinks"), scene) == "only-sinks"
    assert _refused(_shadow(APP, "second"), scene) == "group-not-live"
    assert _refused(_shadow(APP, "windows"), scene) == "has-windows"
    assert _refused(_shadow(APP, "main"), scene) == "table-changed"


@pytest.mark.parametrize(
    ("since", "name"),
    [
        ("yesterday", "start-unknown"),
        ("2026-01-31T00:00:00", "start-unknown"),
        ("sums/0/5", "not-an-input"),
        ("numbers/7/0", "nothing-to-replay"),
        ("2100-01-01T00:00:00Z", "nothing-to-replay"),
        ("2000-01-01T00:00:00Z", "start-too-early"),
    ],
)
def test_a_replay_without_a_usable_start_is_refused(
    fleet: Fleet, tmp_path: Path, since: str, name: str
) -> None:
    """A replay of nothing would hold, and would prove nothing."""
    scene = scene_of(fleet, settings_of(tmp_path), options=Options(since=since))
    assert _refused(ShadowReplay(declared_app(fleet.sums.app)), scene) == name


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[drill]]\nname = "kill-worker"\nworkers = "a"\n', "is not a suite of drills"),
        ("nothing", "is not a suite of drills"),
        ("drill = []\n", r"has no \[\[drill\]\]"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_suite_with_an_error_is_not_run_in_part(tmp_path: Path, text: str | None, problem: str) -> None:
    """An option with a typing error would widen a drill that the suite bounds."""
    suite = tmp_path / "weekly.toml"
    if text is not None:
        suite.write_text(text)
    with pytest.raises(InputError, match=problem):
        read_suite(suite)


def test_an_unknown_drill_is_named_with_a_similar_one() -> None:
    """A suite with a typing error must not run half."""
    with pytest.raises(InputError, match="there is no drill kill-workers; did you mean 'kill-worker'"):
        find_drill("kill-workers")


def test_every_drill_says_what_it_expects() -> None:
    """`pipeline drill list` and the report show these texts."""
    for drill in DRILLS.values():
        assert drill.summary
        assert drill.hypothesis.endswith(".")


def test_a_plan_predicts_a_start_where_the_worker_returns(fleet: Fleet, tmp_path: Path) -> None:
    """Only the tasks of a worker that does not return wait for Kafka's session time-out."""

    def predicted_s(drill: str, *, supervised: bool = False) -> float:
        return (
            find_drill(drill).plan(scene_of(fleet, settings_of(tmp_path), supervised=supervised)).predicted_s
        )

    assert predicted_s("kill-worker", supervised=True) < 5
    assert predicted_s("lose-disk") < 5
    assert predicted_s("rolling-restart") < 5
    assert predicted_s("scale-in") < 5
    assert predicted_s("kill-worker") > 10
    assert predicted_s("freeze-worker") > 10


@pytest.mark.parametrize(("start_s", "who"), [(0.1, "it is restarted"), (9.0, "the other workers take over")])
def test_the_faster_of_a_restart_and_a_take_over_is_predicted(
    fleet: Fleet, tmp_path: Path, start_s: float, who: str
) -> None:
    """Workers that watch each other take over before a slow restart, also where the disk is lost."""
    scene = scene_of(fleet, settings_of(tmp_path), supervised=True)
    status = scene.sample.status
    scene.sample = replace(
        scene.sample,
        status=replace(
            status,
            workers=[replace(each, watched=True) for each in status.workers],
            speeds={each.worker: DEFAULT_SPEED._replace(start_s=start_s) for each in status.workers},
        ),
    )
    for drill in ("kill-worker", "lose-disk"):
        plan = find_drill(drill).plan(scene)
        assert plan.effect.endswith(f"will stop until {who}")
        assert plan.predicted_s == pytest.approx(1, abs=0.9)
