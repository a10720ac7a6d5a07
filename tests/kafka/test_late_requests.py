"""Late requests and lost answers: the effects of a network on a transaction.

The Kafka client resends a request after a lost connection, and does not report it. The first request may still arrive.
A transactional id keeps its epoch from one transaction to the next, so a broker cannot distinguish a late EndTxn from
that of the next transaction. These tests delay such requests.
"""

from __future__ import annotations

import math
from contextlib import closing

import pytest

from pipeline.config import KafkaSettings, WorkerSettings
from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import AbortableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.producer import KafkaProducers, KafkaTransactionalProducer
from pipeline.ports import Output, Step, TopicSpec
from pipeline.runtime.environment import NoSteps
from pipeline.transactions import engine
from tests.conftest import KafkaUnderTest
from tests.support.checker import HistoryError
from tests.support.kafka.harness import Workbench
from tests.support.kafka.in_process import InProcess, sums_app
from tests.support.kafka.proxy import Api, Fault, Proxy

pytestmark = pytest.mark.kafka

ROUNDS = 3  # at least this many commits of each task after its acquire
PER_ROUND = 100
ABORT = b"\0"  # the last bytes of such an EndTxn; a commit has a 1
# INVALID_PRODUCER_EPOCH and PRODUCER_FENCED.
FENCED = {47, 90}


class Late:
    """`ports.Steps` that releases a late request of a task in the middle of its next transaction.

    The next transaction is the first one after the request was held, once the task is live. The request is released
    when the outputs are on the broker, the entry's partition belongs to the transaction, and the entry is in flight.
    `verdict`: the broker's answer.
    """

    def __init__(self, proxy: Proxy, task: TaskId, request: Fault) -> None:
        self._proxy = proxy
        self._task = task
        self._request = request
        self._entry: Fault | None = None
        self._live = False
        self._outputs_before: int | None = None
        self.verdict: int | None = None

    def reached(self, step: Step, task: TaskId) -> None:
        if task != self._task or self.verdict is not None:
            return
        if step is Step.AFTER_FENCE:
            self._live = False  # restored again: an acquire has no outputs
        elif step is Step.AFTER_ACQUIRE:
            self._live = True
        elif step is Step.BEFORE_BEGIN and self._live and self._request.fired:
            self._outputs_before = self._outputs()
        elif step is Step.AFTER_OUTPUTS and self._outputs_before is not None:
            before = self._outputs_before
            self._proxy.wait_until(lambda: self._outputs() > before, "the outputs to be on the broker")
            self._entry = self._proxy.hold(
                Api.PRODUCE, self._task.transactional_id.encode(), self._task.journal.topic.encode()
            )
        elif step is Step.AFTER_ENTRY and self._entry is not None:
            self._entry.wait_until_fired()
            self._request.release()
            self.verdict = self._request.answer()
            self._entry.release()

    def _outputs(self) -> int:
        names = self._task.transactional_id.encode(), f"{self._task.app}-sums".encode()
        return len(self._proxy.answered(Api.PRODUCE, *names))


class Case:
    """One worker behind the proxy, and the transactional id of its first task."""

    def __init__(self, bench: Workbench, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bench = bench
        self._proxy = proxy
        self._app = sums_app(bench, monkeypatch)
        self.task = TaskId(bench.prefix, "main", 0)
        self.id = self.task.transactional_id.encode()
        self.journal = self.task.journal.topic.encode()
        self.outputs = f"{bench.prefix}-sums".encode()
        self.log = ""

    def run(self, late: Fault | None = None, transaction_timeout_ms: int = 20_000) -> int | None:
        """Process all rounds. Returns the broker's answer to the late request."""
        settings = WorkerSettings(
            state_dir=self._bench.state_dir,
            worker_id="behind-proxy",
            commit_interval_ms=20,
            transaction_timeout_ms=transaction_timeout_ms,
        )
        steps = Late(self._proxy, self.task, late) if late is not None else NoSteps()
        with closing(InProcess(self._app, self._bench, self._proxy.servers, steps, settings)) as worker:
            worker.process(PER_ROUND, ROUNDS)
            self.log = worker.log
        return steps.verdict if isinstance(steps, Late) else None

    def inits(self) -> int:
        """The number of fences of the task: one for the acquire, and one per renewal."""
        return sum(exchange.error == 0 for exchange in self._proxy.answered(Api.INIT_PRODUCER_ID, self.id))


@pytest.fixture
def bench(several: Workbench) -> Workbench:
    """Tasks of several partitions: their transactions have several output partitions open."""
    return several


@pytest.fixture
def case(bench: Workbench, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The sums app behind the proxy."""
    return Case(bench, proxy, monkeypatch)


class Pair:
    """Two transactions of one producer, each with an output and an entry. The end request of the first is late."""

    def __init__(self, kafka: KafkaUnderTest, proxy: Proxy, name: str) -> None:
        self._direct = KafkaSettings(kafka.bootstrap_servers)
        self._proxy = proxy
        self._name = name
        self._producers = KafkaProducers(KafkaSettings(proxy.servers))
        self._output, self._journal = TopicPartition(f"{name}-out", 0), TopicPartition(f"{name}-journal", 0)
        with closing(KafkaCluster(self._direct)) as cluster:
            cluster.create([TopicSpec(self._output.topic, 1), TopicSpec(self._journal.topic, 1)])

    def write(self, end: str, half: str) -> None:
        """Write both. `half` of the second is at the broker when the late `end` of the first arrives."""
        with closing(self._producers.open(self._name)) as producer:
            producer.init()
            producer.begin()
            self._send(producer, "output", "first")
            self._send(producer, "entry", "first")
            producer.flush()
            late = self._proxy.hold(Api.END_TXN, cut=True)
            getattr(producer, end)()  # returns normally: the client has sent the request twice
            assert late.fired
            before = len(self._proxy.answered(Api.PRODUCE))
            producer.begin()
            self._send(producer, half, "second")
            self._proxy.wait_until(
                lambda: len(self._proxy.answered(Api.PRODUCE)) > before, f"the second {half} to be there"
            )
            late.release()
            assert late.answer() == 0
            if end == "abort":
                self._send(producer, "entry" if half == "output" else "output", "second")
                producer.flush()
                producer.commit()

    def seen(self) -> tuple[list[bytes], list[bytes]]:
        """The committed outputs and entries, once no transaction is open."""
        with closing(self._producers.open(self._name)) as successor:
            successor.init()
        with closing(KafkaJournalReader(self._direct)) as reader:
            outputs, entries = (
                [value for _, value in reader.read(partition, 0, reader.bounds(partition).stable_end)]
                for partition in (self._output, self._journal)
            )
        return outputs, entries

    def _send(self, producer: KafkaTransactionalProducer, what: str, which: str) -> None:
        if what == "output":
            producer.send([Output(self._output.topic, b"k", which.encode(), 0)])
        else:
            producer.append(self._journal, [which.encode()])


def test_a_late_commit_request_commits_the_half_of_the_next_transaction_that_is_there(
    kafka: KafkaUnderTest, proxy: Proxy, unique_name: str
) -> None:
    """The reason for renewals. If this fails, client and broker distinguish the requests (KIP-890)."""
    pair = Pair(kafka, proxy, unique_name)
    pair.write("commit", "output")
    assert pair.seen() == ([b"first", b"second"], [b"first"])


@pytest.mark.parametrize("half", ["output", "entry"])
def test_a_late_abort_request_takes_away_the_half_of_the_next_transaction_that_is_there(
    kafka: KafkaUnderTest, proxy: Proxy, unique_name: str, half: str
) -> None:
    """The rest is committed: a position without its outputs, or outputs that will be written again.

    This is why a renewal follows every abort, even a clean one.
    """
    pair = Pair(kafka, proxy, unique_name)
    pair.write("abort", half)
    assert pair.seen() == (([], [b"second"]) if half == "output" else ([b"second"], []))


@pytest.mark.unverified
def test_without_renewal_a_late_commit_request_doubles_outputs(
    case: Case, bench: Workbench, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without renewals the worker must fail, or the test below could not detect a missing renewal."""
    monkeypatch.setattr(engine, "RENEW_SHARE", math.inf)
    late = proxy.hold(Api.END_TXN, case.id, nth=2, cut=True)
    assert case.run(late) == 0
    found, expected = bench.outputs(), bench.expected()
    assert sum(map(len, found.values())) > len(bench.sent)
    assert {key: sorted(set(values)) for key, values in found.items()} == expected
    with pytest.raises(HistoryError, match="have more outputs than they should"):
        bench.checker.check()


def _refuse_the_first_commit(monkeypatch: pytest.MonkeyPatch, task: TaskId) -> None:
    """Abort the first commit although its records are delivered, so that the client does not raise its epoch.

    After expired records, the client itself raises its epoch with the abort, which makes a renewal unnecessary.
    """
    flush, calls = KafkaTransactionalProducer.flush, [0]

    def refused(producer: KafkaTransactionalProducer) -> int:
        offset = flush(producer)
        calls[0] += producer._id == task.transactional_id
        if calls[0] == 2:  # the first flush is that of the acquire
            calls[0] += 1
            raise AbortableError("refused")
        return offset

    monkeypatch.setattr(KafkaTransactionalProducer, "flush", refused)


def test_an_abort_request_that_comes_late_is_fenced_by_the_renewal(
    case: Case, bench: Workbench, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewal after an abort is the only step here that raises the epoch."""
    _refuse_the_first_commit(monkeypatch, case.task)
    late = proxy.hold(Api.END_TXN, case.id, nth=2, cut=True)
    assert case.run(late) in FENCED
    assert late.exchange is not None
    assert late.exchange.request.frame.endswith(ABORT)
    assert "commit_aborted" in case.log
    bench.check()


@pytest.mark.parametrize("nth", [1, 2], ids=["of-an-acquire", "of-a-commit"])
def test_a_commit_request_that_comes_late_is_fenced_by_the_renewal(
    case: Case, bench: Workbench, proxy: Proxy, nth: int
) -> None:
    """The client reports a clean commit, so its duration is the only sign of a repeated request."""
    late = proxy.hold(Api.END_TXN, case.id, nth=nth, cut=True)
    assert case.run(late) in FENCED
    assert case.inits() >= 2
    bench.check()


def test_a_renewal_request_that_comes_late_costs_a_restore_and_nothing_else(
    case: Case, bench: Workbench, proxy: Proxy
) -> None:
    """The late request fences the worker's own producer, and the worker must acquire its task again."""
    late = proxy.hold(Api.INIT_PRODUCER_ID, case.id, cut=True)
    assert case.run(late) is not None
    assert "task_fenced" in case.log
    bench.check()


@pytest.mark.parametrize("what", ["outputs", "entry"])
def test_records_that_were_sent_again_are_not_added_to_the_next_transaction_when_the_first_come_late(
    case: Case, bench: Workbench, proxy: Proxy, what: str
) -> None:
    """Without a renewal in between, only the sequence numbers of the idempotent producer prevent duplicates."""
    topic, nth = (case.outputs, 1) if what == "outputs" else (case.journal, 2)
    late = proxy.hold(Api.PRODUCE, case.id, topic, nth=nth, cut=True)
    assert case.run(late) is not None
    bench.check()


def test_a_partition_that_is_added_to_a_transaction_late_changes_nothing(
    case: Case, bench: Workbench, proxy: Proxy
) -> None:
    """The late request may open a transaction, or join one that already has the partition."""
    late = proxy.hold(Api.ADD_PARTITIONS_TO_TXN, case.id, nth=2, cut=True)
    assert case.run(late) is not None
    bench.check()


def test_records_that_outlive_their_transaction_are_refused_when_they_arrive(
    case: Case, bench: Workbench, proxy: Proxy
) -> None:
    """Records of an aborted transaction that was published again must not become a part of another one.

    The renewal prevents it, and so does the client, which raises its epoch after expired records.
    """
    late = proxy.hold(Api.PRODUCE, case.id, case.outputs)
    assert case.run(late, transaction_timeout_ms=10_000) in FENCED
    assert "commit_aborted" in case.log
    bench.check()


@pytest.mark.parametrize("times", [1, 2])
def test_a_commit_whose_answer_is_lost_counts_once(
    case: Case, bench: Workbench, proxy: Proxy, times: int
) -> None:
    """The client repeats the request for a commit that has happened, which must not commit twice."""
    lost = [proxy.lose_answer(Api.END_TXN, case.id, nth=2) for _ in range(times)]
    case.run()
    assert [fault.answer() for fault in lost] == [0] * times
    assert case.inits() >= 2
    bench.check()
