"""Broken on purpose: durable formats and names, which another build has written and will read.

Within one build nothing is wrong with these rows: it reads what it has written. Only what an earlier build has recorded
tells (`tests/compat/test_recorded.py`).
"""

from __future__ import annotations

import pytest

import pipeline.api.table
import pipeline.core.checkpoint
import pipeline.core.checkpoint_refs
import pipeline.core.dead_letters
import pipeline.core.dedup
import pipeline.core.journal_format
import pipeline.core.names
import pipeline.core.notes
import pipeline.core.position
import pipeline.databases.sql
import pipeline.ops.dead_letters.marks
import pipeline.ops.loading.positions
from tests.support.breaking import Broken, Copy, name_of

pytestmark = [pytest.mark.kafka, pytest.mark.kills]

RECORDED = "tests/compat/test_recorded.py"
NAMES = f"{RECORDED} no_name_is_new"
TABLES = f"{RECORDED} tables_of_an_earlier"
CHECKPOINTS = f"{RECORDED} checkpoints_of_an_earlier"
JOURNALS = f"{RECORDED} journals_of_an_earlier"

ROWS = [
    Broken(
        "chunks of entries have another version",
        pipeline.core.journal_format,
        'version: BinaryEnvelope(version=version, magic=b"XJ"',
        'version: BinaryEnvelope(version=version + 1, magic=b"XJ"',
        JOURNALS,
    ),
    Broken(
        "applied positions have another version",
        pipeline.core.position,
        "{version: BinaryEnvelope(version=version)",
        "{version: BinaryEnvelope(version=version + 1)",
        TABLES,
    ),
    Broken(
        "manifests have another version",
        pipeline.core.checkpoint,
        "version: BinaryEnvelope(version=version,",
        "version: BinaryEnvelope(version=version + 1,",
        CHECKPOINTS,
    ),
    Broken(
        "kept checkpoints have another version",
        pipeline.core.checkpoint_refs,
        "_ENVELOPE = BinaryEnvelope(version=1,",
        "_ENVELOPE = BinaryEnvelope(version=2,",
        CHECKPOINTS,
    ),
    Broken(
        "replays have another version",
        pipeline.core.dead_letters,
        "_ENVELOPE = BinaryEnvelope(version=1)",
        "_ENVELOPE = BinaryEnvelope(version=2)",
        f"{RECORDED} no_dead_letter_is_open",
    ),
    Broken(
        "marks of replays have another version",
        pipeline.ops.dead_letters.marks,
        '_ENVELOPE = JsonEnvelope(body="mark", version=1,',
        '_ENVELOPE = JsonEnvelope(body="mark", version=2,',
        f"{RECORDED} dead_letters_of_an_earlier",
    ),
    Broken(
        "positions of loads have another version",
        pipeline.ops.loading.positions,
        "version=2, older=(1,)",
        "version=3, older=(1,)",
        f"{RECORDED} loads_of_an_earlier",
    ),
    Broken(
        "notes of workers have another version",
        pipeline.core.notes,
        "_VERSION = 1\n",
        "_VERSION = 2\n",
        f"{RECORDED} status_finds_the_owners",
    ),
    Broken(
        "the prefix of a table's rows is another hash",
        pipeline.api.table.table_prefix,
        "prefix = blake2b(name.encode(), digest_size=4).digest()",
        'prefix = blake2b(name.encode() + b"/", digest_size=4).digest()',
        TABLES,
    ),
    Broken(
        "seen ids have another prefix",
        pipeline.core.dedup,
        '_IDS = b"\\x00di"',
        '_IDS = b"\\x00dk"',
        f"{RECORDED} outputs_continue_exactly and local",
    ),
    Broken(
        "positions of sinks are in another table",
        pipeline.databases.sql,
        'POSITIONS = "pipeline_positions"',
        'POSITIONS = "pipeline_offsets"',
        f"{RECORDED} rows_of_sinks and local",
    ),
    Broken(
        "journals have another name",
        pipeline.core.names.GroupId.journal_topic,
        'return f"{self.app}.{self.group}.journal"',
        'return f"{self.app}.{self.group}.entries"',
        JOURNALS,
    ),
    Broken(
        "a task has another transactional id",
        pipeline.core.names.TaskId.transactional_id,
        'return f"{self.app}.{self.group}.{self.number}"',
        'return f"{self.app}.{self.group}-{self.number}"',
        NAMES,
    ),
    Broken(
        "a load has another transactional id",
        pipeline.core.names.load_transactional_id,
        'return f"pipeline.load.{load}"',
        'return f"pipeline.loads.{load}"',
        NAMES,
    ),
    Broken(
        "a replay has another transactional id",
        pipeline.core.names.GroupId.replay_transactional_id,
        'return f"pipeline.replay.{self.app}.{self.group}"',
        'return f"pipeline.replays.{self.app}.{self.group}"',
        NAMES,
    ),
    Broken(
        "a service has another transactional id",
        pipeline.core.names.producer_transactional_id,
        'return f"pipeline.producer.{name}"',
        'return f"pipeline.producers.{name}"',
        f"{RECORDED} a_service_continues",
    ),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_changed_format_or_name_is_noticed(broken: Broken, copied: Copy) -> None:
    """A build that no longer reads the states of its predecessor is found before a user upgrades to it."""
    copied.assert_noticed(broken)
