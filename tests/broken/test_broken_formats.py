"""Broken on purpose: what writer and reader of the journal agree upon, so that only the checker can notice."""

from __future__ import annotations

import pytest

import pipeline.core.envelope
import pipeline.core.journal_format
import pipeline.runtime.checkpoints.upload
import pipeline.runtime.commit.commit_protocol
import pipeline.runtime.commit.journal_writer
from tests.support.breaking import Broken, Copy, name_of

STOPPED = "tests/runtime/test_worker.py stop_commits_what_is_open"
BYTES = "tests/test_durable_formats.py every_changed_byte"
CHECKPOINTED = "tests/runtime/checkpoints/test_checkpoints.py nothing_is_truncated_before"

ROWS = [
    Broken(
        "the chain does not cover the entries before it",
        pipeline.core.journal_format._next_chain,
        "    return blake2b(previous + body, digest_size=CHAIN_SIZE).digest()",
        "    return blake2b(body, digest_size=CHAIN_SIZE).digest()",
        STOPPED,
    ),
    Broken(
        "the checksum does not cover the payload",
        pipeline.core.envelope,
        "zlib.crc32(body, zlib.crc32(covered))",
        "zlib.crc32(covered)",
        STOPPED,
    ),
    Broken(
        "the checksum of a chunk does not cover its place",
        pipeline.core.journal_format._covered,
        "    return fields[17:] + fields[1:9]\n",
        '    return b""\n',
        STOPPED,
    ),
    Broken(
        "the checksum of a JSON envelope is ignored",
        pipeline.core.envelope.JsonEnvelope.verify,
        "        if sealed.checksum != json_checksum(sealed.body):\n",
        "        if False:\n",
        BYTES,
    ),
    Broken(
        "the checksum of suspects is ignored",
        pipeline.core.envelope.LineEnvelope.open,
        '        if checksum != b"%08x" % zlib.crc32(body):\n',
        "        if False:\n",
        BYTES,
    ),
    Broken(
        "an unknown version of a binary format is read",
        pipeline.core.envelope.BinaryEnvelope.open,
        "        if data[start] != self.version:\n",
        "        if False:\n",
        BYTES,
    ),
    Broken(
        "an entry does not count the bytes before it",
        pipeline.runtime.commit.journal_writer.JournalWriter._entry_of,
        "            journal_bytes=head.journal_bytes,\n",
        "",
        STOPPED,
    ),
    Broken(
        "an entry does not name the last checkpoint",
        pipeline.runtime.commit.journal_writer.JournalWriter._entry_of,
        "            checkpoint=head.checkpoint,\n",
        "",
        CHECKPOINTED,
    ),
    Broken(
        "a checkpoint is named with another chain than its entry's",
        pipeline.runtime.checkpoints.upload._ref,
        "        chain=applied.chain,\n        nonce=nonce,\n",
        "        chain=bytes(16),\n        nonce=nonce,\n",
        CHECKPOINTED,
    ),
    Broken(
        "all attempts have one nonce",
        pipeline.runtime.commit.commit_protocol._Publication.attempt,
        "        return self._environment.random.token(NONCE_BYTES)\n",
        "        return bytes(NONCE_BYTES)\n",
        STOPPED,
    ),
    Broken(
        "a commit has another owner than the acquire entry",
        pipeline.runtime.commit.journal_writer.JournalWriter._entry_of,
        "            owner=self._owner,\n",
        "            owner=self._owner if commit.identity is not None else self._owner * 2,\n",
        STOPPED,
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_format_is_noticed(broken: Broken, copied: Copy) -> None:
    """The checker decodes by itself, and does not believe what the package writes and reads back."""
    copied.assert_noticed(broken)
