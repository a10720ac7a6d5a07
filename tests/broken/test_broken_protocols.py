"""A test of the tests: each row breaks one rule of the protocol on purpose, and a named test must fail.

The package is copied once; for each row one piece of its text is replaced, the named tests run on the copy, and the
text is put back. What is compiled is kept from row to row. A row whose text is no longer found fails, too, so that the
table follows the code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
WORKER = "tests/runtime/test_worker.py"
CHECKPOINTS = "tests/runtime/test_checkpoints.py"
DEDUP = "tests/runtime/test_dedup.py"
DEDUP_TABLE = "tests/runtime/test_dedup_table.py"
SINKS = "tests/runtime/test_sinks.py"
SESSIONS = "tests/sinks/test_session_contract.py"
LOADER = "tests/client/test_loader.py"
REPLAYING = "tests/client/test_replaying.py"
PLAN = "tests/client/topics/test_plan.py"


class Broken(NamedTuple):
    """`text` in `file` becomes `instead`; `test` (a node id, or -k expression behind a space) must fail."""

    rule: str
    file: str
    text: str
    instead: str
    test: str


ROWS = [
    Broken(
        "apply before the commit",
        "runtime/publisher.py",
        "        steps.reached(Step.DURING_COMMIT, task)\n",
        "        self._apply(commit, make_journal_entry(entry, chain, offset, chunks))\n"
        "        steps.reached(Step.DURING_COMMIT, task)\n",
        f"{WORKER} crash_at_each_commit_step",
    ),
    Broken(
        "no renewal after a doubtful commit: do it again",
        "runtime/publisher.py",
        "                resolved = self._renew(nonce)\n            else:",
        "                resolved = None\n            else:",
        f"{WORKER} unknown_outcome",
    ),
    Broken(
        "no renewal after a doubtful commit: take it for done",
        "core/recovery.py",
        "    if len(found) == 1:\n        return Outcome.ABORTED, head\n",
        "    if len(found) == 1:\n        return Outcome.COMMITTED, head\n",
        f"{WORKER} unknown_outcome",
    ),
    Broken(
        "the nonce is ignored",
        "core/recovery.py",
        "nonce is not None and found[1].entry.nonce == nonce",
        "nonce is not None",
        f"{WORKER} in_between",
    ),
    Broken(
        "the journal's new entries are ignored after a renewal",
        "core/recovery.py",
        "    return Outcome.SUPERSEDED, found[-1]\n",
        "    return Outcome.ABORTED, head\n",
        f"{WORKER} between_a_doubtful",
    ),
    Broken(
        "the chain of a local state is ignored",
        "core/recovery.py",
        "found.entry.seq == local.seq and found.chain == local.chain",
        "found.entry.seq == local.seq",
        f"{WORKER} another_history",
    ),
    Broken(
        "a local state beyond the journal's end is accepted",
        "core/recovery.py",
        "        elif local.next_offset > journal.stable_end:",
        "        elif False:",
        f"{WORKER} lost_its_tail",
    ),
    Broken(
        "an app that lost its journal is taken for a new one",
        "runtime/genesis.py",
        "    return traces\n",
        "    return []\n",
        f"{WORKER} journal_topic_that_is_gone",
    ),
    Broken(
        "a topic recreated under a running worker goes unnoticed",
        "runtime/plan.py",
        "        if current.topic_id != facts.topic_id:",
        "        if False:",
        f"{WORKER} created_again",
    ),
    Broken(
        "positions of the restored entry are ignored",
        "runtime/restore.py",
        "positions = {**applied.positions, **",
        "positions = {**dict.fromkeys(applied.positions, 0), **",
        f"{WORKER} crash_at_each_commit_step",
    ),
    Broken(
        "a read at the start of the journal ends one entry early",
        "runtime/restore.py",
        "read_entries(task, reader, plan.offset, end, head)",
        "read_entries(task, reader, plan.offset, end - 2, head)",
        f"{WORKER} crash_at_each_commit_step",
    ),
    Broken(
        "a record that raises keeps what it wrote",
        "table.py",
        "            table.restore(slot, value, data, dirty=dirty)",
        "            pass",
        "tests/runtime/test_processor.py",
    ),
    Broken(
        "a later mutation reaches the stored value",
        "codecs.py",
        "    immutable = is_immutable(declared)\n",
        "    immutable = True\n",
        "tests/test_table.py",
    ),
    Broken(
        "the low offset of an entry after a lost tail is ignored",
        "runtime/publisher.py",
        "        if offset <= head.next_offset:",
        "        if False:",
        f"{WORKER} under_a_running_worker_stops",
    ),
    Broken(
        "a slow commit does not renew the producer",
        "runtime/publisher.py",
        "RENEW_SHARE = 0.7",
        "RENEW_SHARE = 1e9",
        "tests/runtime/test_publisher.py silent_retry",
    ),
    Broken(
        "no fence: every start has a transactional id of its own",
        "runtime/publisher.py",
        "self._world.producers.open(self._task.transactional_id)",
        'self._world.producers.open(f"{self._task.transactional_id}.{self._world.random.token(4).hex()}")',
        "tests/runtime/test_fleet.py wakes_up",
    ),
    Broken(
        "a restore reads the journal's end before it fences",
        "runtime/restore.py",
        "        publisher.fence()  # 1\n"
        "        world.steps.reached(Step.AFTER_FENCE, task)\n"
        "        for _ in range(MAX_PLANS):\n"
        "            end = settled_end(task, reader, world, settings, publisher.fence)  # 2\n",
        "        for _ in range(MAX_PLANS):\n"
        "            end = settled_end(task, reader, world, settings, publisher.fence)  # 2\n"
        "            publisher.fence()  # 1\n"
        "            world.steps.reached(Step.AFTER_FENCE, task)\n",
        "tests/runtime/test_restore.py wakes_up",
    ),
    Broken(
        "positions are taken from the consumer group's offsets",
        "runtime/restore.py",
        "positions = {**applied.positions, **",
        "positions = {\n"
        "                **applied.positions,\n"
        "                **{\n"
        "                    place.topic: position\n"
        "                    for place, position in world.cluster.committed(task.group_id.consumer_group).items()\n"
        "                    if place.partition == task.partition\n"
        "                },\n"
        "                **",
        "tests/runtime/test_restore.py consumer_group",
    ),
    Broken(
        "a batch that was consumed before an abort is kept",
        "runtime/group_run.py",
        "            self.source.unassign(self.plan.partitions_of(partition))\n",
        "            kept, assign = dict(task.positions), self.source.assign\n"
        "            self.source.unassign(self.plan.partitions_of(partition))\n"
        "            self.source.assign = lambda places: assign({tp: kept[tp.topic] for tp in places})\n",
        f"{WORKER} fence_in_the_middle",
    ),
    Broken(
        "what a dropped task has written is kept",
        "runtime/task.py",
        "        self._overlay = TaskOverlay()\n",
        '        self._overlay = vars(world.cluster).setdefault("kept", TaskOverlay())\n',
        f"{WORKER} fence_in_the_middle",
    ),
    Broken(
        "the seq of an entry is ignored when a journal is read",
        "core/journal.py",
        "        if seq != previous.entry.seq + 1:\n",
        "        if False:\n",
        "tests/core/test_journal.py gap_between",
    ),
    Broken(
        "the chain of an entry is ignored when a journal is read",
        "core/journal.py",
        "        if chain != _next_chain(previous.chain, body):\n",
        "        if False:\n",
        "tests/core/test_journal.py another_history",
    ),
    Broken(
        "positions that fall are ignored when a journal is read",
        "core/journal.py",
        "        if after.get(topic, -1) < position:\n",
        "        if False:\n",
        "tests/core/test_journal.py fall_or_vanish",
    ),
    Broken(
        "a group whose journal is empty is taken for a new one whatever it left elsewhere",
        "core/recovery.py",
        "    if with_genesis == 0 and written == 0:\n        if not traces:\n",
        "    if with_genesis == 0 and written == 0:\n        if True:\n",
        "tests/core/test_recovery.py row_5",
    ),
    Broken(
        "a record that the client had no room for is taken for sent",
        "kafka/producer.py",
        "                    self._send_when_there_is_room(output)\n",
        "                    pass\n",
        "tests/contracts/test_short_counts.py finds_the_queue_full",
    ),
    Broken(
        "a flush that leaves records behind is taken for success",
        "kafka/producer.py",
        "        if left or delivered != self._chunks:\n",
        "        if False:\n",
        "tests/contracts/test_short_counts.py leaves_records_behind",
    ),
    Broken(
        "a later position reaches a sealed commit",
        "runtime/task.py",
        "Commit(Kind.COMMIT, dict(self._positions), delta, outputs)",
        "Commit(Kind.COMMIT, self._positions, delta, outputs)",
        "tests/runtime/test_task.py after_the_seal",
    ),
    Broken(
        "a later output reaches a sealed commit",
        "runtime/task.py",
        "outputs = self.context.take_outputs()",
        "outputs = self.context.outputs",
        "tests/runtime/test_task.py after_the_seal",
    ),
    Broken(
        "a later write reaches a sealed commit",
        "table.py",
        "        slot[_VALUE] = decoded if self._fresh is None else data\n        slot[_DATA] = data\n",
        "        slot[_VALUE] = decoded if self._fresh is None else data\n"
        "        slot[_DATA] = data\n"
        "        if slot[_FULL_KEY] in self._overlay.sealed:\n"
        "            self._overlay.sealed[slot[_FULL_KEY]] = data\n",
        "tests/test_table.py sealed_overlay",
    ),
    Broken(
        "a reset keeps the rows of before",
        "runtime/restore.py",
        "            store.clear(encode_position(applied))\n",
        "            pass\n",
        "tests/runtime/test_reset.py wherever_its_state_is",
    ),
    Broken(
        "an idle task does not look whether it was fenced",
        "runtime/upkeep.py",
        "            self._begin_looks()\n",
        "            pass\n",
        "tests/runtime/test_reset.py begins_at_an_offset",
    ),
    Broken(
        "the ring does not look at who owns what",
        "core/membership.py",
        "{worker: member.weight for worker, member in members.items()}, owners)",
        "{worker: member.weight for worker, member in members.items()})",
        "tests/runtime/test_fleet.py others_never_stop",
    ),
    Broken(
        "workers that start take what nobody has before they know each other",
        "core/membership.py",
        "if mine or (settled and not roster.is_running(task)):",
        "if mine or not roster.is_running(task):",
        "tests/runtime/test_fleet.py without_a_fight",
    ),
    Broken(
        "a worker claims what another one runs",
        "core/membership.py",
        "if mine or (settled and not roster.is_running(task)):",
        "if mine or settled:",
        "tests/runtime/test_fleet.py never_stop",
    ),
    Broken(
        "a late note turns owners back",
        "runtime/sharing/roster.py",
        "if known is None or about.order >= known.order:",
        "if True:",
        "tests/runtime/test_roster.py later_entry",
    ),
    Broken(
        "the ghost of a restarted worker counts",
        "core/membership.py",
        "for member in sorted(self.members, key=lambda member: member.age):",
        "for member in sorted(self.members, key=lambda member: member.age, reverse=True):",
        "tests/runtime/test_fleet.py before_it_was_missed",
    ),
    Broken(
        "who has said that it leaves is waited for",
        "core/membership.py",
        "            if member.process not in self.departed:\n                found[",
        "            if True:\n                found[",
        "tests/runtime/test_fleet.py is_stopped",
    ),
    Broken(
        "two versions with different tasks share one ring",
        "core/membership.py",
        "if member.parameters == parameters}",
        "if parameters}",
        "tests/runtime/test_fleet.py of_another_version",
    ),
    Broken(
        "a fenced worker takes the task back without asking who has it",
        "runtime/worker.py",
        '            self._fences.pop(task, None)\n            self._world.log.warning("task_taken_over"',
        "            self._begin_restore(self._run_of(task), task)\n"
        "            continue\n"
        '            self._world.log.warning("task_taken_over"',
        "tests/runtime/test_fleet.py wakes_up",
    ),
    Broken(
        "what waits in a task that is given up is processed and lost",
        "runtime/task.py",
        "        if self.poison is not None or self._leaving:\n            return\n",
        "        if self.poison is not None:\n            return\n",
        "tests/runtime/test_task.py given_up",
    ),
    Broken(
        "a task is released before what is open is committed",
        "runtime/task.py",
        "        seal = seal or self._leaving  # so that a release entry finds nothing open\n",
        "",
        "tests/runtime/test_task.py given_up",
    ),
    Broken(
        "upgraded rows are not committed with the acquire entry",
        "runtime/restore.py",
        "Commit(Kind.ACQUIRE, positions, rows, identity=identity, extra=extra)",
        "Commit(Kind.ACQUIRE, positions, identity=identity, extra=extra)",
        "tests/runtime/test_upgrade.py every_row",
    ),
    Broken(
        "the journal is truncated up to the entry that registered a checkpoint",
        "runtime/checkpoints/upload.py",
        "            world.cluster.truncate(task.journal, offset)  # 9\n",
        "            offset = world.journals().bounds(task.journal).stable_end - 2\n"
        "            world.cluster.truncate(task.journal, offset)  # 9\n",
        f"{CHECKPOINTS} oldest_kept_checkpoint",
    ),
    Broken(
        "the journal is truncated at the newest checkpoint instead of the oldest",
        "core/checkpoint.py",
        "    return kept[-1].offset if len(kept) >= KEPT else None\n",
        "    return kept[0].offset if len(kept) >= KEPT else None\n",
        f"{CHECKPOINTS} manifest_is_damaged",
    ),
    Broken(
        "the journal is truncated as soon as there is one checkpoint",
        "core/checkpoint.py",
        "    return kept[-1].offset if len(kept) >= KEPT else None\n",
        "    return kept[-1].offset if kept else None\n",
        f"{CHECKPOINTS} before_there_are_three",
    ),
    Broken(
        "what may be deleted is looked up after the entry instead of before",
        "runtime/checkpoints/upload.py",
        "        for name in made.cleanup:\n",
        "        kept = [(ref, read_manifest(store, cluster_id, task, ref)) for ref in made.kept]\n"
        "        for name in plan_cleanup(kept, listed(store, prefix, world), 0.0):\n",
        f"{CHECKPOINTS} fenced_owner_still",
    ),
    Broken(
        "objects are deleted without the entry that lets go of them",
        "runtime/checkpoints/checkpointer.py",
        "        each.entered = True\n",
        "        each.entered = True\n"
        "        if self.world.checkpoints is not None:\n"
        "            cluster_id, store = each.task.applied.identity.cluster_id, self.world.checkpoints.store\n"
        "            clean_up(each.task.id, cluster_id, made, store, self.world)\n",
        f"{CHECKPOINTS} entry_is_not_committed",
    ),
    Broken(
        "the grace age is ignored",
        "core/checkpoint.py",
        "name not in named and found.age_s >= grace_s",
        "name not in named",
        f"{CHECKPOINTS} young",
    ),
    Broken(
        "objects are deleted although a kept manifest cannot be read",
        "core/checkpoint.py",
        "        if manifest is None:\n            return ()\n",
        "        if manifest is None:\n            continue\n",
        f"{CHECKPOINTS} cannot_be_read",
    ),
    Broken(
        "a downloaded object is not compared with its hash",
        "runtime/checkpoints/download.py",
        "    if digest.digest() != file.digest:\n",
        "    if False:\n",
        f"{CHECKPOINTS} with_a_damaged_object",
    ),
    Broken(
        "a manifest is not compared with what the journal says of it",
        "core/checkpoint.py",
        "    if manifest_digest(data) != ref.digest:\n",
        "    if False:\n",
        "tests/core/test_checkpoint.py does_not_name",
    ),
    Broken(
        "a checkpoint of another history is used",
        "core/recovery.py",
        "        if self.found.entry.seq != self.ref.seq or self.found.chain != self.ref.chain:\n",
        "        if self.found.entry.seq != self.ref.seq:\n",
        "tests/core/test_recovery.py row_9",
    ),
    Broken(
        "an installed state is not asked where it stands",
        "runtime/choose.py",
        "        if applied != manifest.applied:\n",
        "        if False:\n",
        f"{CHECKPOINTS} another_state_than",
    ),
    Broken(
        "an object that no kept manifest names is used again",
        "core/checkpoint.py",
        "    planned, new = [], []\n",
        "    for name, found in listed.items():\n"
        "        if name.startswith('objects/'):\n"
        "            known.setdefault((bytes.fromhex(name[8:].split('-')[0]), found.size), name)\n"
        "    planned, new = [], []\n",
        "tests/core/test_checkpoint.py row_3",
    ),
    Broken(
        "an object that the store no longer has is named again",
        "core/checkpoint.py",
        "            if found is not None and found.size == file.size:\n",
        "            if True:\n",
        "tests/core/test_checkpoint.py row_2",
    ),
    Broken(
        "a manifest is written without another look at its objects",
        "runtime/checkpoints/upload.py",
        "        self._check_there(manifest, there)  # 4\n",
        "",
        f"{CHECKPOINTS} lost_by_the_store",
    ),
    Broken(
        "checkpoints of a group that lost its journal are no trace of it",
        "runtime/genesis.py",
        '                traces.append(f"a checkpoint of task {task}")\n',
        "                pass\n",
        f"{CHECKPOINTS} no_new_group",
    ),
    Broken(
        "a task reads on however long its journal grows",
        "runtime/group_run.py",
        "            held = partition in self._held\n",
        "            held = False\n",
        f"{CHECKPOINTS} pauses_the_intake",
    ),
    Broken(
        "a try that failed leaves its writes to the next one",
        "runtime/processor.py",
        "            except RAISED as error:  # whatever user code raises belongs to its record\n"
        "                self._take_back(mark)\n",
        "            except RAISED as error:\n                del self._context.outputs[mark:]\n",
        "tests/runtime/test_retries.py counts_once",
    ),
    Broken(
        "finished files of a load are not compared",
        "client/series.py",
        "            if other:\n",
        "            if False:\n",
        f"{LOADER} begins_otherwise",
    ),
    Broken(
        "the loaded part of a file is not compared",
        "client/series.py",
        "        check_prefix(position, cursor.skip_to(position.offset, position.line))\n",
        "        cursor.skip_to(position.offset, position.line)\n",
        f"{LOADER} changed_beginning",
    ),
    Broken(
        "a line that was loaded without its end may go on",
        "client/series.py",
        "        if not at_end and not cursor.ends_line:\n",
        "        if False:\n",
        "tests/client/test_series.py without_its_end",
    ),
    Broken(
        "a Parquet file is known by its length alone",
        "client/parquet.py",
        "                digest.update(block)\n",
        "                pass\n",
        "tests/client/test_parquet.py footer",
    ),
    Broken(
        "marks of replayed letters are written in a transaction of their own",
        "client/replaying.py",
        "        producer.send([mark_output(mark) for mark in marks.values()])\n",
        "        producer.flush()\n"
        "        producer.commit()\n"
        "        producer.begin()\n"
        "        producer.send([mark_output(mark) for mark in marks.values()])\n",
        f"{REPLAYING} crash_at_any_call",
    ),
    Broken(
        "a doubtful replay is done again",
        "client/replaying.py",
        "            found = self._marks.get(first)\n",
        "            found = before\n",
        f"{REPLAYING} settled_by_the_mark",
    ),
    Broken(
        "a reset handles what waited to be replayed beside the input",
        "runtime/reset.py",
        "        if is_replays(partition.topic):\n",
        "        if False:\n",
        f"{REPLAYING} reset_forgets",
    ),
    Broken(
        "ids are no part of the commit of their records",
        "runtime/task.py",
        "            delta.update(ids.take_writes())\n",
        "            ids.take_writes()\n",
        f"{DEDUP} across_a_crash",
    ),
    Broken(
        "the id of a rejected record is remembered",
        "runtime/processor.py",
        "                    self._seen.disown()\n",
        "                    pass\n",
        f"{DEDUP} leaves_no_id_behind",
    ),
    Broken(
        "a duplicate of what is being committed passes",
        "runtime/dedup.py",
        "        if sealed := self._overlay.sealed:\n",
        "        if sealed := {}:\n",
        f"{DEDUP} commit_is_under_way",
    ),
    Broken(
        "an id that came again goes with its old expiry",
        "core/dedup.py",
        "        if seen is not None and is_over(clock_ms, unpack_clock(seen), ttl_ms):\n",
        "        if seen is not None:\n",
        f"{DEDUP_TABLE} never_forgets",
    ),
    Broken(
        "that ids came again after their time is not committed",
        "runtime/dedup.py",
        "pack_state(self._clock_ms, self._again_ms)",
        "pack_state(self._clock_ms, -1)",
        f"{DEDUP_TABLE} never_forgets",
    ),
    Broken(
        "the clock of a dedup table is not committed",
        "runtime/dedup.py",
        "        writes[clock_key(self._topic.name)] = pack_state(self._clock_ms, self._again_ms)\n",
        "",
        f"{DEDUP} turn_the_clock_back",
    ),
    Broken(
        "the clock of a dedup table follows a timestamp from the far future",
        "core/dedup.py",
        "wall_ms if timestamp_ms < 0 else min(timestamp_ms, wall_ms)",
        "wall_ms if timestamp_ms < 0 else timestamp_ms",
        f"{DEDUP} far_future",
    ),
    Broken(
        "one expiry takes the place of another",
        "core/dedup.py",
        "        yield prefix + part[-1][1] + digests[-1],",
        "        yield prefix + part[-1][1] + digests[0],",
        f"{DEDUP_TABLE} gone_after",
    ),
    Broken(
        "the look for expiries begins behind some of them",
        "runtime/dedup.py",
        "unpack_clock(next(iter(self._open.values()))) if self._open else self._clock_ms",
        "self._clock_ms",
        f"{DEDUP_TABLE} gone_after",
    ),
    Broken(
        "an input gets more partitions",
        "client/topics/plan.py",
        "    readers = facts.readers.get(topic.name, ())\n    if readers:\n",
        "    readers = facts.readers.get(topic.name, ())\n    if False:\n",
        f"{PLAN} of_an_input_are_refused",
    ),
    Broken(
        "an input is known by its positions alone",
        "client/topics/look.py",
        "            identity = last.entry.identity\n",
        "            identity = None\n",
        f"{PLAN} before_its_first_record",
    ),
    Broken(
        "a setting that loses records is changed like any other",
        "client/topics/plan.py",
        "        elif change.loss and not allowed:\n",
        "        elif False:\n",
        f"{PLAN} refused_by_name",
    ),
    Broken(
        "a tombstone alone deletes",
        "client/topics/plan.py",
        "    problems = [] if allowed else [_lossy(topic.name, ",
        "    problems = [] if True else [_lossy(topic.name, ",
        f"{PLAN} tombstone",
    ),
    Broken(
        "a topic is changed while something of it is refused",
        "client/topics/plan.py",
        "        return self.action is not Action.NONE and not self.problems\n",
        "        return self.action is not Action.NONE\n",
        "tests/client/topics/test_applying.py does_not_hold_up",
    ),
    Broken(
        "a sink's epoch is not compared",
        "sinks/sql.py",
        "AND epoch = {m} ",
        "AND epoch >= 0 * {m} ",
        f"{SESSIONS} only_the_holder",
    ),
    Broken(
        "a sink's position is not compared",
        "sinks/sql.py",
        "AND next_offset = {m}",
        "AND next_offset >= 0 * {m}",
        f"{SESSIONS} only_the_holder",
    ),
    Broken(
        "a sink writes though the fence has said no",
        "runtime/sinks/writer.py",
        "            if not session.move(hold, after):  # 3\n",
        "            if session.move(hold, after) is None:\n",
        f"{SINKS} fenced_owner",
    ),
    Broken(
        "a sink writes its rows before the fence",
        "runtime/sinks/writer.py",
        "            if not session.move(hold, after):  # 3\n",
        "            session.write(writes)\n            if not session.move(hold, after):\n",
        f"{SINKS} fenced_owner",
    ),
    Broken(
        "a sink's doubtful commit is taken for done",
        "runtime/sinks/writer.py",
        "        return outcome is Outcome.COMMITTED\n",
        "        return True\n",
        f"{SINKS} outcome_is_unknown",
    ),
    Broken(
        "a sink's doubtful commit is done again",
        "runtime/sinks/writer.py",
        "        return outcome is Outcome.COMMITTED\n",
        "        return False\n",
        f"{SINKS} outcome_is_unknown",
    ),
    Broken(
        "a sink's doubtful commit is forgotten",
        "runtime/sinks/writer.py",
        "            self._in_doubt = dict(after)\n",
        "            self._moved(after)\n",
        f"{SINKS} outcome_is_unknown",
    ),
    Broken(
        "a sink's owner does not raise the epoch beyond what was heard of",
        "core/sinking.py",
        "    return max([noted, ",
        "    return max([0, ",
        f"{SINKS} brings_an_epoch_back",
    ),
    Broken(
        "a sink group that lost its positions is taken for a new one",
        "core/sinking.py",
        "    if not rows and traces:\n",
        "    if False:\n",
        f"{SINKS} positions_that_are_gone",
    ),
    Broken(
        "a failed event is forgotten when nobody looks at it",
        "producing/outbox.py",
        "                self.remember(delivery)\n",
        "                pass\n",
        "tests/producing/test_producer.py nobody_looked",
    ),
    Broken(
        "flush returns while events wait",
        "producing/outbox.py",
        "(self._waiting and next(iter(self._waiting)).sequence <= sequence)",
        "False",
        "tests/producing/test_producer.py flush_names",
    ),
    Broken(
        "a forked child makes the ids that its parent makes",
        "producing/forks.py",
        "    forget_random()\n",
        "",
        "tests/producing/test_forks.py",
    ),
    Broken(
        "a commit whose outcome is unknown passes for done",
        "producing/transactions.py",
        '            raise UnknownOutcomeError(f"{error.message}: {_UNKNOWN}", hint=_RESOLVE) from error\n',
        "            return True\n",
        "tests/producing/test_transactions.py unknown_outcome",
    ),
    Broken(
        "no fence after a transaction that ended badly",
        "producing/transactions.py",
        "            self._renew_due = True  # until it has ended well\n",
        "            self._renew_due = False\n",
        "tests/producing/test_transactions.py bad_end",
    ),
    Broken(
        "two groups share the keys of their effects",
        "event.py",
        '{"_scope": f"{app}\\x00{group}\\x00{topic_id}"',
        '{"_scope": f"{app}\\x00{topic_id}"',
        "tests/runtime/test_effects.py groups_do_not_share",
    ),
]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its tests."""
    copy = tmp_path_factory.mktemp("copied")
    for folder in ("pipeline", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


@pytest.mark.parametrize("broken", ROWS, ids=[row.rule.replace(" ", "-") for row in ROWS])
def test_a_broken_rule_is_noticed(broken: Broken, copied: Path) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    source = copied / "pipeline" / broken.file
    text = source.read_text(encoding="utf-8")
    assert text.count(broken.text) == 1, f"{broken.file} no longer holds {broken.text!r}"
    _write(source, text.replace(broken.text, broken.instead), copied)
    try:
        done = _run(broken, copied)
    finally:
        _write(source, text, copied)
    assert done.returncode == 1, f"pytest said {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    assert " failed" in done.stdout


def _write(source: Path, text: str, copied: Path) -> None:
    """What is compiled of the file goes: it would count as up to date by second and size, which two rows may share."""
    source.write_text(text, encoding="utf-8")
    for compiled in copied.joinpath("compiled", *source.parent.parts[1:]).glob(f"{source.stem}.*.pyc"):
        compiled.unlink()


def _run(broken: Broken, copied: Path) -> subprocess.CompletedProcess[str]:
    path, _, chosen = broken.test.partition(" ")
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            path,
            *(["-k", chosen] if chosen else []),
        ],
        cwd=copied,
        env={"PYTHONPATH": str(copied), "PATH": os.defpath, "PYTHONPYCACHEPREFIX": str(copied / "compiled")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
