"""The permissions of each role: no durable name is forgotten, and none has more operations than its role needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from pipeline.core import names
from pipeline.core.names import GroupId, TaskId
from pipeline.core.permissions import AppUse, Grant, GroupUse, Operation, ResourceKind, Role, grants_of
from tests.support.pages import ROOT

GROUP = GroupId("orders", "main")
TASK = TaskId("orders", "main", 3)
USE = AppUse(
    "orders",
    ("orders", "totals", "rows"),
    frozenset({"totals"}),
    ("orders",),
    (
        GroupUse(GROUP, ("orders",), letters=True),
        GroupUse(GroupId("orders", "database"), ("totals",), handlers=False),
    ),
    truncates=True,
)
R, W, C, D = Operation.READ, Operation.WRITE, Operation.CREATE, Operation.DELETE
SEE, CONFIGS = Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS
TOPIC, CONSUMERS, FENCE = ResourceKind.TOPIC, ResourceKind.GROUP, ResourceKind.TRANSACTIONAL_ID

# What each public name of core/names.py is called in Kafka.
IN_KAFKA: Mapping[str, Callable[[], tuple[ResourceKind, str]]] = {
    "JOURNAL_READER": lambda: (CONSUMERS, names.JOURNAL_READER),
    "LOADS_TOPIC": lambda: (TOPIC, names.LOADS_TOPIC),
    "copy_name": lambda: (TOPIC, GroupId(names.copy_name("orders"), names.COPY_GROUP).journal_topic),
    "letter_counts_topic": lambda: (TOPIC, names.letter_counts_topic("orders")),
    "load_transactional_id": lambda: (FENCE, names.load_transactional_id("orders/a.csv")),
    "producer_transactional_id": lambda: (FENCE, names.producer_transactional_id("checkout-1")),
    "replay_marks_topic": lambda: (TOPIC, names.replay_marks_topic("orders")),
    "workers_group": lambda: (CONSUMERS, names.workers_group("orders")),
    "workers_topic": lambda: (TOPIC, names.workers_topic("orders")),
    "GroupId.consumer_group": lambda: (CONSUMERS, GROUP.consumer_group),
    "GroupId.dead_letter_topic": lambda: (TOPIC, GROUP.dead_letter_topic),
    "GroupId.genesis_transactional_id": lambda: (FENCE, GROUP.genesis_transactional_id),
    "GroupId.journal_topic": lambda: (TOPIC, GROUP.journal_topic),
    "GroupId.replay_transactional_id": lambda: (FENCE, GROUP.replay_transactional_id),
    "GroupId.replays_topic": lambda: (TOPIC, GROUP.replays_topic),
    "GroupId.transactional_prefix": lambda: (FENCE, f"{GROUP.transactional_prefix}0"),
    "TaskId.journal": lambda: (TOPIC, TASK.journal.topic),
    "TaskId.transactional_id": lambda: (FENCE, TASK.transactional_id),
}
# Public names of that module which need no permission of a role, and why.
NO_PERMISSION: Mapping[str, str] = {
    "COPY_GROUP": "see copy_name",
    "TaskChoice": "what an operator writes: it names nothing in Kafka",
    "DEAD_LETTER_READER": "commands run without it",
    "EVENT_ID_HEADER": "is a header",
    "TRACEPARENT_HEADER": "is a header",
    "NEVER_DECLARED": "is a rule about names",
    "RECORD_READER": "commands run without it",
    "GroupId": "see its properties",
    "TaskId": "see its properties",
    "TopicPartition": "is a place",
    "TaskId.group_id": "is a group",
    "check_name": "is a rule about names",
    "checkpoint_clock": "is in the checkpoint store",
    "checkpoint_manifest": "is in the checkpoint store",
    "checkpoint_object": "is in the checkpoint store",
    "checkpoint_prefix": "is in the checkpoint store",
    "held_by_the_pipeline": "is a rule about names",
    "is_replays": "is a rule about names",
    "journal_group": "is a rule about names",
    "known_apps": "is a rule about names",
    "never_declared": "is a rule about names",
    "record_place": "is the notation of a place in commands",
    "shadow_app": "is an app of pipeline drill",
    "shadow_output": "is a topic of an app of pipeline drill",
    "topics_of_shadow": "is a rule about names",
    "workers_app": "is a rule about names",
}


def public_names() -> list[str]:
    """The public names of core/names.py, and the properties of its ids."""
    properties = [
        f"{kind.__name__}.{name}"
        for kind in (GroupId, TaskId)
        for name, value in vars(kind).items()
        if isinstance(value, property)
    ]
    return [*names.__all__, *properties]


def allows(grant: Grant, kind: ResourceKind, name: str) -> bool:
    return grant.kind is kind and (name.startswith(grant.name) if grant.prefixed else name == grant.name)


@pytest.mark.parametrize("name", public_names())
def test_every_durable_name_has_a_permission_or_a_reason(name: str) -> None:
    """A new internal topic without an ACL works in every test and fails on the first secured cluster."""
    if name in IN_KAFKA:
        kind, resource = IN_KAFKA[name]()
        assert any(allows(grant, kind, resource) for role in Role for grant in grants_of(USE, role))
    else:
        assert NO_PERMISSION[name]


def test_a_worker_has_no_operation_that_it_does_not_use() -> None:
    """This table is what a security review reads; a row that grows must be noticed."""
    assert grants_of(USE, Role.WORKER) == [
        Grant(TOPIC, "orders", (R, CONFIGS)),
        Grant(TOPIC, "orders.main.dead-letters", (W, C, CONFIGS)),
        Grant(TOPIC, "orders.main.journal", (R, W, C, D, CONFIGS)),
        Grant(TOPIC, "orders.main.replays", (R, C, CONFIGS)),
        Grant(TOPIC, "pipeline.letter-counts.orders", (R, CONFIGS)),
        Grant(TOPIC, "pipeline.workers.orders", (R, W, C, CONFIGS)),
        Grant(TOPIC, "rows", (SEE, CONFIGS)),
        Grant(TOPIC, "totals", (R, W, CONFIGS)),
        Grant(CONSUMERS, "orders.database", (R,)),
        Grant(CONSUMERS, "orders.main", (R,)),
        Grant(CONSUMERS, "orders.workers", (R,)),
        Grant(CONSUMERS, "pipeline.journal-reader", (SEE,)),
        Grant(FENCE, "orders.main.", (W,), prefixed=True),
    ]


def test_journal_records_are_deleted_only_with_a_checkpoint_store() -> None:
    """DELETE on a topic also allows its deletion, so it is granted only where journals are truncated."""
    without = AppUse(USE.app, USE.topics, USE.written, USE.loaded, USE.groups)
    assert not [grant for grant in grants_of(without, Role.WORKER) if D in grant.operations]


def test_a_load_cannot_touch_an_app() -> None:
    """A leaked password of a loader must not let anyone write to a journal."""
    assert {grant.name for grant in grants_of(USE, Role.LOAD)} == {
        "orders",
        "pipeline.loads",
        "pipeline.load.",
        "pipeline.journal-reader",
    }


def test_a_purge_reads_the_replays_but_writes_none() -> None:
    """It keeps letters whose replay waits, which it finds in the replays topic and the positions in the journal."""
    grants = grants_of(USE, Role.PURGE)
    assert Grant(TOPIC, "orders.main.journal", (R, CONFIGS)) in grants
    assert Grant(TOPIC, "orders.main.replays", (R, CONFIGS)) in grants


@pytest.mark.parametrize("role", [Role.STATUS, Role.INSPECT, Role.DRILL])
def test_a_role_that_reads_cannot_change_anything(role: Role) -> None:
    """A user who watches an app must not be able to change it."""
    operations = {operation for grant in grants_of(USE, role) for operation in grant.operations}
    assert operations == {R, SEE, CONFIGS}


def test_a_service_can_only_write_its_topics() -> None:
    """`pipeline.Producer` runs in services of other teams."""
    assert grants_of(USE, Role.PRODUCER) == [
        Grant(TOPIC, "orders", (W,)),
        Grant(FENCE, "pipeline.producer.", (W,), prefixed=True),
    ]


DOCUMENTED = AppUse(
    "<app>",
    ("topics of the app",),
    frozenset({"topics of the app"}),
    ("topics of the app",),
    (
        GroupUse(GroupId("<app>", "<group>"), ("topics of the app",), letters=True),
        GroupUse(GroupId("<app>", "<sink group>"), (), handlers=False),
    ),
    truncates=True,
)


def documented_table() -> str:
    """The table of docs/reference/configuration.md: who needs what on each resource."""
    cells: dict[tuple[int, str], list[str]] = {}
    copy = names.copy_name("topics of the app")
    for role in Role:
        for grant in grants_of(DOCUMENTED, role):
            name = grant.name.replace(copy, "copy-<topic>") + ("*" if grant.prefixed else "")
            shown = name if name == "topics of the app" else f"{_WORDS[grant.kind]}`{name}`"
            row = cells.setdefault((list(ResourceKind).index(grant.kind), shown), [])
            row.append(f"`{role}`: {', '.join(grant.operations)}")
    rows = [f"| {shown} | {'; '.join(cell)} |\n" for (_, shown), cell in sorted(cells.items())]
    return "| resource | operations by role |\n| --- | --- |\n" + "".join(rows)


_WORDS = {TOPIC: "", CONSUMERS: "consumer group ", FENCE: "transactional id "}


def test_the_documented_permissions_are_those_that_are_printed() -> None:
    """A security review reads the page; a table that was written by hand was wrong for a purge."""
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    assert documented_table() in page


def test_roles_together_have_each_resource_once() -> None:
    """One user for workers and loads gets one grant for a topic that both use."""
    grants = grants_of(USE, Role.WORKER, Role.LOAD)
    assert len({grant[:2] for grant in grants}) == len(grants)
    assert Grant(TOPIC, "orders", (R, W, CONFIGS)) in grants
