"""A checker of committed records that shares no code with the package: `Checker`.

It reads the committed records of the real Kafka (`KafkaLog`) or the in-memory one (`MemoryLog`), decodes journals
with its own decoder, and compares inputs, journals and outputs. It verifies:

    journals   every chunk and its checksum; seq without a gap from 1, or from where the journal was truncated;
               one genesis, in all partitions or in none; the chain; each nonce once; positions that never fall,
               except by a reset; only the owner of the last acquire entry commits; the entry's place, the counted
               bytes, and the checkpoints that it names
    outputs    of each input below the journal's position one in each promised topic, or a dead letter, or none for a
               duplicate; none of an input at or beyond the position, of an aborted one, or twice; in the order of the
               inputs; a key in one partition only
    tables     the fold of the journal's deltas holds, for each key, the value of the key's last output
    loads      the receipts of a load are numbered without a gap, each nonce once, and never go back
    readers    a reader that has followed the log from the beginning and one that reads it afresh agree
    the end    no transaction is open: the last stable offset is the high watermark

A header of an output names its input (`made_from`). No module of this folder imports the package.
"""

from __future__ import annotations

from tests.support.checker.checker import Checker, HistoryError
from tests.support.checker.kafka import KafkaLog
from tests.support.checker.loads import LOADS
from tests.support.checker.memory import MemoryLog
from tests.support.checker.outputs import Promise
from tests.support.checker.tracing import made_from

__all__ = ["LOADS", "Checker", "HistoryError", "KafkaLog", "MemoryLog", "Promise", "made_from"]
