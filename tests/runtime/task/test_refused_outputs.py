"""What brokers refuse belongs to the record that it was sent for: its policy holds, and no other record is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline import App, Batch, Context, Event, OnError
from pipeline.config import WorkerSettings
from pipeline.core.dead_letters import read_letter
from pipeline.errors import FatalTaskError, HandlerError
from pipeline.ports import Output, Step
from pipeline.testing import TestDriver

HOUR_MS = 3_600_000
BAD = 500  # values from here on are such that something is wrong with their outputs


class Case:
    """An app that adds numbers up and forwards each with the sum; `spoil` makes outputs of bad ones bad."""

    def __init__(
        self, on_error: OnError, spoil: Callable[[Case, int], dict[str, Any]], *, batch: bool = False
    ) -> None:
        self.spoil = spoil
        self.app = App("shop")
        self.inputs = self.app.topic("in", key=str, value=int)
        self.outs = self.app.topic("out", key=str | None, value=str)
        self.sums = self.app.table("sums", key=str, value=int)
        if batch:
            self.app.batch_handler(self.inputs, on_error=on_error)(self.add_all)
        else:
            self.app.handler(self.inputs, on_error=on_error)(self.add)
        self.driver = TestDriver(
            self.app, settings=WorkerSettings(worker_id="test", max_records_per_commit=200)
        )
        self.sent: list[int] = []

    def add(self, event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(self.sums)
        table[event.key] = total = table.get(event.key, 0) + event.value
        sent: dict[str, Any] = {"key": event.key, "value": str(total)}
        if event.value >= BAD:
            sent |= self.spoil(self, event.value)
        ctx.send(self.outs, **sent)

    def add_all(self, batch: Batch[str, int], ctx: Context) -> None:
        for event in batch:
            self.add(event, ctx)

    def send(self, *values: int) -> None:
        for value in values:
            self.driver.send(self.inputs, "k", value)
        self.sent.extend(values)
        self.driver.run()

    def check(self) -> None:
        """Outputs and table are those of a run without the bad records."""
        totals, total = [], 0
        for value in self.sent:
            if value < BAD:
                total += value
                totals.append(str(total))
        assert [event.value for event in self.driver.outputs(self.outs)] == totals
        assert self.driver.table(self.sums) == ({"k": total} if total else {})

    @property
    def letters(self) -> list[str]:
        """The errors of the dead letters, in order, each with its value."""
        found = []
        for letter in self.driver.dead_letters():
            read = read_letter(letter.headers)
            assert read is not None
            found.append(f"{(letter.value or b'').decode()} {read[0].error}")
        return found


def _ahead(case: Case, _value: int) -> dict[str, Any]:
    return {"timestamp_ms": case.driver.clock.wall_ms() + 2 * HOUR_MS}


def _behind(case: Case, _value: int) -> dict[str, Any]:
    return {"timestamp_ms": case.driver.clock.wall_ms() - 2 * HOUR_MS}


def _keyless(_case: Case, _value: int) -> dict[str, Any]:
    return {"key": None}


def _large(_case: Case, _value: int) -> dict[str, Any]:
    return {"value": "x" * 5_000}


def _odd(_case: Case, _value: int) -> dict[str, Any]:
    return {"value": "odd"}


SETTINGS = [
    (_ahead, {"message.timestamp.after.max.ms": str(HOUR_MS)}, "ms ahead, and topic out accepts 3600000 ms"),
    (_behind, {"message.timestamp.before.max.ms": str(HOUR_MS)}, "ms ago, and topic out accepts 3600000 ms"),
    (_keyless, {"cleanup.policy": "compact"}, "topic out is compacted and accepts no record without a key"),
    (_large, {"max.message.bytes": "2000"}, "is over the limit of topic out (1744 bytes)"),
]


@pytest.mark.parametrize(("spoil", "settings", "said"), SETTINGS)
@pytest.mark.parametrize("changed", [False, True], ids=["before the start", "under the worker"])
def test_what_the_settings_refuse_is_told_where_it_is_sent(
    spoil: Any, settings: dict[str, str], said: str, changed: bool
) -> None:
    """Also when they change under a running worker: it looks at them again when a commit is refused."""
    case = Case("dead_letter", spoil)
    if changed:
        case.send(1)
    case.driver.broker.configure("out", settings)
    case.send(2, BAD, 3, BAD + 1, 4)
    case.check()
    assert [letter.partition(" ")[0] for letter in case.letters] == ["500", "501"]
    assert all(said in letter for letter in case.letters)
    refused = [said["message"] for said in case.driver.log_events("commit_refused")]
    assert len(refused) == changed
    assert case.driver.log_events("task_failed") == []


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
def test_a_record_whose_outputs_are_refused_is_found_and_gets_its_policy(
    policy: OnError, batch: bool
) -> None:
    """No setting tells it: commits get smaller until it stands alone, and larger again behind it."""
    case = Case(policy, _odd, batch=batch)
    case.driver.broker.refuses = lambda output: "it is odd" if output.value == b'"odd"' else None
    case.send(*range(1, 200), BAD, *range(200, 350), BAD + 1, BAD + 2, *range(350, 400))
    case.check()
    rejected = case.driver.log_events("record_rejected")
    assert {(each["topic"], each["offset"]) for each in rejected} == {("in", n) for n in (199, 350, 351)}
    if policy == "dead_letter":
        assert [letter.partition(" ")[0] for letter in case.letters] == ["500", "501", "502"]
        assert all(
            "RefusedOutputError: Kafka rejects an output of this record" in each for each in case.letters
        )
        assert all("it is odd" in each for each in case.letters)
    assert case.driver.log_events("task_failed") == []
    assert len(case.driver.log_events("commit_refused")) <= 3 * 8


def test_under_stop_the_task_ends_with_the_record_that_is_refused() -> None:
    """What came before it is committed; when the cause is gone, the next start continues with it."""
    case = Case("stop", _odd)
    case.driver.broker.refuses = lambda output: "it is odd" if output.value == b'"odd"' else None
    with pytest.raises(
        HandlerError, match=r"in\[0\] offset 9 cannot be processed by Case\.add: RefusedOutputError"
    ):
        case.send(*range(1, 10), BAD, *range(10, 20))
    assert len(case.driver.outputs(case.outs)) == 9
    case.driver.broker.refuses = lambda _output: None
    case.driver.restart()
    case.driver.run()
    assert len(case.driver.outputs(case.outs)) == 20


def test_a_dead_letter_that_is_refused_stops_the_task() -> None:
    """The record can be neither processed nor stored as a dead letter: the operator must act."""
    case = Case("dead_letter", _odd)

    def refuses(output: Output) -> str | None:
        odd = output.topic == "out" and output.value == b'"odd"'
        return "it is odd" if odd or output.topic.endswith("dead-letters") else None

    case.driver.broker.refuses = refuses
    with pytest.raises(FatalTaskError, match="in offset 2 can neither be processed nor become a dead letter"):
        case.send(1, 2, BAD, 3)
    assert len(case.driver.outputs(case.outs)) == 2


def test_a_refused_replay_is_a_dead_letter_again() -> None:
    """Its place among the replays passes, whatever Kafka says of its outputs."""
    case = Case("dead_letter", _odd)
    case.driver.broker.refuses = lambda output: "it is odd" if output.value == b'"odd"' else None
    case.send(1, BAD, 2)
    assert case.driver.replay_dead_letters() == 1
    case.send(3)
    case.check()
    assert len(case.letters) == 2
    assert case.driver.log_events("task_failed") == []


def test_a_journal_that_refuses_entries_is_no_records_fault() -> None:
    """Its limit was lowered: skipping records would not help, and would lose them."""
    case = Case("skip", _odd)
    case.send(1)
    journal = "shop.main.journal"
    case.driver.broker.refuses = lambda output: "too large" if output.topic == journal else None
    with pytest.raises(FatalTaskError, match="aborted 5 times in a row"):
        case.send(2)
    assert case.driver.log_events("record_rejected") == []


STEPS = [Step.BEFORE_BEGIN, Step.AFTER_OUTPUTS, Step.AFTER_FLUSH, Step.DURING_COMMIT, Step.AFTER_COMMIT]


@pytest.mark.parametrize("step", [*STEPS, Step.BEFORE_APPLY, Step.AFTER_APPLY, Step.BEFORE_ACQUIRE])
@pytest.mark.parametrize("nth", [2, 4, 7])
def test_a_crash_during_the_search_changes_nothing(step: Step, nth: int) -> None:
    """What was found is forgotten, and found again; each record still counts once or gets its policy once."""
    case = Case("dead_letter", _odd)
    case.driver.broker.refuses = lambda output: "it is odd" if output.value == b'"odd"' else None
    case.driver.crash_at(step, nth=nth)
    case.send(*range(1, 50), BAD, *range(50, 80), BAD + 1)
    if case.driver.crashed:
        case.driver.restart(empty_disk=nth == 4)
        case.driver.run()
    case.check()
    assert [letter.partition(" ")[0] for letter in case.letters] == ["500", "501"]


def test_a_clock_that_continues_lets_later_timestamps_in() -> None:
    """The bound moves with time: what is refused now need not be refused later."""
    case = Case("skip", lambda _case, value: {"timestamp_ms": 1_700_000_000_000 + value * 1000})
    case.driver.broker.configure("out", {"message.timestamp.after.max.ms": str(HOUR_MS)})
    case.send(3_000, 10_000)
    case.driver.clock.advance(7_200)
    case.send(10_000)
    assert [event.timestamp_ms % 10**9 for event in case.driver.outputs(case.outs)] == [3_000_000, 10_000_000]
