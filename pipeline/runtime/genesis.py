"""Genesis: what the first start of a group creates, and what every later start verifies.

    1 create the journal topic, check its configuration
    2 fence other first starts
    3 look: is this group new, known, or has it lost its journal (core.recovery.plan_genesis)
    4 write one genesis entry to every journal partition, in one transaction

A crash between 1 and 4 leaves an empty journal, which the next start takes for what it is; after 4, a group.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.core.journal import NO_CHAIN, Entry, Identity, Kind, encode_entry
from pipeline.core.letter_count import NO_LETTERS
from pipeline.core.names import GroupId, TaskId, TopicPartition, checkpoint_prefix, is_replays
from pipeline.core.recovery import GenesisPlan, plan_genesis
from pipeline.errors import (
    AbortableError,
    ConfigError,
    FatalTaskError,
    FencedError,
    RetriableError,
    UnknownOutcomeError,
)
from pipeline.ports import Step, TopicInfo, TopicSpec
from pipeline.runtime.journal import first_entry
from pipeline.runtime.publisher import CHUNK_BYTES, NONCE_BYTES
from pipeline.runtime.world import World

__all__ = ["JOURNAL_CONFIG", "ensure_genesis"]

JOURNAL_CONFIG: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
}
# An entry's chunks must fit, whatever the cluster's own limit is.
JOURNAL_MESSAGE_BYTES = 1_048_588
LEAST_JOURNAL_MESSAGE_BYTES = CHUNK_BYTES + 16 * 1024
MAX_ATTEMPTS = 10
AGAIN_S = (0.05, 0.5)
CREATED_S = 10.0
HALF_SEEN_S = 3.0


def ensure_genesis(
    group: GroupId,
    partitions: int,
    identity: Identity,
    replication: int,
    *,
    world: World,
    latest: bool = False,
) -> None:
    """Make sure that every task of `group` has a genesis entry.

    `latest`: its inputs are to be read from where they end now. That is settled here, before any group of the app
    is live: where one reads what another writes, later would be too late. Replays that are there already always are
    of a history that was given up: its records come from the inputs themselves.

    Raises FatalTaskError when the group existed before and its journal does not, ConfigError when the journal
    has the wrong configuration or number of partitions, UnreachableError, CheckpointStoreError (it cannot be told
    whether the group is new).
    """
    where = f"group {group.app}/{group.group}"
    tasks = [TaskId(group.app, group.group, partition) for partition in range(partitions)]
    journal = world.cluster.describe([group.journal_topic]).get(group.journal_topic)
    if journal is None:
        plan_genesis(
            where,
            journal_exists=False,
            with_genesis=0,
            written=0,
            partitions=partitions,
            traces=_traces(tasks, world),
        )
        journal = _create_journal(group, partitions, replication, world)  # 1
    _check_journal(where, journal, partitions, identity)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        if _plan(where, tasks, world) is GenesisPlan.PRESENT:
            return
        producer = world.producers.open(group.genesis_transactional_id)
        try:
            producer.init()  # 2
            if _plan(where, tasks, world) is GenesisPlan.PRESENT:  # 3
                return
            world.steps.reached(Step.BEFORE_GENESIS, tasks[0])
            producer.begin()
            for task in tasks:  # 4
                entry = Entry(
                    kind=Kind.GENESIS,
                    seq=1,
                    owner="",
                    nonce=world.random.token(NONCE_BYTES),
                    positions=_ends(task, identity, world, latest=latest),
                    identity=identity,
                    wall_ms=world.clock.wall_ms(),
                    letters=NO_LETTERS,
                )
                producer.append(task.journal, encode_entry(entry, NO_CHAIN, CHUNK_BYTES)[0])
            producer.flush()
            world.steps.reached(Step.DURING_GENESIS, tasks[0])
            producer.commit()
            world.steps.reached(Step.AFTER_GENESIS, tasks[0])
            world.log.info("genesis_written", app=group.app, group=group.group, tasks=partitions)
        except FencedError:
            # Another worker starts for the first time, too. Either of the two will do; wait for it to be done.
            world.log.info("genesis_left_to_another", app=group.app, group=group.group)
            world.clock.sleep(world.random.uniform(*AGAIN_S) * attempt)
        except (AbortableError, UnknownOutcomeError) as error:
            world.log.warning("genesis_uncertain", app=group.app, group=group.group, error=error.message)
            world.clock.sleep(world.random.uniform(*AGAIN_S))
        else:
            return
        finally:
            producer.close()
    raise FatalTaskError(f"{where}: its genesis could not be written", hint="check the log for the reason")


def _ends(task: TaskId, identity: Identity, world: World, *, latest: bool) -> dict[str, int]:
    """Where the inputs end that are not to be read from their beginning."""
    reader = world.journals()
    try:
        return {
            topic: reader.bounds(TopicPartition(topic, task.partition)).stable_end
            for topic, facts in identity.inputs.items()
            # Where those have other partitions, the group is refused after its genesis (GroupPlan.check_replays).
            if (latest or is_replays(topic)) and task.partition < facts.partitions
        }
    finally:
        reader.close()


def _traces(tasks: list[TaskId], world: World) -> list[str]:
    traces = [f"a local state of task {task}" for task in tasks if world.stores.exists(task)]
    group = tasks[0].group_id.consumer_group
    if world.cluster.committed(group):
        traces.append(f"committed offsets of consumer group {group}")
    if world.checkpoints is not None:
        store, cluster_id = world.checkpoints.store, world.cluster.cluster_id()
        for task in tasks:
            if next(iter(store.objects(checkpoint_prefix(cluster_id, task))), None) is not None:
                traces.append(f"a checkpoint of task {task}")
                break
    return traces


def _plan(where: str, tasks: list[TaskId], world: World) -> GenesisPlan:
    """What to do. A loss is believed only when it stays.

    Workers that start together look while one of them writes: a transaction becomes visible in one partition
    after the other, and partitions are looked at one after the other. And a journal may be truncated meanwhile.
    """
    deadline = world.clock.monotonic_s() + HALF_SEEN_S
    while True:
        try:
            return _look(where, tasks, world)
        except (FatalTaskError, RetriableError):
            if world.clock.monotonic_s() >= deadline:
                raise
        world.clock.sleep(world.random.uniform(*AGAIN_S))


def _look(where: str, tasks: list[TaskId], world: World) -> GenesisPlan:
    with_genesis = written = 0
    reader = world.journals()
    try:
        for task in tasks:
            if world.stores.exists(task):
                # Somebody has restored from this journal, and the restore that follows compares the two.
                written += 1
                with_genesis += 1
                continue
            bounds = reader.bounds(task.journal)
            first = first_entry(task, reader, bounds.start, bounds.stable_end)
            if first is not None:
                written += 1
                with_genesis += first.entry.kind is Kind.GENESIS or bounds.start > 0
    finally:
        reader.close()
    traces = _traces(tasks, world) if with_genesis == 0 else []
    return plan_genesis(
        where,
        journal_exists=True,
        with_genesis=with_genesis,
        written=written,
        partitions=len(tasks),
        traces=traces,
    )


def _create_journal(group: GroupId, partitions: int, replication: int, world: World) -> TopicInfo:
    name = group.journal_topic
    config = {**JOURNAL_CONFIG, "max.message.bytes": str(JOURNAL_MESSAGE_BYTES)}
    world.cluster.create([TopicSpec(name, partitions, replication, config)])
    deadline = world.clock.monotonic_s() + CREATED_S
    while (journal := world.cluster.describe([name]).get(name)) is None:
        # The node that answers need not be the one that created it, and hears of it a moment later.
        if world.clock.monotonic_s() >= deadline:
            raise FatalTaskError(
                f"topic {name} was created and is not there after {CREATED_S:.0f} s",
                hint="check the brokers, then start again",
            )
        world.clock.sleep(0.05)
    return journal


def _check_journal(where: str, journal: TopicInfo, partitions: int, identity: Identity) -> None:
    if journal.partitions != partitions:
        raise ConfigError(
            f"{where}: its journal {journal.name} has {journal.partitions} partitions, its input "
            f"{', '.join(identity.inputs)} has {partitions}: keys have moved away from their state",
            hint="follow runbooks/partitions-changed.md",
        )
    limit = int(journal.config.get("max.message.bytes", JOURNAL_MESSAGE_BYTES))
    if limit < LEAST_JOURNAL_MESSAGE_BYTES:
        raise ConfigError(
            f"{where}: topic {journal.name} has max.message.bytes={limit}; entries need {LEAST_JOURNAL_MESSAGE_BYTES}",
            hint=f"pipeline topics set {journal.name} max.message.bytes={JOURNAL_MESSAGE_BYTES}",
        )
    for name, wanted in JOURNAL_CONFIG.items():
        actual = journal.config.get(name, wanted)
        if actual != wanted:
            raise ConfigError(
                f"{where}: topic {journal.name} has {name}={actual}; the journal is the authority and needs {wanted}",
                hint=f"pipeline topics set {journal.name} {name}={wanted}",
            )
