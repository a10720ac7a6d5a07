"""`settle_by_journal`: finds in the journal the outcome of commit attempts whose outcome is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from pipeline.config import WorkerSettings
from pipeline.core.journal_format import JournalEntry
from pipeline.core.names import TaskId
from pipeline.core.recovery import CommitOutcome, resolve_outcome
from pipeline.errors import FatalTaskError, StaleReadError, SupersededError, TruncatedError, UnreachableError
from pipeline.ports import error_fields, growing, task_fields
from pipeline.runtime.commit.journal_reader import read_entries, settled_end
from pipeline.runtime.commit.task_fence import TaskFence
from pipeline.runtime.environment import Environment

__all__ = ["settle_by_journal"]

# Increasing pauses between reads, while a broker shows only a part of the journal.
STALE_PAUSES_S = (0.1, 2.0)
BARRIER_LOOKS = 10  # after this many reads, a new barrier determines the journal's end
MAX_LOOKED_AT = 3  # entries from the head on: the head, the attempt's entry and one more are enough to decide


def settle_by_journal(
    task: TaskId,
    fence: TaskFence,
    head: JournalEntry,
    nonces: Sequence[bytes],
    environment: Environment,
    settings: WorkerSettings,
) -> tuple[JournalEntry | None, int]:
    """The entry of the committed attempt, or None if none was committed, and the journal's end. After a fence.

    Repeats the read with new readers until one of them reads far enough. Treats a missing head as truncated only
    after a barrier. Raises SupersededError if another owner has committed after `head`.
    """
    pause_s = growing(*STALE_PAUSES_S)
    proven = False
    looks = 0
    while True:
        looks += 1
        reader = environment.journals()
        try:
            end = settled_end(task, environment, settings, fence.fence, fence.known_end)
            found = islice(read_entries(task, reader, head.offset, end, None), MAX_LOOKED_AT)
            outcome, entry = resolve_outcome(str(task), head, nonces, list(found))
        except TruncatedError as error:
            # Only entries that later checkpoints contain are truncated, so other owners have committed after our head.
            raise SupersededError(f"task {task}: {error.message}") from error
        except (FatalTaskError, StaleReadError) as error:
            if isinstance(error, FatalTaskError) and proven:
                raise
            if fence.stopping:
                raise UnreachableError(error.message, hint=error.hint) from error
            environment.log.warning("journal_read_stale", **task_fields(task), **error_fields(error))
        else:
            if outcome is CommitOutcome.SUPERSEDED:
                raise SupersededError(
                    f"task {task}: {entry.entry.owner} committed entry {entry.entry.seq} meanwhile"
                )
            return (entry if outcome is CommitOutcome.COMMITTED else None), end
        finally:
            reader.close()
        if not proven or looks % BARRIER_LOOKS == 0:  # the record of the barrier may also be lost
            fence.barrier()
            proven = True
        else:
            environment.clock.sleep(pause_s())
