"""Broken on purpose: checkpoints, their manifests and what may be deleted."""

from __future__ import annotations

import pytest

import pipeline.core.checkpoint
import pipeline.core.recovery
import pipeline.runtime.checkpoints.checkpointer
import pipeline.runtime.checkpoints.upload
import pipeline.runtime.group_run
import pipeline.runtime.restore.genesis
import pipeline.runtime.restore.restore_source
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "the journal is truncated up to the entry that registered a checkpoint",
        pipeline.runtime.checkpoints.upload.clean_up,
        "            environment.cluster.truncate(task.journal, offset)  # 9\n",
        "            offset = environment.journals().bounds(task.journal).stable_end - 2\n"
        "            environment.cluster.truncate(task.journal, offset)  # 9\n",
        "tests/runtime/checkpoints/test_checkpoints.py oldest_kept_checkpoint",
    ),
    Broken(
        "the journal is truncated at the newest checkpoint instead of the oldest",
        pipeline.core.checkpoint.truncation_offset,
        "    return kept[-1].offset if len(kept) >= KEPT else None\n",
        "    return kept[0].offset if len(kept) >= KEPT else None\n",
        "tests/runtime/checkpoints/test_checkpoint_damage.py manifest_is_damaged",
    ),
    Broken(
        "the journal is truncated as soon as there is one checkpoint",
        pipeline.core.checkpoint.truncation_offset,
        "    return kept[-1].offset if len(kept) >= KEPT else None\n",
        "    return kept[-1].offset if kept else None\n",
        "tests/runtime/checkpoints/test_checkpoints.py before_there_are_three",
    ),
    Broken(
        "what may be deleted is looked up after the entry instead of before",
        pipeline.runtime.checkpoints.upload.clean_up,
        "        for name in made.cleanup:\n",
        "        kept = [(ref, read_manifest(store, cluster_id, task, ref)) for ref in made.kept]\n"
        "        for name in plan_cleanup(kept, list_objects(store, prefix, environment.clock.wall_ms()), 0.0):\n",
        "tests/runtime/checkpoints/test_checkpoint_zombies.py fenced_owner_deletes_only",
    ),
    Broken(
        "objects are deleted without the entry that lets go of them",
        pipeline.runtime.checkpoints.checkpointer.Checkpointer._enter,
        "        each.entered = True\n",
        "        each.entered = True\n"
        "        if self.environment.checkpoints is not None:\n"
        "            cluster_id, store = each.task.applied.identity.cluster_id, self.environment.checkpoints.store\n"
        "            clean_up(each.task.id, cluster_id, made, store, self.environment)\n",
        "tests/runtime/checkpoints/test_checkpoint_zombies.py entry_is_not_committed",
    ),
    Broken(
        "the grace age is ignored",
        pipeline.core.checkpoint.plan_cleanup,
        "name not in named and found.age_s >= grace_s",
        "name not in named",
        "tests/runtime/checkpoints/test_checkpoints.py young",
    ),
    Broken(
        "objects are deleted although a kept manifest cannot be read",
        pipeline.core.checkpoint.plan_cleanup,
        "        if manifest is None:\n            return ()\n",
        "        if manifest is None:\n            continue\n",
        "tests/runtime/checkpoints/test_checkpoint_damage.py cannot_be_read",
    ),
    Broken(
        "a downloaded object is not compared with its hash",
        pipeline.runtime.restore.restore_source.verified,
        "    if digest.digest() != file.digest:\n",
        "    if False:\n",
        "tests/runtime/checkpoints/test_checkpoint_damage.py with_a_damaged_object",
    ),
    Broken(
        "a manifest is not compared with what the journal says of it",
        pipeline.core.checkpoint.decode_manifest,
        "    if manifest_digest(data) != ref.digest:\n",
        "    if False:\n",
        "tests/core/test_checkpoint.py does_not_name",
    ),
    Broken(
        "a checkpoint of another history is used",
        pipeline.core.recovery.Candidate.problem,
        "        if self.found.entry.seq != self.ref.seq or self.found.chain != self.ref.chain:\n",
        "        if self.found.entry.seq != self.ref.seq:\n",
        "tests/core/test_recovery.py row_9",
    ),
    Broken(
        "an installed state is not asked where it stands",
        pipeline.runtime.restore.restore_source._install_checkpoint,
        "        if applied != manifest.applied:\n",
        "        if False:\n",
        "tests/runtime/checkpoints/test_checkpoint_damage.py another_state_than",
    ),
    Broken(
        "an object that no kept manifest names is used again",
        pipeline.core.checkpoint.plan_upload,
        "    planned, new = [], []\n",
        "    for name, found in listed.items():\n"
        "        if name.startswith('objects/'):\n"
        "            known.setdefault((bytes.fromhex(name[8:].split('-')[0]), found.size), name)\n"
        "    planned, new = [], []\n",
        "tests/core/test_checkpoint.py row_3",
    ),
    Broken(
        "an object that the store no longer has is named again",
        pipeline.core.checkpoint.plan_upload,
        "            if found is not None and found.size == file.size:\n",
        "            if True:\n",
        "tests/core/test_checkpoint.py row_2",
    ),
    Broken(
        "a manifest is written without another look at its objects",
        pipeline.runtime.checkpoints.upload.CheckpointUpload.run,
        "        self._check_there(manifest, there)  # 4\n",
        "",
        "tests/runtime/checkpoints/test_checkpoint_damage.py lost_by_the_store",
    ),
    Broken(
        "checkpoints of a group that lost its journal are no trace of it",
        pipeline.runtime.restore.genesis._traces,
        '                traces.append(f"a checkpoint of task {task}")\n',
        "                pass\n",
        "tests/runtime/checkpoints/test_checkpoint_choice.py no_new_group",
    ),
    Broken(
        "a task reads on however long its journal grows",
        pipeline.runtime.group_run.GroupRun.balance,
        "            if number in self._held:\n",
        "            if False:\n",
        "tests/runtime/checkpoints/test_checkpoint_outages.py pauses_the_intake",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
