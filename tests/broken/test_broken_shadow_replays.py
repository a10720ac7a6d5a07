"""Broken on purpose: what a shadow app reads and writes, where it begins, and what is compared with the live app."""

from __future__ import annotations

import pytest

import pipeline.drills.shadow_comparison
import pipeline.drills.shadow_outputs
import pipeline.drills.shadow_ports
import pipeline.drills.shadow_replay
import pipeline.drills.shadow_starts
import pipeline.drills.shadow_worker
from tests.support.breaking import Broken, Copy, name_of

_PORTS = "tests/drills/test_shadow_ports.py"
_OUTPUTS = "tests/drills/test_shadow_outputs.py"
_STARTS = "tests/drills/test_shadow_starts.py"
_TASKS = "tests/drills/test_shadow_tasks.py"
_REFUSALS = "tests/drills/test_refusals.py"
_COMPARISON = "tests/drills/test_shadow_comparison.py"
_SHADOW_ROWS = "tests/drills/test_shadow_rows.py"

ROWS = [
    Broken(
        "a replay processes the record at its end",
        pipeline.drills.shadow_ports._BoundedSource.poll,
        "if record.offset() < limit",
        "if record.offset() <= limit",
        f"{_PORTS} from_the_end_on",
    ),
    Broken(
        "a task that is not replayed reads its input",
        pipeline.drills.shadow_ports._BoundedSource.poll,
        "limit = self._limits.get(partition, 0)",
        "limit = self._limits.get(partition, 1 << 62)",
        f"{_PORTS} each_group",
    ),
    Broken(
        "a group ends where another one does",
        pipeline.drills.shadow_ports.BoundedSources.open,
        "if task.group == group:",
        "if True:",
        f"{_PORTS} each_group",
    ),
    Broken(
        "a shadow task commits between two commits of the live one",
        pipeline.drills.shadow_ports._BoundedSource._complete,
        "next((n for n, record in enumerate(held) if record.offset() >= last), len(held))",
        "len(held)",
        f"{_PORTS} up_to_commits",
    ),
    Broken(
        "records before the first boundary are held",
        pipeline.drills.shadow_ports._BoundedSource._complete,
        "if not reached:\n            return len(held)",
        "if not reached:\n            return 0",
        f"{_PORTS} before_the_first",
    ),
    Broken(
        "a rewind keeps the records that are held",
        pipeline.drills.shadow_ports._BoundedSource.rewind,
        "self._held.pop(partition, None)",
        "pass",
        f"{_PORTS} a_rewind",
    ),
    Broken(
        "a partition that leaves keeps the records that are held",
        pipeline.drills.shadow_ports._BoundedSource.unassign,
        "self._held.pop(partition, None)",
        "pass",
        f"{_PORTS} leave_with",
    ),
    Broken(
        "an output goes to the live topic",
        pipeline.drills.shadow_ports._ShadowProducer._redirected,
        "return Output(shadow, key",
        "return Output(topic, key",
        f"{_PORTS} outputs_go",
    ),
    Broken(
        "an output does not name its partition",
        pipeline.drills.shadow_worker._named,
        "[*(o[4] or ()), header]",
        "o[4]",
        f"{_TASKS} names_the_partition",
    ),
    Broken(
        "an output loses the headers of its handler",
        pipeline.drills.shadow_worker._named,
        "[*(o[4] or ()), header]",
        "[header]",
        f"{_TASKS} names_the_partition",
    ),
    Broken(
        "a shadow group has another number of tasks",
        pipeline.drills.shadow_worker._shadowed,
        "if task.group == group.name",
        "if False",
        f"{_TASKS} names_the_partition",
    ),
    Broken(
        "a replay begins before a reset of one partition",
        pipeline.drills.shadow_starts._earliest,
        "if history.partial:",
        "if False:",
        f"{_TASKS} before_a_reset_of_one",
    ),
    Broken(
        "replayed dead letters of the second partition are not noticed",
        pipeline.drills.shadow_starts._replays_of,
        "topic_of(name) == replays",
        "name == replays",
        f"{_TASKS} letters_of_any_partition",
    ),
    Broken(
        "the second partition of a task ends where the first one does",
        pipeline.drills.shadow_ports.BoundedSources.open,
        "limits[task.inputs.place(name)] = end",
        'limits[task.inputs.place(name)] = task.end[name.partition("/")[0]]',
        f"{_TASKS} its_own_end",
    ),
    Broken(
        "a shadow app writes to a topic without a shadow",
        pipeline.drills.shadow_ports._ShadowProducer._redirected,
        "shadow = self._outputs.get(topic)",
        "shadow = self._outputs.get(topic, topic)",
        f"{_PORTS} foreign_topic",
    ),
    Broken(
        "a shadow app opens the producer of the live one",
        pipeline.drills.shadow_ports.ShadowProducers.open,
        "if not transactional_id.startswith(prefix):",
        "if False:",
        f"{_PORTS} foreign_topic",
    ),
    Broken(
        "a shadow app writes to the live journal",
        pipeline.drills.shadow_ports._ShadowProducer.append,
        "if not journal.topic.startswith(self._own):",
        "if False:",
        f"{_PORTS} foreign_topic",
    ),
    Broken(
        "a replay with rows begins without them",
        pipeline.drills.shadow_starts._has_inputs,
        "entry.positions.get(name, -1) >= first",
        "True",
        f"{_STARTS} have_expired",
    ),
    Broken(
        "replayed dead letters are missing from a replay",
        pipeline.drills.shadow_starts._check_replays,
        "if last is not None and last.seq > start.seq:",
        "if False:",
        f"{_STARTS} refused_start",
    ),
    Broken(
        "the proposed start is deleted by the next checkpoint",
        pipeline.drills.shadow_starts,
        "_LASTING = 2",
        "_LASTING = 3",
        f"{_STARTS} outlives",
    ),
    Broken(
        "rows of another type are compared as bytes",
        pipeline.drills.shadow_starts._check_tables,
        "if changed:",
        "if False:",
        f"{_REFUSALS} code_of_the_live_app",
    ),
    Broken(
        "a replay of nothing holds",
        pipeline.drills.shadow_replay._not_empty,
        "if not found:",
        "if False:",
        f"{_REFUSALS} usable_start",
    ),
    Broken(
        "an output that is missing from the replay is not seen",
        pipeline.drills.shadow_outputs._different_start,
        "least <= len(theirs) <= len(ours)",
        "len(theirs) <= len(ours)",
        f"{_OUTPUTS} that_is_certain",
    ),
    Broken(
        "an output that only the replay has is not seen",
        pipeline.drills.shadow_outputs._different_start,
        "least <= len(theirs) <= len(ours)",
        "least <= len(theirs)",
        f"{_OUTPUTS} live_app_has_not",
    ),
    Broken(
        "headers of outputs are not compared",
        pipeline.drills.shadow_outputs._parts_of,
        "yield name.encode()\n            yield value",
        "pass",
        f"{_OUTPUTS} headers_and_partition",
    ),
    Broken(
        "partitions of outputs are not compared",
        pipeline.drills.shadow_outputs._collected,
        "if key is not None:",
        "if False:",
        f"{_OUTPUTS} headers_and_partition",
    ),
    Broken(
        "a null output is equal to an empty one",
        pipeline.drills.shadow_outputs._collected,
        'b"-" if part is None else',
        'b"+" + bytes(4) if part is None else',
        f"{_OUTPUTS} null_output",
    ),
    Broken(
        "the order of outputs of several partitions is compared",
        pipeline.drills.shadow_outputs.compare_outputs,
        "if len(other.sources) > 1 or key is None:",
        "if False:",
        f"{_OUTPUTS} order_within",
    ),
    Broken(
        "later outputs of the live app are missing from the replay",
        pipeline.drills.shadow_outputs._collected,
        "outputs.late.append(offset >= certain",
        "outputs.late.append(False and offset >= certain",
        f"{_OUTPUTS} later_commits",
    ),
    Broken(
        "a compacted topic is compared",
        pipeline.drills.shadow_comparison.compare_topics,
        """if "compact" in info.config.get("cleanup.policy", ""):""",
        "if False:",
        f"{_COMPARISON} compacted",
    ),
    Broken(
        "outputs of tasks that are not replayed are missed",
        pipeline.drills.shadow_comparison.compare_topics,
        "if partial:",
        "if False:",
        f"{_COMPARISON} part_of_the_tasks",
    ),
    Broken(
        "rows of ids that drop duplicates are compared",
        pipeline.drills.shadow_comparison._rows,
        '(row for row in rows if row[0].key[:1] != b"\\0")',
        "rows",
        f"{_COMPARISON} drop_duplicates",
    ),
    Broken(
        "a different row is said to differ from the end on",
        pipeline.drills.shadow_comparison.first_offset,
        "different = min(different, low)",
        "pass",
        f"{_SHADOW_ROWS} same_positions",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_replay_is_noticed(copied: Copy, broken: Broken) -> None:
    """A replay that reads, writes or compares the wrong records proves nothing."""
    copied.assert_noticed(broken)
