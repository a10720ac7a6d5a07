"""`pipeline` with small commits of a copy, which stops in the middle of one of them, so that a kill interrupts it."""

from __future__ import annotations

import threading

from pipeline.cli.entry import main
from pipeline.kafka.producer import KafkaTransactionalProducer
from pipeline.ops.migration import copying

BATCH_RECORDS = 10
FLUSHES = 12  # the first ones are those of the genesis, the barrier and the acquire entry


def stop_in_a_transaction() -> None:
    """Let the process wait in a transaction, whose records the broker has."""
    flush, left = KafkaTransactionalProducer.flush, [FLUSHES]

    def counted(producer: KafkaTransactionalProducer) -> int:
        offset = flush(producer)
        left[0] -= 1
        if left[0] == 0:
            threading.Event().wait()
        return offset

    KafkaTransactionalProducer.flush = counted  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    copying.BATCH_RECORDS = BATCH_RECORDS
    stop_in_a_transaction()
    main()
