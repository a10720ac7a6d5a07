"""What a new group starts with, if it is not nothing: `Seed`, the positions and rows of another program.

The entries of all tasks are in the transaction of the genesis: after a crash all of them exist, or none. The first one
is the genesis entry. The rows follow in entries of their own, so that no entry has to hold a whole table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from pipeline.core.dead_letter_count import NO_LETTERS
from pipeline.core.entry_body import format_of
from pipeline.core.journal_format import NO_CHAIN, Entry, EntryKind, Identity, encode_entry
from pipeline.core.names import TaskId
from pipeline.errors import ConfigError
from pipeline.runtime.commit.commit_protocol import NONCE_BYTES
from pipeline.runtime.commit.journal_writer import CHUNK_BYTES
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import GroupPlan

__all__ = ["Seed", "entries_of", "refuse_other_program"]


class Seed(Protocol):
    """The state of another program. Its methods are called inside the transaction, and again in each attempt."""

    @property
    def owner(self) -> str:
        """Who writes the entries, for people."""
        ...

    @property
    def extra(self) -> Mapping[str, bytes]:
        """The extra of the genesis entries, by which the origin of the group is known later."""
        ...

    def positions(self, task: TaskId) -> Mapping[str, int]:
        """The position of each input of the task, by name."""
        ...

    def rows(self, task: TaskId) -> Iterator[Mapping[bytes, bytes]]:
        """The rows of the task by full key, in parts of a few MiB."""
        ...

    def confirm(self) -> None:
        """Raise PipelineError if the other program has run meanwhile. Called when all entries are delivered."""
        ...


def entries_of(
    task: TaskId,
    identity: Identity,
    positions: Mapping[str, int],
    seed: Seed | None,
    environment: Environment,
) -> Iterator[list[bytes]]:
    """The first entries of a task, each as its chunks. Without a seed, there is one."""
    version = format_of(identity)
    chain, seq, written = NO_CHAIN, 0, 0

    def encoded(kind: EntryKind, delta: Mapping[bytes, bytes | None]) -> list[bytes]:
        nonlocal chain, seq, written
        is_genesis = kind is EntryKind.GENESIS
        seq += 1
        entry = Entry(
            kind=kind,
            seq=seq,
            owner=seed.owner if seed is not None else "",
            nonce=environment.random.token(NONCE_BYTES),
            positions=dict(positions),
            delta=dict(delta),
            identity=identity if is_genesis else None,
            wall_ms=environment.clock.wall_ms(),
            extra=dict(seed.extra) if seed is not None and is_genesis else {},
            journal_bytes=written,
            letters=NO_LETTERS,
        )
        chunks, chain = encode_entry(entry, chain, CHUNK_BYTES, version)
        written += sum(map(len, chunks))
        return chunks

    yield encoded(EntryKind.GENESIS, {})
    if seed is not None:
        for rows in seed.rows(task):
            yield encoded(EntryKind.COMMIT, rows)


def refuse_other_program(plan: GroupPlan, environment: Environment) -> None:
    """Refuse a new group whose inputs another program has read: it would process them again, with empty tables.

    Raises ConfigError.
    """
    if not plan.replaces:
        return
    topics = {topic.name for topic in plan.group.inputs}
    read = sorted(
        {place.topic for place in environment.cluster.committed(plan.replaces) if place.topic in topics}
    )
    if read:
        raise ConfigError(
            f"app {plan.id.app} has run as another program: consumer group {plan.replaces} has positions in "
            f"{', '.join(read)}, and group {plan.id.app}/{plan.id.group} is new",
            hint="take over its positions and tables with pipeline faust migrate MODULE:APP, or start with empty "
            "tables at the beginning of the inputs with pipeline faust migrate MODULE:APP --fresh",
        )
