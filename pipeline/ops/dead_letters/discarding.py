"""Marks failed records as discarded, without replaying them.

The protocol is that of a replay, with the same fence, but only marks are written. A discard that was killed can be run
again. `Replayer` with `again` also replays discarded records.
"""

from __future__ import annotations

import msgspec

from pipeline.ops.dead_letters.letters import DeadLetter, LetterId
from pipeline.ops.dead_letters.marks import ReplayMark
from pipeline.ops.dead_letters.replaying import Replayer
from pipeline.transactions.engine import TransactionEngine

__all__ = ["Discarder"]


class Discarder(Replayer):
    """Discards failed records of one group. Use an object once, from one thread."""

    def _prepare(self) -> None:
        """Do nothing: a discard sends no replays, so it needs no topic for them."""

    def _refusal(self, found: DeadLetter) -> str | None:  # noqa: ARG002 - every record can be discarded
        return None

    def _mark(self, letter: DeadLetter, place: LetterId, nonce: str) -> ReplayMark:
        mark = super()._mark(letter, place, nonce)
        return msgspec.structs.replace(mark, times=mark.times - 1, replay=mark.replay - 1, discarded=True)

    def _send_letters(self, engine: TransactionEngine, batch: list[DeadLetter]) -> None:
        """Do nothing: only marks are sent."""
