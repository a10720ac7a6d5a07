"""Loads whose process or Kafka fails anywhere, or whose name another one takes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pipeline.core.names import LOADS_TOPIC, load_transactional_id
from pipeline.errors import (
    AbortableError,
    FatalTaskError,
    FencedError,
    PipelineError,
    RetriableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ops.loading.loader import LOADS, LoadEnvironment
from pipeline.ops.loading.positions import LoadPosition
from pipeline.ports import Output
from pipeline.testing.faults import Faults
from pipeline.testing.memory_clients import MemoryProducer, MemoryProducers
from pipeline.testing.system import DeferredExecutor, ManualClock
from tests.support.ops.loading.load_case import ID, ROWS, Case, Crash, csv_file, csv_files
from tests.support.ops.slow import SlowClock, count_inits


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["init", "begin", "send", "flush", "commit"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_crash_at_any_call_loses_and_doubles_nothing(call: str, after: bool, nth: int) -> None:
    """After a SIGKILL at any step, the next run continues from the committed position."""
    case = Case()
    sends = 2 if call == "send" else 1
    for _ in range(0 if call == "init" else (nth - 1) * sends):
        case.broker.fail_next(call, AbortableError("a hiccup before"), where=ID)
    case.broker.fail_next(call, Crash(), after=after, where=ID)
    case.load_until_done()
    case.check()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["begin", "send", "flush", "commit"])
@pytest.mark.parametrize("error", [AbortableError, UnknownOutcomeError, RetriableError])
@pytest.mark.parametrize("nth", [1, 2])
def test_an_error_at_any_call_is_settled_by_the_committed_position(
    call: str, after: bool, error: type[PipelineError], nth: int
) -> None:
    """Even a commit that happened and was reported as failed must not be repeated; the first `begin` is a barrier's."""
    case = Case()
    case.broker.fail_next(call, error("ordered"), after=after, where=ID, skip=nth - 1)
    case.load()
    case.check()
    assert case.broker.faults.left() == []


@pytest.mark.parametrize("seed", range(60))
def test_any_mixture_of_faults_and_restarts_ends_exact(seed: int) -> None:
    """Faults meet each other: a crash while renewing after an unknown outcome, and so on."""
    case, dice = Case(seed), random.Random(seed)
    if seed % 2:
        case.executor = lambda: DeferredExecutor(seed)
    errors: list[Callable[[], BaseException]] = [
        Crash,
        lambda: AbortableError("ordered"),
        lambda: UnknownOutcomeError("ordered"),
        lambda: UnreachableError("ordered"),
    ]
    calls = ["init", "begin", "send", "flush", "commit", "bounds", "read"]
    for _ in range(dice.randrange(1, 12)):
        call = dice.choice(calls)
        error = dice.choice(errors if call in {"init", "bounds", "read"} else errors[:3])()
        if call in {"bounds", "read"} and not isinstance(error, Crash):
            error = UnreachableError("ordered")
        case.broker.fail_next(call, error, after=bool(dice.randrange(2)))
    case.load_until_done()
    case.broker.faults = Faults()  # forget what the load never came to
    case.check()


def test_a_transaction_that_keeps_failing_is_given_up_and_what_precedes_it_stays() -> None:
    """A topic that went away must end in an error that names the lines, not in a loop."""
    case = Case()
    for _ in range(5):
        case.broker.fail_next("send", AbortableError("disk full"), where=ID)
    with pytest.raises(AbortableError, match=r"f\.csv, lines 1 to 11.*5 attempts.*disk full"):
        case.load()
    case.load()
    case.check()


def test_a_newer_loader_of_the_name_fences_the_older_one_for_good() -> None:
    """Two schedulers start the same job: one must do it, the other must say why it stopped."""
    case = Case()
    older = case.loader(csv_file())
    seen: list[LoadPosition] = []

    def take_over(position: LoadPosition) -> None:
        if not seen:
            case.load()
        seen.append(position)

    with pytest.raises(FencedError, match="a newer loader uses this name"):
        older.run(take_over)
    case.check()


def test_a_name_taken_during_an_unknown_outcome_is_not_taken_back() -> None:
    """The position found is neither ours nor the one before: going on would double the other's rows."""
    case = Case()
    case.broker.fail_next("commit", UnknownOutcomeError("ordered"), where=ID)
    environment = case.environment()
    opened = 0

    class Meddling(MemoryProducers):
        def open(self, transactional_id: str) -> MemoryProducer:
            nonlocal opened
            opened += 1
            if opened == 2:
                case.load(csv_file(25))
            return super().open(transactional_id)

    loader = case.loader(csv_file())
    loader._environment = LoadEnvironment(
        cluster=environment.cluster,
        producers=Meddling(case.broker),
        journals=environment.journals,
        clock=environment.clock,
        random=environment.random,
        executor=environment.executor,
        retry_backoff_ms=500,
    )
    with pytest.raises(FencedError):
        loader.run(lambda _: None)
    case.check(25)


def test_the_position_is_waited_for_behind_another_loads_open_transaction() -> None:
    """Reading only up to the stable end would miss our own last commit and load its rows twice."""
    case = Case()
    other = MemoryProducers(case.broker).open(load_transactional_id("other"))
    other.init()
    other.begin()
    other.send([Output(LOADS_TOPIC, b"other", b"", 0)])
    other.flush()
    with pytest.raises(UnreachableError, match="open transaction"):
        case.load()  # nothing is committed below it, and still nobody can know
    case.broker.fail_next("begin", Crash(), where=ID)

    class Ending(ManualClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            other.commit()

    case.clock = Ending()
    with pytest.raises(Crash):
        case.load()
    case.load()
    case.check()


def test_a_slow_commit_is_followed_by_a_renewal() -> None:
    """The client may have sent it twice; the delayed one could commit half of the next transaction."""
    case = Case()
    case.clock = SlowClock()
    inits = count_inits(case.broker)
    case.load()
    case.check()
    # A barrier whose abort is slow is written again, three times.
    assert len(inits) == 4 * (1 + len(case.positions()))


def test_a_confirmed_commit_that_is_gone_stops_the_load() -> None:
    """If the brokers lost an acknowledged commit, the load must report it."""
    case = Case()
    case.clock = SlowClock()
    count_inits(case.broker, lambda nth: case.broker.lose_tail(LOADS, 0) if nth == 5 else None)
    with pytest.raises(FatalTaskError, match="its records are missing"):
        case.load()


@pytest.mark.parametrize("ends", [(53,), (1, 2, 3, 53), (10, 20, 53), (0, 15, 15, 40, 53), (52, 53)])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["begin", "send", "flush", "commit"])
@pytest.mark.parametrize("nth", [1, 3])
def test_a_crash_at_any_call_of_a_load_of_many_files_loses_and_doubles_nothing(
    ends: tuple[int, ...], call: str, after: bool, nth: int
) -> None:
    """A transaction may hold the end of one file and the beginning of another."""
    case, files = Case(), csv_files(*ends)
    for _ in range((nth - 1) * (2 if call == "send" else 1)):
        case.broker.fail_next(call, AbortableError("a hiccup before"), where=ID)
    case.broker.fail_next(call, Crash(), after=after, where=ID)
    last = case.load_until_done(files)
    case.check()
    assert (last.finished, last.finished_files.count, last.records) == (True, len(ends) - 1, ROWS)


@pytest.mark.parametrize("seed", range(40))
def test_any_mixture_of_faults_files_and_growth_ends_exact(seed: int) -> None:
    """Runs are killed while files are added to the list and the last one grows."""
    case, dice = Case(seed), random.Random(seed)
    if seed % 2:
        case.executor = lambda: DeferredExecutor(seed)
    cuts = sorted(dice.sample(range(ROWS), dice.randrange(5)))
    final = csv_files(*cuts, ROWS)
    seen = ROWS // 3
    while True:
        for _ in range(dice.randrange(4)):
            error = dice.choice([Crash(), AbortableError("ordered"), UnknownOutcomeError("ordered")])
            case.broker.fail_next(
                dice.choice(["init", "begin", "send", "flush", "commit"]),
                error,
                after=bool(dice.randrange(2)),
            )
        case.load_until_done(final if seen == ROWS else csv_files(*[cut for cut in cuts if cut < seen], seen))
        if seen == ROWS:
            break
        seen = min(ROWS, seen + dice.randrange(1, 20))
    case.broker.faults = Faults()
    case.check()
