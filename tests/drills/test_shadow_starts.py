"""Where a replay of the input can begin: one start for all tasks, and one that is still valid when it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import App, Context, Event
from pipeline.api.app import DeclaredApp
from pipeline.app import declared_app
from pipeline.core.checkpoint_refs import CHECKPOINTS, CheckpointRef, encode_kept
from pipeline.core.journal_format import NO_CHAIN, Entry, EntryKind, encode_entry
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.records import iso_time
from pipeline.drills.scene import Options, RefusedDrillError
from pipeline.drills.shadow_replay import ShadowReplay
from pipeline.drills.shadow_starts import LiveTask, common_start_ms
from pipeline.errors import TruncatedError
from pipeline.ports import JournalBounds
from pipeline.testing import MemoryBroker
from pipeline.testing.memory_clients import MemoryJournalReader
from tests.support.drills.scenes import APP, scene_of, settings_of
from tests.support.runtime.fleet import Fleet


def _handle(event: Event[str, int], ctx: Context) -> None:
    raise AssertionError((event, ctx))


class _Journals(MemoryJournalReader):
    """Journals with the given entries. Inputs have all their records."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker())
        self.chunks: dict[TopicPartition, list[tuple[int, bytes]]] = {}
        self.truncated_at: dict[TopicPartition, int] = {}

    def write(
        self,
        task: TaskId,
        entries: Sequence[tuple[int, Mapping[str, int]]],
        *,
        registered: int = -1,
        kept: Sequence[int] = (),
    ) -> None:
        """Entries from the genesis on, each with its time and positions. Each is one record.

        The entry at the offset `registered` keeps checkpoints of the states after the entries `kept`, newest first.
        """
        chain = NO_CHAIN
        chains: list[bytes] = []
        for number, (wall_ms, positions) in enumerate(entries):
            kind = EntryKind.COMMIT if number else EntryKind.GENESIS
            extra = {}
            if number == registered:
                kind = EntryKind.CHECKPOINT
                refs = [CheckpointRef(n + 1, n, chains[n], b"n", b"d", 1, 1, 0) for n in kept]
                extra = {CHECKPOINTS: encode_kept(refs)}
            last = registered if 0 <= registered < number else -1
            entry = Entry(
                kind,
                number + 1,
                "a",
                b"%d" % number,
                dict(positions),
                wall_ms=wall_ms,
                extra=extra,
                checkpoint=last,
            )
            (chunk,), chain = encode_entry(entry, chain, 1 << 20)
            chains.append(chain)
            self.chunks.setdefault(task.journal, []).append((number, chunk))

    def truncate(self, task: TaskId, start: int) -> None:
        self.truncated_at[task.journal] = start

    def bounds(self, journal: TopicPartition) -> JournalBounds:
        end = len(self.chunks.get(journal, ()))
        return JournalBounds(self.truncated_at.get(journal, 0), end, end)

    def read(self, journal: TopicPartition, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        if start < self.truncated_at.get(journal, 0):
            raise TruncatedError("truncated")
        return iter([each for each in self.chunks[journal] if start <= each[0] < end])


def _declared() -> DeclaredApp:
    app = App(APP)
    app.handler(app.topic("numbers", key=str, value=int))(_handle)
    return declared_app(app)


def _tasks(count: int) -> list[LiveTask]:
    (group,) = _declared().groups
    return [LiveTask(TaskId(APP, group.name, n), group, count) for n in range(count)]


def test_a_refused_start_has_one_that_is_valid_for_all_tasks(tmp_path: Path) -> None:
    """The start that one task asked for was too early for the other, and the drill named no valid one."""
    tasks, journals = _tasks(2), _Journals()
    one, other = tasks[0].task, tasks[1].task
    replays = one.group_id.replays_topic
    journals.write(one, [(t, {"numbers": t, replays: int(t >= 300)}) for t in range(100, 1000, 100)])
    journals.write(other, [(t, {"numbers": t, replays: 0}) for t in range(150, 1000, 100)])
    journals.truncate(other, 4)  # its entries of 150 to 450 are deleted

    fleet = Fleet(partitions=2)
    fleet.start("a")
    fleet.settle()
    scene = scene_of(fleet, settings_of(tmp_path), local=("a",))
    scene.reader = journals
    drill = ShadowReplay(_declared())
    start = iso_time(550)
    for since, name in (("", "replayed-letters"), (iso_time(300), "start-too-early")):
        scene.options = replace(scene.options, since=since)
        with pytest.raises(RefusedDrillError, match=name) as refused:
            list(drill.check(scene))
        assert refused.value.hint is not None
        assert refused.value.hint.endswith(f"--from {start}")
    scene.options = replace(scene.options, since=start)
    assert any("2 tasks are replayed from a later entry" in fact for fact in drill.check(scene))


def _replay_refused(tmp_path: Path, journals: _Journals, since: str = "") -> RefusedDrillError:
    fleet = Fleet(partitions=1)
    fleet.start("a")
    fleet.settle()
    scene = scene_of(fleet, settings_of(tmp_path), local=("a",), options=Options(since=since))
    scene.reader = journals
    with pytest.raises(RefusedDrillError) as refused:
        list(ShadowReplay(_declared()).check(scene))
    return refused.value


def test_a_task_without_a_journal_is_not_replayed(tmp_path: Path) -> None:
    """Nothing says where its replay would end."""
    journals = _Journals()
    journals.chunks[_tasks(1)[0].task.journal] = []
    assert _replay_refused(tmp_path, journals).name == "no-history"


@pytest.mark.parametrize(
    ("first", "since", "start"), [(1_000, "", None), (500, iso_time(300), 500), (1_000, iso_time(300), None)]
)
def test_inputs_that_have_expired_are_not_replayed(
    tmp_path: Path, first: int, since: str, start: int | None
) -> None:
    """A replay from a later record would miss rows, and the report would call that a difference."""
    task, journals = _tasks(1)[0].task, _Journals()
    journals.write(task, [(t, {"numbers": t}) for t in range(100, 1000, 100)])
    journals.truncated_at[TopicPartition("numbers", 0)] = first
    refused = _replay_refused(tmp_path, journals, since)
    assert refused.name == "input-expired"
    assert f"its inputs begin at numbers offset {first}" in refused.message
    assert refused.hint is not None
    assert start is None or refused.hint.endswith(f"--from {iso_time(start)}")


def test_a_start_for_all_tasks_outlives_the_next_checkpoint() -> None:
    """The worker truncates the journal with each checkpoint, and the operator needs a minute to use the start."""
    tasks, journals = _tasks(1), _Journals()
    task = tasks[0].task
    entries = [(t, {"numbers": t}) for t in range(100, 1000, 100)]
    journals.write(task, entries, registered=7, kept=[6, 4, 2])
    journals.truncate(task, 2)
    assert common_start_ms(tasks, journals) == 500  # 300 is truncated next
