"""`commit_until_settled`: every failure is settled by a fence and a look, and nothing is committed twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.errors import (
    AbortableError,
    FencedError,
    PipelineError,
    RefusedError,
    RetriableError,
    UnknownOutcomeError,
)
from pipeline.ports import Output, TopicSpec
from pipeline.testing import ManualClock, MemoryBroker
from pipeline.transactions.engine import TransactionEngine
from pipeline.transactions.outcomes import commit_until_settled
from tests.support.transactions.slow import SlowEnds

ATTEMPTS = 4
CALLS = ["begin", "send", "flush", "commit"]


class Policy:
    """Commits one record whose value is the attempt's nonce; what is committed settles a doubt."""

    def __init__(self) -> None:
        self.broker, self.clock = MemoryBroker(), ManualClock()
        self.broker.create(TopicSpec("out", 1))
        self.engine = TransactionEngine("id", SlowEnds(self.broker, self.clock), self.clock, 100)
        self.engine.fence()
        self.steps: list[str] = []
        self.failures: list[PipelineError] = []
        self.looks: list[bytes | None] = []  # what the first looks find, whatever is committed
        self._nonce = 0

    def attempt(self) -> bytes:
        self._nonce += 1
        return b"%d" % self._nonce

    def transact(self, attempt: bytes) -> bytes:
        self.steps.append("transact")
        self.engine.begin()
        self.engine.send([Output("out", None, attempt, 1)])
        self.engine.flush()
        self.engine.commit()
        return attempt

    def fence(self) -> None:
        self.steps.append("fence")
        self.engine.fence()

    def settle(self, attempts: Sequence[bytes]) -> bytes | None:
        self.steps.append(f"settle {len(attempts)}")
        if self.looks:
            return self.looks.pop(0)
        committed = self.written
        return next((attempt for attempt in attempts if attempt in committed), None)

    def abort_failed(self, error: PipelineError) -> None:
        self.steps.append("abort failed")

    def not_committed(self, error: PipelineError) -> None:
        self.failures.append(error)
        if len(self.failures) == ATTEMPTS or isinstance(error, RefusedError):
            raise error

    def commit(self) -> bytes:
        return commit_until_settled(self.engine, self)

    @property
    def written(self) -> list[bytes | None]:
        return [record.value() for record in self.broker.records("out")]


def test_a_clean_commit_is_one_attempt() -> None:
    """No look, no second fence."""
    policy = Policy()
    assert policy.commit() == b"1"
    assert policy.steps == ["transact"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [AbortableError, RetriableError, UnknownOutcomeError])
def test_a_failure_anywhere_commits_exactly_once(call: str, after: bool, error: type[PipelineError]) -> None:
    """A commit that happened and was reported as failed must not be repeated."""
    policy = Policy()
    policy.broker.fail_next(call, error("ordered"), after=after)
    committed = policy.commit()
    assert policy.written == [committed]
    assert committed == (b"1" if call == "commit" and after else b"2")
    assert policy.steps[:3] == ["transact", "fence", "settle 1"]


def test_an_attempt_before_the_last_one_may_be_the_committed_one() -> None:
    """A look may be old: what it took for aborted is found by a later look."""
    policy = Policy()
    policy.looks = [None, b"1"]
    policy.broker.fail_next("commit", UnknownOutcomeError("no answer"), after=True)
    policy.broker.fail_next("flush", AbortableError("something was committed meanwhile"), skip=1)
    assert policy.commit() == b"1"
    assert policy.steps[-1] == "settle 2"
    assert policy.written == [b"1"]


def test_a_slow_commit_renews_before_the_next_one() -> None:
    """With a look behind the fence: another process may have committed in between."""
    policy = Policy()
    ends = policy.engine._producers
    assert isinstance(ends, SlowEnds)
    ends.commit_s = 1.0
    policy.commit()
    policy.commit()
    assert policy.steps == ["transact", "fence", "settle 0", "transact"]
    assert policy.written == [b"1", b"2"]


def test_an_abort_precedes_the_fence_where_nothing_was_committed() -> None:
    """Readers would wait for the fence. An outcome that is unknown is left to the fence."""
    for error, aborts in ((AbortableError("x"), 1), (UnknownOutcomeError("x"), 0)):
        policy = Policy()
        policy.broker.fail_next("flush", error)
        policy.broker.fail_next("abort", AbortableError("the abort failed"))
        policy.commit()
        assert policy.steps.count("abort failed") == aborts


def test_the_policy_decides_when_to_give_up() -> None:
    """It is told what ended each attempt, and only where nothing is committed."""
    policy = Policy()
    for _ in range(ATTEMPTS):
        policy.broker.fail_next("flush", AbortableError("full"))
    with pytest.raises(AbortableError, match="full"):
        policy.commit()
    assert len(policy.failures) == ATTEMPTS
    assert policy.written == []


def test_a_fenced_process_does_not_fence_back() -> None:
    """Two processes would end each other's transactions in turns."""
    policy = Policy()
    TransactionEngine("id", SlowEnds(policy.broker, policy.clock), policy.clock, 100).fence()
    with pytest.raises(FencedError):
        policy.commit()
    assert policy.steps == ["transact"]
