"""The decisions of recovery as tables: genesis, restore, and the outcome of a commit. Pure.

Each function maps facts to one plan or one error. The rows are numbered, and each has a test: in tests/core,
test_genesis_plan.py, test_recovery.py, test_outcomes.py and test_identity.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from pipeline.core.checkpoint_refs import CheckpointRef
from pipeline.core.entry_body import task_count
from pipeline.core.event_time import TIMERS_SCHEMA, WINDOW_SCHEMA
from pipeline.core.expiry import plain_schema
from pipeline.core.histories import HISTORY_SCHEMA
from pipeline.core.joins import JOIN_SCHEMA
from pipeline.core.journal_format import EntryKind, Identity, JournalEntry
from pipeline.core.names import is_replays
from pipeline.core.position import AppliedPosition
from pipeline.core.suggestions import counted
from pipeline.errors import CheckpointStoreError, ConfigError, FatalTaskError

__all__ = [
    "Candidate",
    "CommitOutcome",
    "GenesisPlan",
    "JournalFacts",
    "RestorePlan",
    "Start",
    "check_identity",
    "plan_genesis",
    "plan_restore",
    "resolve_outcome",
    "tail_is_lost",
]

NO_UPGRADES: Mapping[str, str] = {}
_START_OVER = (
    "start over with `pipeline reset`, which deletes the group's table rows and processes its input again"
)


class GenesisPlan(Enum):
    """What a worker does about a group's genesis when it starts."""

    CREATE = "create the journal and write genesis"
    WRITE = "write genesis"
    PRESENT = "nothing"


def plan_genesis(
    where: str,
    *,
    journal_exists: bool,
    with_genesis: int,
    written: int,
    partitions: int,
    traces: Sequence[str],
) -> GenesisPlan:
    """Decide whether a group is new, known, or has lost its journal.

    `with_genesis`: the number of journal partitions whose first committed entry is a genesis, or whose older entries
    were truncated. `written`: the number of partitions that contain, or contained, a committed entry. `traces`:
    evidence that the group existed before (local states, committed offsets). The genesis entries of all partitions
    are one transaction, so after a crash all of them exist or none.

        row  journal  genesis   written  traces   plan
        1    no       -         -        none     CREATE
        2    no       -         -        some     error: the journal is lost
        3    yes      all       all      any      PRESENT
        4    yes      none      none     none     WRITE (created, then crashed before genesis)
        5    yes      none      none     some     error: the journal is lost
        6    yes      otherwise                   error: some partitions lost their entries
    """
    hint = "restore the journal topic, or start over on purpose: runbooks/journal-lost.md"
    if not journal_exists:
        if not traces:
            return GenesisPlan.CREATE
        raise FatalTaskError(
            f"{where} existed before ({traces[0]}), but its journal topic is gone", hint=hint
        )
    if with_genesis == partitions:
        return GenesisPlan.PRESENT
    if with_genesis == 0 and written == 0:
        if not traces:
            return GenesisPlan.WRITE
        raise FatalTaskError(f"{where} existed before ({traces[0]}), but its journal is empty", hint=hint)
    raise FatalTaskError(
        f"{where}: {partitions - with_genesis} of {counted(partitions, 'journal partition')} without a genesis entry",
        hint=hint,
    )


class Start(Enum):
    """The state that a restore starts from."""

    LOCAL = "local state"
    CHECKPOINT = "a checkpoint"
    EMPTY = "an empty state"


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Replay the journal from `offset` on a state at `position`.

    For a `checkpoint`, `position` is read from its state after the copy, and `head` is the last entry that the state
    contains. `set_aside`: why the local state cannot be used. `outdated`: why no worker can ever use it again.
    """

    start: Start
    offset: int
    position: AppliedPosition | None
    set_aside: str | None = None
    outdated: str | None = None
    checkpoint: CheckpointRef | None = None
    head: JournalEntry | None = None


@dataclass(frozen=True, slots=True)
class JournalFacts:
    """The journal's first committed entry, the entry at the local state's offset, and the journal's offsets.

    `last_seq`: the seq of the last entry, which is needed if the local state does not match.
    """

    first: JournalEntry | None
    at_local: JournalEntry | None
    stable_end: int
    start: int = 0
    last_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A registered checkpoint and the journal's entry at its offset. `refused`: why it cannot be used."""

    ref: CheckpointRef
    found: JournalEntry | None
    refused: str | None = None

    @property
    def problem(self) -> str | None:
        """Why it cannot be used; None if no reason is known."""
        if self.refused is not None:
            return self.refused
        if self.found is None:
            return f"the journal has no entry at its offset {self.ref.offset}"
        if self.found.entry.seq != self.ref.seq or self.found.chain != self.ref.chain:
            return f"its entry {self.ref.seq} is not the one that the journal has at offset {self.ref.offset}"
        return None


def tail_is_lost(local: AppliedPosition | None, cluster_id: str, journal: JournalFacts) -> bool:
    """Whether a local state contains entries that its journal has lost: row 2 of `plan_restore`.

    Offsets alone do not show this, because aborted records and transaction markers also take offsets.
    """
    if local is None or local.identity.cluster_id != cluster_id:
        return False
    behind = journal.last_seq is not None and journal.last_seq < local.seq
    return behind or local.next_offset > journal.stable_end


def plan_restore(
    where: str,
    local: AppliedPosition | None,
    damage: str | None,
    cluster_id: str,
    journal: JournalFacts,
    checkpoints: Sequence[Candidate] = (),
    unavailable: str | None = None,
) -> RestorePlan:
    """Choose the state that a restore starts from. `damage`: why the local state could not be read.

    `checkpoints`: newest first. `unavailable`: why the checkpoint store is unreachable now.

    row  local                                       checkpoint       journal begins   plan
    1    at an entry of this journal, chain equal    any              anywhere         LOCAL
    2    of this cluster, after the last entry       any              anywhere         error: the tail is lost
    3    another history (chain, cluster)            none usable      at genesis       EMPTY, local set aside
    4    unreadable                                  none usable      at genesis       EMPTY, local set aside
    5    none                                        none usable      at genesis       EMPTY
    6    none, unreadable, another history, too old  none usable      later            error: nothing to restore from
    7    any (this row is decided first)             any              it is empty      error: the journal is lost
    8    another history, unreadable                 usable           anywhere         CHECKPOINT, local set aside
    9    none                                        usable           anywhere         CHECKPOINT
    10   before the journal's beginning              usable           later            CHECKPOINT, local outdated
    11   those of rows 3 to 5                        unreachable      at genesis       as rows 3 to 5
    12   those of rows 8 to 10                       unreachable      later            error: wait for the store

    CHECKPOINT: the newest usable one.

    A checkpoint is usable if it is not refused, and the journal's entry at its offset has its seq and chain value.
    Registration does not prove this: the journal may have been replaced since.
    """
    if journal.first is None:
        raise FatalTaskError(f"the journal of {where} holds no entry", hint="follow runbooks/journal-lost.md")
    unusable, outdated = damage, None
    if local is not None and unusable is None:
        found = journal.at_local
        if local.identity.cluster_id != cluster_id:
            unusable = f"it belongs to Kafka cluster {local.identity.cluster_id}, this is {cluster_id}"
        elif found is not None and found.entry.seq == local.seq and found.chain == local.chain:
            return RestorePlan(Start.LOCAL, local.next_offset, local)
        elif tail_is_lost(local, cluster_id, journal):
            raise FatalTaskError(
                f"the journal of {where} ends at offset {journal.stable_end}, but the local state has applied entry "
                f"{local.seq} at offset {local.offset}: Kafka lost committed records",
                hint="follow runbooks/journal-tail-lost.md before anything is processed",
            )
        elif local.offset < journal.start:
            outdated = f"its entry {local.seq} at offset {local.offset} is no longer in the journal"
        else:
            unusable = f"its entry {local.seq} is not the one that this journal has at offset {local.offset}"
    usable = next((c for c in checkpoints if c.problem is None and c.found is not None), None)
    if usable is not None and usable.found is not None and unavailable is None:
        next_offset = usable.found.next_offset
        return RestorePlan(Start.CHECKPOINT, next_offset, None, unusable, outdated, usable.ref, usable.found)
    if journal.first.entry.kind is EntryKind.GENESIS:
        return RestorePlan(Start.EMPTY, journal.first.offset, None, set_aside=unusable or outdated)
    if usable is not None:
        raise CheckpointStoreError(
            f"{where} can only be restored from a checkpoint: {unavailable}",
            hint="follow runbooks/checkpoint-store-unavailable.md",
        )
    raise FatalTaskError(
        f"nothing to restore {where} from: the journal begins at entry {journal.first.entry.seq}, "
        + _why_not(unusable or outdated, checkpoints),
        hint="follow runbooks/nothing-to-restore-from.md",
    )


def _why_not(unusable: str | None, checkpoints: Sequence[Candidate]) -> str:
    reasons = [f"the local state cannot be used: {unusable}" if unusable else "there is no local state"]
    reasons += [f"checkpoint {c.ref.seq} cannot be used: {c.problem}" for c in checkpoints]
    if not checkpoints:
        reasons.append("it names no checkpoint")
    return "; ".join(reasons)


class CommitOutcome(Enum):
    """The outcome of a commit."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"


def resolve_outcome(
    where: str, head: JournalEntry, nonces: Collection[bytes], found: Sequence[JournalEntry]
) -> tuple[CommitOutcome, JournalEntry]:
    """The outcome of this process's attempts, read after a fence. `found`: the first entries from `head` on.

    `head`: the last entry that is known to be committed. `nonces`: those of all attempts at the next entry. At most one
    of them can be committed, including one that an earlier read took for aborted. `found` needs at most three entries.

        row  found                          outcome
        1    head                           ABORTED
        2    head, one with a known nonce   COMMITTED
        3    head, anything else            SUPERSEDED: discard everything, plan a restore
        4    not starting with head         error: the journal lost its tail
    """
    if not found or found[0].chain != head.chain or found[0].offset != head.offset:
        raise FatalTaskError(
            f"the journal of {where} no longer holds entry {head.entry.seq} at offset {head.offset}, which was "
            "committed: Kafka lost committed records",
            hint="follow runbooks/journal-tail-lost.md before anything is processed",
        )
    if len(found) == 1:
        return CommitOutcome.ABORTED, head
    if len(found) == 2 and found[1].entry.nonce in nonces:
        return CommitOutcome.COMMITTED, found[1]
    return CommitOutcome.SUPERSEDED, found[-1]


def check_identity(
    where: str, before: Identity, now: Identity, upgrades: Mapping[str, str] = NO_UPGRADES
) -> list[str]:
    """Refuse topics and schemas that do not match a history. Raises ConfigError.

    Allowed: an additional input topic or table; a changed schema of a table whose values can be upgraded; a
    time-to-live of a table that was added or removed; a replays topic that does not exist, or that was created after
    this worker started; a new replays topic if the last owner found none (`core.dead_letters`). Refused: another
    cluster, a recreated topic, a changed partition count, a removed input or table, any other changed schema of a
    table.

    `upgrades`: for each table with `upgrade=`, the prefix that the stored fingerprint must have. The prefix is the
    schema of the keys, which must not change. Returns the names of the tables whose rows must be
    rewritten.
    """
    if before.cluster_id != now.cluster_id:
        raise ConfigError(
            f"{where} belongs to Kafka cluster {before.cluster_id}, this is {now.cluster_id}",
            hint="connect to its own cluster",
        )
    if before.partitioner != now.partitioner:
        raise ConfigError(
            f"{where} was partitioned by {before.partitioner}, this release uses {now.partitioner}",
            hint="use the release that wrote it",
        )
    for topic, facts in before.inputs.items():
        current = now.inputs.get(topic)
        if current is None and is_replays(topic):
            continue  # its id and position are kept
        if current is not None and current.topic_id != facts.topic_id and facts.absent:
            continue
        if current is None:
            raise ConfigError(
                f"{where} has read {topic}, and no handler reads it now",
                hint=f"restore the handler, or {_START_OVER}",
            )
        if current.topic_id != facts.topic_id:
            raise ConfigError(
                f"{where}: topic {topic} was deleted and created again; old positions are not valid in the new topic",
                hint="follow runbooks/topic-recreated.md",
            )
        if current.partitions != facts.partitions:
            raise ConfigError(
                f"{where}: topic {topic} had {counted(facts.partitions, 'partition')} and has {current.partitions}: "
                "keys have moved away from their state",
                hint="follow runbooks/partitions-changed.md",
            )
    if task_count(before) != task_count(now):
        raise ConfigError(
            f"{where} belongs to a group of {counted(task_count(before), 'task')}, and this is one of "
            f"{task_count(now)}",
            hint=f"declare {counted(task_count(before), 'task')}: the number never changes",
        )
    return _check_tables(where, before.tables, now.tables, upgrades)


def _check_tables(
    where: str, before: Mapping[str, str], now: Mapping[str, str], upgrades: Mapping[str, str]
) -> list[str]:
    changed = []
    for table, fingerprint in before.items():
        is_window = fingerprint.startswith(WINDOW_SCHEMA)
        is_history = fingerprint.startswith(HISTORY_SCHEMA)
        is_join = fingerprint.startswith(JOIN_SCHEMA)
        is_timers = fingerprint.startswith(TIMERS_SCHEMA)
        kind, key = (
            ("window", "size or the key")
            if is_window
            else ("history" if is_history else "timers" if is_timers else "table", "key")
        )
        if is_join:
            kind, key = "join", "topics or the key"
        if table not in now:
            raise ConfigError(
                f"{where}: {kind} {table} has state, and the app no longer declares it",
                hint=f"declare it again, or {_START_OVER}",
            )
        if now[table] == fingerprint:
            continue
        if plain_schema(now[table]) == plain_schema(fingerprint):  # a time-to-live was added or removed
            changed.append(table)
            continue
        another = (is_window or is_join) and not now[table].startswith(fingerprint.partition("->")[0])
        if table not in upgrades and not another:
            raise ConfigError(
                f"{where}: the schema of {kind} {table} changed\n  was {fingerprint}\n  now {now[table]}",
                hint="declare the old type again; or convert the rows: give the table upgrade=, a function from an old "
                f"value to a new one (help(pipeline.App.table) has an example); or {_START_OVER}",
            )
        if another or not plain_schema(fingerprint).startswith(plain_schema(upgrades[table])):
            raise ConfigError(
                f"{where}: the {key} of {kind} {table} changed, and only values can be upgraded\n"
                f"  was {fingerprint}\n  now {now[table]}",
                hint=f"keep the old {key}, or {_START_OVER}",
            )
        changed.append(table)
    return changed
