"""Entries, states and identities for the tables of recovery."""

from __future__ import annotations

from pipeline.core.journal_format import Entry, EntryKind, Identity, InputFacts, JournalEntry
from pipeline.errors import PipelineError

TASK = "app/main/0"
IDENTITY = Identity(
    "cluster",
    "murmur2_random",
    {"in": InputFacts("id-1", 4), "more": InputFacts("id-2", 4)},
    {"t": "str->json:int", "u": "str->json:str"},
    "topology",
)


def journal_entry(
    seq: int, kind: EntryKind = EntryKind.COMMIT, *, nonce: bytes = b"n", chain: int = 0
) -> JournalEntry:
    """Entry `seq` at offset 2 * seq, followed by its marker."""
    entry = Entry(kind, seq, "w", nonce, {"in": seq})
    return JournalEntry(entry, seq * 2, seq * 2 + 1, bytes([chain or seq]) * 16)


def assert_helpful(error: PipelineError, *facts: str) -> None:
    """Check that the message contains the facts, and the hint a next step."""
    assert all(fact in error.message for fact in facts), error.message
    assert error.hint
