"""The checker of committed records, on the records of real workers, detects each forged record at once."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.support.checker import HistoryError, KafkaLog
from tests.support.checker.log import Place, Record
from tests.support.kafka.harness import DEADLINE_S, Workbench
from tests.support.kafka.producing import ordered_producer

pytestmark = pytest.mark.kafka


def produce(servers: str, topic: str, record: Record) -> None:
    """Write a record to partition 0 unchanged."""
    producer = ordered_producer(servers)
    producer.produce(topic, record.value, record.key, 0, headers=list(record.headers))
    assert producer.flush(DEADLINE_S) == 0


@pytest.mark.unverified
def test_what_no_worker_has_written_is_rejected(bench: Workbench) -> None:
    """A duplicate output or entry differs from the original only in its offset, and the checker must find it."""
    bench.send(30)
    bench.finish()
    output, journal = f"{bench.prefix}-sums", f"{bench.prefix}.main.journal"
    with closing(KafkaLog(bench.servers, {output, journal}.__contains__)) as log:
        copied = {
            topic: log.read({Place(topic, 0): 0})[Place(topic, 0)].records[-1] for topic in (output, journal)
        }
    for topic, said in (
        (output, "have more outputs than they should"),
        (journal, r"entry (\d+) at \d+ follows entry \1"),
    ):
        produce(bench.servers, topic, copied[topic])
        with pytest.raises(HistoryError, match=said):
            bench.checker.check()
