"""`pipeline doctor` on permissions: what is missing, and what cannot be told."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pipeline.core.permissions import Grant, Operation, ResourceKind
from pipeline.doctor.findings import Finding, Level, run_check
from pipeline.doctor.permissions import check_permissions
from pipeline.errors import ConfigError, DeniedError, UnreachableError
from pipeline.ports import TopicSpec
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster, MemoryProducers
from tests.doctor.test_cluster import FakeProbe

R, W, C = Operation.READ, Operation.WRITE, Operation.CREATE
ORDERS = Grant(ResourceKind.TOPIC, "orders", (R, W))
JOURNAL = Grant(ResourceKind.TOPIC, "shop.main.journal", (R, W, C))
GROUP = Grant(ResourceKind.GROUP, "shop.workers", (R,))
FENCE = Grant(ResourceKind.TRANSACTIONAL_ID, "shop.main.", (W,), prefixed=True)


@dataclass
class Allowed(FakeProbe):
    """`operations`: what may be done with everything; None: not told; an error: not even that may be asked."""

    operations: frozenset[Operation] | DeniedError | None = field(
        default_factory=lambda: frozenset(Operation)
    )

    def topic_operations(self, topic: str) -> frozenset[Operation] | None:
        if isinstance(self.operations, DeniedError):
            raise self.operations
        return self.operations

    def group_operations(self, group: str) -> frozenset[Operation] | None:
        return self.topic_operations(group)


def found(
    probe: Allowed, *grants: Grant, broker: MemoryBroker | None = None, guessed: tuple[str, ...] = ()
) -> list[Finding]:
    broker = broker or MemoryBroker()
    if "orders" not in broker.topics():
        broker.create(TopicSpec("orders", 1))
    producers = MemoryProducers(broker)
    return list(check_permissions(grants, guessed, "grant it", MemoryCluster(broker), probe, producers))


def test_all_permissions_are_fine() -> None:
    """As on a cluster without an authorizer."""
    (only,) = found(Allowed(), ORDERS, JOURNAL, GROUP, FENCE)
    assert only == Finding("permissions", Level.OK, "all of 4 resources that a worker uses are allowed")


@pytest.mark.parametrize(
    "probe", [Allowed(operations=frozenset({R})), Allowed(operations=DeniedError("denied"))]
)
def test_a_missing_operation_is_a_problem_with_its_resource(probe: Allowed) -> None:
    """The administrator of the cluster needs exactly these words."""
    first = found(probe, ORDERS)[0]
    assert first.level is Level.PROBLEM
    assert "Write on topic orders" in first.text
    assert first.hint == "grant it"


def test_a_topic_that_does_not_exist_is_tried_to_be_created() -> None:
    """Before the first start there are no journals, whose operations the brokers could tell."""
    broker = MemoryBroker()
    assert found(Allowed(operations=None), JOURNAL, broker=broker)[-1].level is Level.OK
    assert "shop.main.journal" not in broker.topics()
    broker.fail_next("create", DeniedError("denied"))
    assert (
        "Create on topic shop.main.journal" in found(Allowed(operations=None), JOURNAL, broker=broker)[0].text
    )


def test_a_transactional_id_is_tried() -> None:
    """Kafka has no request for what may be done with one."""
    broker = MemoryBroker()
    broker.fail_next("init", DeniedError("denied"), where="shop.main.doctor")
    assert "Write on transactional id shop.main." in found(Allowed(), FENCE, broker=broker)[0].text
    broker.fail_next("init", UnreachableError("no answer"), where="shop.main.doctor")
    assert found(Allowed(), FENCE, broker=broker)[0].level is Level.UNKNOWN


def test_what_brokers_do_not_tell_is_named() -> None:
    """Silence would read as permission."""
    first = found(Allowed(operations=None), GROUP)[0]
    assert first.level is Level.UNKNOWN
    assert first.text == "the brokers do not report the permissions on consumer group shop.workers"


def test_a_guessed_write_is_a_warning() -> None:
    """Declarations do not tell whether a group writes to the input of another one."""
    first = found(Allowed(operations=frozenset({R})), ORDERS, guessed=("orders",))[0]
    assert first.level is Level.WARNING
    assert first.hint == "if a group writes to it: grant it"


def test_a_refusal_for_another_reason_is_not_called_a_missing_permission() -> None:
    """An administrator would grant an ACL, and the start would fail again."""
    broker = MemoryBroker()
    reason = "init of shop.main.doctor: the transaction time-out is above the limit of the brokers"
    broker.fail_next("init", ConfigError(reason), where="shop.main.doctor")
    (only,) = run_check("permissions", lambda: found(Allowed(), FENCE, broker=broker))
    assert (only.level, only.text) == (Level.PROBLEM, reason)
