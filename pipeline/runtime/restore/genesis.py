"""Genesis: the first start of a group creates its journal, and each later start verifies it.

    1 create the journal topic, check its configuration
    2 fence other first starts
    3 a barrier: the leaders of all journal partitions return their ends (transactions/proof.py)
    4 decide whether the group is new, known, or has lost its journal (core.recovery.plan_genesis)
    5 read the ends of the inputs that are not read from their first record
    6 write one genesis entry to each journal partition, in one transaction

A crash before 6 leaves a journal without entries, which the next start recognizes. After 6, the group exists. A
genesis entry that was read exists, so a known group needs no fence and no barrier. That there is none, or that
entries are lost, is concluded only after the barrier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import count

from pipeline.core.inputs import TaskInputs
from pipeline.core.journal_format import EntryKind, Identity
from pipeline.core.names import GroupId, TaskId, TopicPartition, checkpoint_prefix, is_replays
from pipeline.core.recovery import GenesisPlan, plan_genesis
from pipeline.core.suggestions import counted
from pipeline.errors import (
    AbortableError,
    ConfigError,
    FatalTaskError,
    FencedError,
    PipelineError,
    RetriableError,
    StaleReadError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Attempts, Deadline, Step, TopicInfo, TopicSpec, error_fields
from pipeline.runtime.commit.journal_reader import first_entry
from pipeline.runtime.commit.journal_writer import CHUNK_BYTES
from pipeline.runtime.environment import Environment
from pipeline.runtime.restore.seed import Seed, entries_of
from pipeline.transactions.engine import TransactionEngine
from pipeline.transactions.outcomes import commit_until_settled

__all__ = ["JOURNAL_CONFIG", "ensure_genesis"]

JOURNAL_CONFIG: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
}
# The chunks of an entry must fit, whatever the cluster's default limit is.
JOURNAL_MESSAGE_BYTES = 1_048_588
LEAST_JOURNAL_MESSAGE_BYTES = CHUNK_BYTES + 16 * 1024
ROUNDS = 10
AGAIN_S = (0.05, 0.5)
CREATED_S = 10.0
CREATED_POLL_S = 0.05
HALF_SEEN_S = 3.0
FIRST_READS = 5


def ensure_genesis(
    group: GroupId,
    task_count: int,
    identity: Identity,
    replication: int,
    *,
    environment: Environment,
    retry_backoff_ms: int,
    latest: bool = False,
    seed: Seed | None = None,
    allowed: Callable[[], None] | None = None,
) -> TopicInfo:
    """Ensure that each task of `group` has a genesis entry. Returns the journal topic.

    `retry_backoff_ms`: that of the client, by which a slow abort is detected. `latest`: the inputs are read from their
    current ends. These are read here, before any group of the app is live, because a group may read what another one
    writes. Existing replays are skipped: they belong to a discarded history, and the inputs contain its records.
    `seed`: what a new group starts with. `allowed`: called before a new group is written; raises if it must not be.

    Raises FatalTaskError if the group existed before and its journal does not, ConfigError if the journal has the wrong
    configuration or number of partitions, UnreachableError, CheckpointStoreError (it is unknown whether the group is
    new).
    """
    where = f"group {group.app}/{group.group}"
    tasks = [TaskId(group.app, group.group, partition) for partition in range(task_count)]
    journal = environment.cluster.describe([group.journal_topic]).get(group.journal_topic)
    if journal is None and (traces := _traces(tasks, environment)):
        journal = _read_again(group.journal_topic, environment)
        if journal is None:
            plan_genesis(
                where, journal_exists=False, with_genesis=0, written=0, partitions=task_count, traces=traces
            )
    if journal is None:
        journal = _create_journal(group, task_count, replication, environment)  # 1
    _check_journal(where, journal, task_count)
    known: set[TaskId] = set()  # tasks whose genesis was read: it exists
    factors = count(1)
    rounds = Attempts(environment.clock, ROUNDS, lambda: environment.random.uniform(*AGAIN_S) * next(factors))
    while not _are_known(where, tasks, environment, known):
        engine = TransactionEngine(
            group.genesis_transactional_id, environment.producers, environment.clock, retry_backoff_ms
        )
        try:
            commit_until_settled(
                engine, _Genesis(where, tasks, identity, known, environment, engine, latest, seed, allowed)
            )
        except FencedError:
            # Another first start runs at the same time. Either of the two may write; wait until it is done.
            environment.log.info("genesis_fenced", app=group.app, group=group.group)
        except (AbortableError, UnknownOutcomeError) as error:
            environment.log.warning(
                "genesis_outcome_unknown", app=group.app, group=group.group, **error_fields(error)
            )
        else:
            return journal
        finally:
            engine.close()
        if not rounds.pause():
            raise FatalTaskError(
                f"{where}: its genesis could not be written", hint="check the log for the reason"
            )
    return journal


class _Genesis:
    """`OutcomePolicy` of the transaction with all genesis entries of a group.

    The outcome is the same whether this process or another one has written them. So an attempt needs no nonce, and the
    read after a fence also runs before the first attempt. A failed attempt ends the round: the next one begins with a
    read without a fence, because the workers of a group that exists already write to the journal.
    """

    def __init__(
        self,
        where: str,
        tasks: list[TaskId],
        identity: Identity,
        known: set[TaskId],
        environment: Environment,
        engine: TransactionEngine,
        latest: bool,
        seed: Seed | None,
        allowed: Callable[[], None] | None,
    ) -> None:
        self._where = where
        self._tasks = tasks
        self._identity = identity
        self._known = known
        self._environment = environment
        self._engine = engine
        self._latest = latest
        self._seed = seed
        self._allowed = allowed
        self.fence = engine.fence  # 2

    def attempt(self) -> None:
        """Nothing distinguishes two attempts."""

    def settle(self, attempts: Sequence[None]) -> bool | None:
        """Steps 3 and 4. Returns True if each task has a genesis entry, None if the group is new."""
        environment, known, tasks = self._environment, self._known, self._tasks
        if attempts and _are_known(self._where, tasks, environment, known):
            return True  # and workers may write to the journal: no barrier
        ends = self._engine.barrier(task.journal for task in tasks if task not in known)  # 3
        if _plan(self._where, tasks, environment, ends, known) is GenesisPlan.PRESENT:  # 4
            return True
        if self._engine.fence_due:  # the abort may have been sent twice; reads after the barrier remain valid
            self._engine.fence()
        return None

    def transact(self, _attempt: None) -> bool:
        """Steps 5 and 6."""
        environment, engine, tasks = self._environment, self._engine, self._tasks
        if self._allowed is not None:
            self._allowed()
        positions = _ends(tasks, self._identity, environment, latest=self._latest)  # 5
        environment.steps.reached(Step.BEFORE_GENESIS, tasks[0])
        engine.begin()
        try:
            for task in tasks:  # 6
                start = {**positions[task], **(self._seed.positions(task) if self._seed is not None else {})}
                for chunks in entries_of(task, self._identity, start, self._seed, environment):
                    engine.append(task.journal, chunks)
            engine.flush()
            if self._seed is not None:
                self._seed.confirm()
        except PipelineError:
            if self._seed is not None:
                engine.abort()  # a seed may take minutes, and so may the time-out of its transaction
            raise
        environment.steps.reached(Step.DURING_GENESIS, tasks[0])
        engine.commit()
        environment.steps.reached(Step.AFTER_GENESIS, tasks[0])
        environment.log.info("genesis_written", app=tasks[0].app, group=tasks[0].group, task_count=len(tasks))
        return True

    def abort_failed(self, error: PipelineError) -> None:
        """The fence that follows ends the transaction."""

    def not_committed(self, error: PipelineError) -> None:
        """End the round."""
        raise error


def _ends(
    tasks: list[TaskId], identity: Identity, environment: Environment, *, latest: bool
) -> dict[TaskId, dict[str, int]]:
    """The ends of the inputs that are not read from their first record, for all tasks in one request."""
    topics = {
        topic: facts.partitions for topic, facts in identity.inputs.items() if latest or is_replays(topic)
    }
    found = {
        task: {
            name: place
            for name, place in TaskInputs(task.number, identity.tasks).all(topics).items()
            # If their partition count differs, the group is refused after its genesis (GroupPlan.check_replays).
            if place.partition < topics[place.topic]
        }
        for task in tasks
    }
    places = [place for inputs in found.values() for place in inputs.values()]
    if not places:
        return {task: {} for task in tasks}
    with closing(environment.journals()) as reader:
        ends = reader.highest_ends(places)
    return {task: {name: ends[place] for name, place in inputs.items()} for task, inputs in found.items()}


def _traces(tasks: list[TaskId], environment: Environment) -> list[str]:
    traces = [f"a local state of task {task}" for task in tasks if environment.stores.exists(task)]
    group = tasks[0].group_id.consumer_group
    if environment.cluster.committed(group):
        traces.append(f"committed offsets of consumer group {group}")
    if environment.checkpoints is not None:
        store, cluster_id = environment.checkpoints.store, environment.cluster.cluster_id()
        for task in tasks:
            if next(iter(store.objects(checkpoint_prefix(cluster_id, task))), None) is not None:
                traces.append(f"a checkpoint of task {task}")
                break
    return traces


def _has_state(task: TaskId, environment: Environment) -> bool:
    """Whether the state exists. A state that cannot be read is not a proof: the journal is read instead.

    The restore of that task then fails with the error, and the other tasks run.
    """
    try:
        return environment.stores.exists(task)
    except ConfigError:
        return False


def _are_known(where: str, tasks: list[TaskId], environment: Environment, known: set[TaskId]) -> bool:
    """Whether the genesis of each task was read, in several attempts, because a broker may give an old answer or none.

    Otherwise, the barrier would be written to journals that workers write to.
    """
    for attempt in range(FIRST_READS):
        try:
            if _read_plan(where, tasks, environment, {}, known) is GenesisPlan.PRESENT:
                return True
            if not known and attempt:
                return False  # a new group, according to two clients
        except (FatalTaskError, RetriableError, UnreachableError) as error:
            environment.log.info("genesis_not_read", **error_fields(error))
            environment.clock.sleep(environment.random.uniform(*AGAIN_S))
    return False


def _plan(
    where: str,
    tasks: list[TaskId],
    environment: Environment,
    ends: Mapping[TopicPartition, int],
    known: set[TaskId],
) -> GenesisPlan:
    """The plan, after a barrier that is at `ends`. A loss is concluded only if it persists.

    Workers that start together read while one of them writes: a transaction becomes visible partition by partition, and
    partitions are read one by one. A journal may also be truncated during the read.
    """
    deadline = _deadline(environment)
    while True:
        try:
            return _read_plan(where, tasks, environment, ends, known)
        except RetriableError as error:
            if not deadline.pause():
                raise UnreachableError(error.message, hint="check the brokers, then start again") from error
        except (FatalTaskError, UnreachableError):
            if not deadline.pause():
                raise


def _read_plan(
    where: str,
    tasks: list[TaskId],
    environment: Environment,
    ends: Mapping[TopicPartition, int],
    known: set[TaskId],
) -> GenesisPlan:
    """Read with a new reader; adds to `known`. Raises StaleReadError if it does not see the barrier's offset."""
    # A local state was restored from this journal. The restore that follows compares the two.
    known.update(task for task in tasks if _has_state(task, environment))
    written = len(known)
    # A partition whose first record is the barrier was empty.
    open_ones = [task for task in tasks if task not in known and ends.get(task.journal) != 0]
    with closing(environment.journals()) as reader:
        stable = reader.stable_ends([task.journal for task in open_ones]) if open_ones else {}
        for task in open_ones:
            stable_end = stable[task.journal]
            if stable_end <= ends.get(task.journal, -1):
                raise StaleReadError(f"{task.journal}: the queried broker reports its end at {stable_end}")
            if stable_end == 0:
                continue
            start = reader.bounds(task.journal).start
            first = first_entry(task, reader, start, stable_end)
            written += first is not None
            if first is not None and (first.entry.kind is EntryKind.GENESIS or start > 0):
                known.add(task)
    traces = _traces(tasks, environment) if not known else []
    return plan_genesis(
        where,
        journal_exists=True,
        with_genesis=len(known),
        written=written,
        partitions=len(tasks),
        traces=traces,
    )


def _read_again(topic: str, environment: Environment) -> TopicInfo | None:
    """Describe a topic that one broker does not know. None if it remains unknown."""
    deadline = _deadline(environment)
    while True:
        found = environment.cluster.describe([topic]).get(topic)
        if found is not None or not deadline.pause():
            return found


def _deadline(environment: Environment) -> Deadline:
    """A deadline with random pauses, so that workers that start together read at different times."""
    return Deadline(environment.clock, HALF_SEEN_S, lambda: environment.random.uniform(*AGAIN_S))


def _create_journal(group: GroupId, partitions: int, replication: int, environment: Environment) -> TopicInfo:
    name = group.journal_topic
    config = {**JOURNAL_CONFIG, "max.message.bytes": str(JOURNAL_MESSAGE_BYTES)}
    environment.cluster.create([TopicSpec(name, partitions, replication, config)])
    deadline = Deadline(environment.clock, CREATED_S, CREATED_POLL_S)
    while (journal := environment.cluster.describe([name]).get(name)) is None:
        # Another broker may answer than the one that created it, and its metadata is updated a moment later.
        if not deadline.pause():
            raise FatalTaskError(
                f"topic {name} was created, but did not appear within {CREATED_S:.0f} s",
                hint="check the brokers, then start again",
            )
    return journal


def _check_journal(where: str, journal: TopicInfo, partitions: int) -> None:
    if journal.partitions != partitions:
        raise ConfigError(
            f"{where}: its journal {journal.name} has {counted(journal.partitions, 'partition')}, and this worker "
            f"has chosen {counted(partitions, 'task')}: another worker has created it meanwhile",
            hint="start this worker again; all workers of an app must declare the same number of tasks",
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
                f"{where}: topic {journal.name} has {name}={actual}; a journal requires {wanted}",
                hint=f"pipeline topics set {journal.name} {name}={wanted}",
            )
