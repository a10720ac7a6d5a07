"""Durable names: unambiguous, accepted by Kafka, and the same in every release."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.names import (
    LOADS_TOPIC,
    GroupId,
    TaskChoice,
    TaskId,
    TopicPartition,
    check_name,
    copy_name,
    held_by_the_pipeline,
    is_replays,
    known_apps,
    load_transactional_id,
    replay_marks_topic,
)
from pipeline.errors import ConfigError, InputError

names = st.from_regex(r"[A-Za-z0-9_-]{1,80}", fullmatch=True)


def usable(kind: str, name: str) -> bool:
    try:
        check_name(kind, name)
    except ConfigError:
        return False
    return True


def test_names_are_what_they_were_in_the_first_release() -> None:
    """A changed name is a lost journal, or a fence that no longer fences."""
    group, task = GroupId("shop", "main"), TaskId("shop", "main", 3)
    assert group.consumer_group == "shop.main"
    assert group.journal_topic == "shop.main.journal"
    assert group.dead_letter_topic == "shop.main.dead-letters"
    assert group.genesis_transactional_id == "shop.main.genesis"
    assert task.group_id == group
    assert task.journal == TopicPartition("shop.main.journal", 3)
    assert task.transactional_id == "shop.main.3"
    assert load_transactional_id("2024") == "pipeline.load.2024"
    assert copy_name("orders.by-item") == "copy-orders-by-item-73122b28"
    assert len(check_name("app", copy_name("o" * 249))) <= 80
    assert LOADS_TOPIC == "pipeline.loads"
    assert (str(task), str(task.journal)) == ("shop/main/3", "shop.main.journal[3]")


@given(st.tuples(names, names, st.integers(0, 50)), st.tuples(names, names, st.integers(0, 50)))
def test_no_two_tasks_share_a_name(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    """Tasks that shared a transactional id would fence each other again and again."""
    a, b = TaskId(*one), TaskId(*other)
    if a != b:
        assert a.transactional_id != b.transactional_id
        assert a.journal != b.journal


@given(names, names, st.integers(0, 50), names)
def test_no_task_shares_a_fence_with_genesis_or_a_load(
    app: str, group: str, partition: int, load: str
) -> None:
    """They are fenced by others, at other times: a load named `0` must not stop a task."""
    if usable("app", app) and usable("group", group):
        task = TaskId(app, group, partition)
        assert task.transactional_id != task.group_id.genesis_transactional_id
        assert task.transactional_id != load_transactional_id(load)


@pytest.mark.parametrize(("kind", "name"), [("app", "pipeline"), ("group", "workers")])
def test_names_that_the_package_uses_itself_are_reserved(kind: str, name: str) -> None:
    """App `pipeline` with a group `load` would share its fence with loads; `<app>.workers` is the membership."""
    with pytest.raises(ConfigError, match=f"{kind} name '{name}'"):
        check_name(kind, name)


@given(names, names)
def test_names_are_accepted_by_kafka(app: str, group: str) -> None:
    """A name that Kafka refuses would be found out only at the first start, on the cluster."""
    made = GroupId(app, group)
    for topic in (made.journal_topic, made.dead_letter_topic, made.replays_topic, replay_marks_topic(app)):
        assert re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", topic)


@given(st.text(max_size=90))
def test_a_name_is_taken_as_it_is_or_refused(name: str) -> None:
    """Nothing is corrected silently: what is written in the program is what stands in Kafka."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name):
        assert check_name("table", name) == name
    else:
        with pytest.raises(ConfigError, match="table name"):
            check_name("table", name)


@pytest.mark.parametrize("name", ["a.b", "", "a b", "a/b", "ä", "a" * 81, "name\n", "\n"])
def test_a_refused_name_is_shown_with_the_rule(name: str) -> None:
    """A dot separates the parts: `a.b` + `c` and `a` + `b.c` would be one journal."""
    with pytest.raises(ConfigError, match="1 to 80 letters, digits, '-' or '_'") as caught:
        check_name("app", name)
    assert repr(name) in caught.value.message
    assert caught.value.hint == "rename the app"


@given(names.filter(lambda name: usable("app", name)), names.filter(lambda name: usable("group", name)))
def test_every_journal_is_held_by_the_pipeline_and_no_dead_letters_are(app: str, group: str) -> None:
    """One foreign record in a journal stops its task permanently; dead letters may be read by apps."""
    assert held_by_the_pipeline(GroupId(app, group).journal_topic)
    assert held_by_the_pipeline(GroupId(app, group).dead_letter_topic) is None


def test_replays_and_their_marks_are_held_by_the_pipeline() -> None:
    """They outlive every release: these names are in journals and in people's permissions."""
    made = GroupId("shop", "main")
    assert made.replays_topic == "shop.main.replays"
    assert made.replay_transactional_id == "pipeline.replay.shop.main"
    assert replay_marks_topic("shop") == "pipeline.replays.shop"
    assert held_by_the_pipeline(made.replays_topic)
    assert held_by_the_pipeline(replay_marks_topic("shop"))
    assert is_replays(made.replays_topic)
    for topic in ("shop.replays", "shop.main.replays.old", "a.b.c.replays", made.dead_letter_topic):
        assert not is_replays(topic)


def test_only_names_of_the_pipeline_are_held() -> None:
    """Topics of others exist already, and may be called almost anything."""
    assert held_by_the_pipeline(LOADS_TOPIC)
    for topic in ("journal", "my.journal", "a.b.c.journal", "a.b.journals", "pipeline", "pipelines.a"):
        assert held_by_the_pipeline(topic) is None


def test_apps_are_known_from_their_journals_and_workers_topics() -> None:
    """A mistyped app gets the name of one that exists, and no name of another topic."""
    topics = [
        "flight-delays.main.journal",
        "pipeline.workers.sinks-only",
        "flights",
        "a.b.c.journal",
        "x.journal",
    ]
    assert known_apps([*topics, GroupId("shop", "main").dead_letter_topic]) == {"flight-delays", "sinks-only"}


def test_a_task_is_written_as_a_number_or_with_its_group() -> None:
    """Reports and `pipeline status` print group/number, and an operator copies what they print."""
    one, two = TaskId("shop", "main", 1), TaskId("shop", "rows", 1)
    assert TaskChoice.parse("1").means(one)
    assert TaskChoice.parse("1").means(two)
    assert TaskChoice.parse("main/1").means(one)
    assert not TaskChoice.parse("main/1").means(two)
    assert not TaskChoice.parse("main/2").means(one)
    assert [str(TaskChoice.parse(text)) for text in ("1", "main/01")] == ["1", "main/1"]


@pytest.mark.parametrize("text", ["", "-1", "x", "/1", "main/", "main/x", "shop/main/1", "\u0661", "1 "])
def test_what_is_not_a_task_is_refused(text: str) -> None:
    """A mistyped task must not become another one, or all tasks."""
    with pytest.raises(InputError, match="is not a task"):
        TaskChoice.parse(text)
