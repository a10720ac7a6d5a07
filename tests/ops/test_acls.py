"""`pipeline acls`: the same permissions as commands, as YAML and as JSON."""

from __future__ import annotations

import shlex
from itertools import pairwise

import pytest

from pipeline import App, Context, Event
from pipeline.api.app import DeclaredApp
from pipeline.app import declared_app
from pipeline.core.permissions import Grant, Operation, ResourceKind, Role
from pipeline.errors import InputError
from pipeline.ops.acls import (
    Corrections,
    document_of,
    guessed_topics,
    kafka_acls,
    principals,
    use_of,
    yaml_of,
)
from pipeline.ops.topics.yaml_documents import load


def _nothing(_event: Event[str, int], _ctx: Context) -> None:
    """Handle nothing."""


def stages() -> DeclaredApp:
    """Two stages: `clicks` to `sessions` to `reports`."""
    app = App("web")
    clicks = app.topic("clicks", key=str, value=int)
    sessions = app.topic("sessions", key=str, value=int)
    app.topic("reports", key=str, value=int)
    second = app.group("reporting")

    @app.handler(clicks, on_error="dead_letter")
    def first(event: Event[str, int], ctx: Context) -> None: ...

    @second.handler(sessions)
    def report(event: Event[str, int], ctx: Context) -> None: ...

    return declared_app(app)


def writable(corrections: Corrections) -> set[str]:
    return set(use_of(stages(), corrections, truncates=False).written)


def test_a_topic_is_written_if_a_group_does_not_read_it() -> None:
    """The ACLs of an app with stages must let each stage write to the next one."""
    assert writable(Corrections()) == {"clicks", "sessions", "reports"}
    assert guessed_topics(use_of(stages(), Corrections(), truncates=False)) == ["clicks", "sessions"]


def test_the_user_corrects_which_topics_are_written() -> None:
    """Only the author knows it, and least privilege depends on it."""
    assert writable(Corrections(only_reads=("clicks",))) == {"sessions", "reports"}
    app = App("single")
    topic = app.topic("loop", key=str, value=int)
    app.handler(topic)(_nothing)
    assert use_of(declared_app(app), Corrections(), truncates=False).written == frozenset()
    assert use_of(declared_app(app), Corrections(writes=("loop",)), truncates=False).written == {"loop"}


def test_a_misspelled_topic_is_refused_with_the_right_one() -> None:
    """Otherwise the ACLs would silently stay too wide."""
    with pytest.raises(InputError, match="did you mean 'clicks'"):
        use_of(stages(), Corrections(only_reads=("clikcs",)), truncates=False)


FLAGS = {
    "--topic": ResourceKind.TOPIC,
    "--group": ResourceKind.GROUP,
    "--transactional-id": ResourceKind.TRANSACTIONAL_ID,
}


def parsed(commands: list[str]) -> set[Grant]:
    """The grants of kafka-acls commands."""
    found = set()
    for command in commands:
        words = shlex.split(command)
        assert words[:3] == ["kafka-acls.sh", "--bootstrap-server", "kafka:9093"]
        operations = tuple(Operation(b) for a, b in pairwise(words) if a == "--operation")
        prefixed = "prefixed" in words
        found |= {Grant(FLAGS[a], b, operations, prefixed) for a, b in pairwise(words) if a in FLAGS}
    return found


@pytest.mark.parametrize("role", Role)
def test_commands_yaml_and_json_grant_the_same(role: Role) -> None:
    """A reader takes one of the three, and must get what the test on a real broker has proven."""
    (found,) = principals(use_of(stages(), Corrections(), truncates=True), [role], None)
    assert parsed(kafka_acls(found, "kafka:9093", "admin.properties")) == set(found.grants)
    document = document_of(found)
    assert load(f"documents:\n{_indented(yaml_of([found]))}")["documents"] == [document]


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def test_each_role_has_a_principal_of_its_own() -> None:
    """Different passwords, so that a loader cannot act as a worker."""
    use = use_of(stages(), Corrections(), truncates=False)
    found = principals(use, [Role.WORKER, Role.LOAD], None)
    assert [each.principal for each in found] == ["User:web", "User:web-load"]
    (both,) = principals(use, [Role.WORKER, Role.LOAD], "CN=web,O=example")
    assert both.principal == "User:CN=web,O=example"
    assert set(found[0].grants) < set(both.grants) | set(found[0].grants)
