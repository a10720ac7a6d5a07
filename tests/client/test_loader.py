"""The loader on a broker in memory, with every call failing once, before and after it acted."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import blake2b

import pytest

from pipeline.client.lines import new_hash
from pipeline.client.loader import LOADS, LoadWorld, find_topic
from pipeline.client.positions import LoadOptions, LoadPosition
from pipeline.core.names import LOADS_TOPIC, load_transactional_id
from pipeline.errors import (
    AbortableError,
    ConfigError,
    FatalTaskError,
    FencedError,
    InputError,
    PipelineError,
    RetriableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Output, TopicSpec
from pipeline.testing.clock import ManualClock
from pipeline.testing.executor import DeferredExecutor
from pipeline.testing.faults import Faults
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_clients import (
    MemoryCluster,
    MemoryProducer,
    MemoryProducers,
)

from .load_case import ID, KEYS, NAME, ROWS, Case, Crash, csv_file, csv_files


def test_a_load_writes_every_row_once_and_its_position_with_it() -> None:
    """The plain case: transactions of a batch, the last one marked as the end."""
    case = Case()
    last = case.load()
    case.check()
    positions = case.positions()
    assert [p.records for p in positions] == [10, 20, 30, 40, 50, ROWS]
    assert [p.seq for p in positions] == list(range(1, len(positions) + 1))
    assert (last.finished, last.offset, last.line) == (True, len(csv_file()), ROWS + 1)
    assert len({p.nonce for p in positions}) == len(positions)


def test_running_it_again_after_the_end_writes_nothing() -> None:
    """Retrying a job that already succeeded must be harmless."""
    case = Case()
    case.load()
    before = case.broker.bounds(LOADS)
    loader = case.loader(csv_file())
    loader.run(lambda _: None)
    assert loader.already_done
    assert case.broker.bounds(LOADS) == before
    case.check()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["init", "begin", "send", "flush", "commit"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_crash_at_any_call_loses_and_doubles_nothing(call: str, after: bool, nth: int) -> None:
    """SIGKILL strikes anywhere; the next run goes on from what is committed."""
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
def test_an_error_at_any_call_is_settled_by_the_committed_position(
    call: str, after: bool, error: type[PipelineError]
) -> None:
    """Even a commit that happened and was reported as failed must not be repeated."""
    case = Case()
    case.broker.fail_next(call, error("ordered"), after=after, where=ID)
    case.load()
    case.check()


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
        case.broker.fail_next("flush", AbortableError("disk full"), where=ID)
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

    with pytest.raises(FencedError, match="another loader has taken over"):
        older.run(take_over)
    case.check()


def test_a_name_taken_during_an_unknown_outcome_is_not_taken_back() -> None:
    """The position found is neither ours nor the one before: going on would double the other's rows."""
    case = Case()
    case.broker.fail_next("commit", UnknownOutcomeError("ordered"), where=ID)
    world = case.world()
    opened = 0

    class Meddling(MemoryProducers):
        def open(self, transactional_id: str) -> MemoryProducer:
            nonlocal opened
            opened += 1
            if opened == 2:
                case.load(csv_file(25))
            return super().open(transactional_id)

    loader = case.loader(csv_file())
    loader._world = LoadWorld(
        cluster=world.cluster,
        producers=Meddling(case.broker),
        journals=world.journals,
        clock=world.clock,
        random=world.random,
        executor=world.executor,
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

    class Slow(ManualClock):
        def monotonic_s(self) -> float:
            self.advance(0.4)
            return super().monotonic_s()

    case.clock = Slow()
    inits = 0
    init = case.broker.init

    def counted(transactional_id: str) -> int:
        nonlocal inits
        inits += 1
        return init(transactional_id)

    case.broker.init = counted  # type: ignore[method-assign]
    case.load()
    case.check()
    assert inits == 1 + len(case.positions())


def test_a_confirmed_commit_that_is_gone_stops_the_load() -> None:
    """Acknowledged and lost: the brokers are not what they promise, and nobody may paper over it."""
    case = Case()

    class Slow(ManualClock):
        def monotonic_s(self) -> float:
            self.advance(0.4)
            return super().monotonic_s()

    case.clock = Slow()
    init = case.broker.init
    inits = 0

    def losing(transactional_id: str) -> int:
        nonlocal inits
        inits += 1
        if inits == 2:
            case.broker.lose_tail(LOADS, 0)
        return init(transactional_id)

    case.broker.init = losing  # type: ignore[method-assign]
    with pytest.raises(FatalTaskError, match="has lost it"):
        case.load()


def test_a_changed_beginning_is_refused_and_nothing_is_written() -> None:
    """A file edited between the runs no longer says which of its rows are loaded."""
    case = Case()
    with pytest.raises(InputError, match="line 25"):
        case.load(csv_file(23) + b"bad\n")
    loaded = case.values()
    with pytest.raises(InputError, match="changed within the part that is loaded"):
        case.load(csv_file().replace(b"k1,1\n", b"k1,9\n"))
    with pytest.raises(InputError, match="it was cut"):
        case.load(csv_file(5))
    assert case.values() == loaded


def test_a_bad_line_commits_what_precedes_it_and_the_mended_file_goes_on() -> None:
    """Nobody should load a million rows again because of one."""
    case = Case()
    with pytest.raises(InputError, match=r"f\.csv, line 25: "):
        case.load(csv_file(23) + b"bad\nk0,7\n")
    case.check(23)
    case.load(csv_file())
    case.check()


def test_a_file_that_has_grown_is_continued() -> None:
    """A log that is loaded every hour: only what is new, whatever was said about its end before."""
    case = Case()
    assert case.load(csv_file(20)).finished
    assert case.load(csv_file()).records == ROWS
    case.check()


def test_a_last_line_that_has_grown_is_refused() -> None:
    """Its record is loaded already, and was another one."""
    case = Case()
    case.load(csv_file(20).rstrip(b"\n"))
    with pytest.raises(InputError, match="had no end"):
        case.load(csv_file(20).rstrip(b"\n") + b"7\n")


def test_a_restart_loads_everything_again_and_is_itself_continued() -> None:
    """Asked for, it doubles; a crash in the middle of it must not double once more."""
    case = Case()
    case.load()
    case.broker.fail_next("flush", AbortableError("hiccup"), where=ID)
    case.broker.fail_next("flush", Crash(), where=ID)
    with pytest.raises(Crash):
        case.load(restart=True)
    assert case.load(restart=True).run == 2
    case.broker.fail_next("commit", Crash(), after=True, where=ID)
    with pytest.raises(Crash):
        case.load(restart=True)
    last = case.load()
    assert (last.run, last.records, last.finished) == (3, ROWS, True)
    case.check(times=3)


def test_an_empty_json_file_is_complete_at_once() -> None:
    """An hour without events is no error."""
    case = Case()
    loader = case.loader(b"", options=LoadOptions(format="jsonl"))
    assert loader.run(lambda _: None).finished
    assert case.values() == []


def test_a_topic_recreated_during_the_load_is_noticed() -> None:
    """Its first rows are gone with the old topic: saying 'complete' would be a lie."""
    case = Case()

    def recreate(position: LoadPosition) -> None:
        if position.seq == 2:
            case.broker.delete("t")
            case.broker.create(TopicSpec("t", 3))

    with pytest.raises(ConfigError, match="deleted while it was being loaded"):
        case.loader(csv_file()).run(recreate)


def test_topics_that_cannot_be_loaded_into_are_refused() -> None:
    """Before anything is fenced or written."""
    broker = MemoryBroker()
    cluster = MemoryCluster(broker)
    with pytest.raises(ConfigError, match="there is no topic 'nope'") as missing:
        find_topic(cluster, "nope")
    assert missing.value.hint is not None
    assert "pipeline topics apply" in missing.value.hint
    broker.create(TopicSpec("shop.main.journal", 1))
    for own in (LOADS_TOPIC, "shop.main.journal"):
        with pytest.raises(ConfigError, match="nothing can be loaded into it"):
            find_topic(cluster, own)
    broker.create(TopicSpec(LOADS_TOPIC, 1))
    broker.create(TopicSpec("t", 1))
    with pytest.raises(ConfigError, match=r"cleanup\.policy=compact"):
        find_topic(cluster, "t")


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
    assert (last.finished, last.passed.count, last.records) == (True, len(ends) - 1, ROWS)


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


def test_a_list_that_begins_otherwise_is_refused_and_nothing_is_written() -> None:
    """One file changed, went away or moved between the runs."""
    case, files = Case(), csv_files(10, 20, 30)
    case.load(files)
    before = case.broker.bounds(LOADS)
    first, second, third = files.items()
    for other in (
        [first, ("1.csv", b"k,n\nk0,0\n"), third],
        [second, third],
        [second, first, third],
        [first],
    ):
        with pytest.raises(InputError, match="cannot be continued"):
            case.load(dict(other))
    assert case.broker.bounds(LOADS) == before
    case.check(30)


def test_a_load_of_one_file_goes_on_as_a_load_of_many() -> None:
    """What began as a file becomes a list when the second one is there."""
    case, files = Case(), csv_files(20, 40, ROWS)
    case.load({"0.csv": files["0.csv"]})
    assert case.load(files).passed.count == 2
    case.check()


def test_only_continuing_is_refused_where_nothing_is_loaded() -> None:
    """A job whose name was mistyped must not load everything once more."""
    case = Case()
    with pytest.raises(InputError, match="nothing is known of it") as refusal:
        case.loader(csv_file(), insist=True).run(lambda _: None)
    assert "--from-checkpoint" in str(refusal.value.hint)
    assert case.values() == []
    case.load(csv_file(20))
    case.loader(csv_file(), insist=True).run(lambda _: None)
    case.check()


def test_a_position_of_the_release_before_is_continued() -> None:
    """A load that an older release began, byte for byte as it wrote it."""
    case = Case()
    topic_id = MemoryCluster(case.broker).describe(["t"])["t"].topic_id
    prefix = csv_file(20)
    digest = new_hash()
    digest.update(prefix)
    body = (
        b'{"name":"%s","run":1,"seq":2,"nonce":"abc","topic":"t","topic_id":"%s","file":"f.csv",'
        b'"options":{"format":"csv","key":"k","id":null,"timestamp":null,"null":[],"text":[]},"offset":%d,"line":21,'
        b'"records":20,"skipped":0,"prefix_hash":"%s","finished":false,"text_columns":["k"]}'
        % (NAME.encode(), topic_id.encode(), len(prefix), digest.hexdigest().encode())
    )
    checksum = blake2b(body, digest_size=8).hexdigest()
    data = b'{"version":1,"name":"%s","checksum":"%s","load":%s}' % (NAME.encode(), checksum.encode(), body)
    producer = MemoryProducers(case.broker).open(ID)
    producer.init()
    producer.begin()
    producer.send(
        [Output("t", b"k%d" % (n % KEYS), b'{"k":"k%d","n":%d}' % (n % KEYS, n), 0) for n in range(20)]
    )
    producer.send([Output(LOADS_TOPIC, NAME.encode(), data, 0)])
    producer.flush()
    producer.commit()
    producer.close()
    last = case.load(csv_file())
    assert (last.seq, last.records, last.finished) == (6, ROWS, True)
    case.check()
