"""Verifies the receipts of loads: `Receipts`.

A load commits its position with each transaction, as JSON: `version`, `name`, `checksum` and `load`, which is the
position itself. Two positions with one number mean that a load was not continued from its last position.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import msgspec

from tests.support.checker.log import Record

__all__ = ["LOADS", "Receipts"]

LOADS = "pipeline.loads"


class Receipts:
    """The receipts in the topic of loads. `problems`: the errors that were found, as text."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._last: dict[str, dict[str, Any]] = {}
        self._nonces: set[tuple[str, str]] = set()

    def add(self, records: Sequence[Record], topics: Container[str]) -> None:
        """Verify the receipts since the last call, of loads to `topics`. Skips other records."""
        for record in records:
            try:
                load = msgspec.json.decode(record.value or b"")["load"]
                name, seq, nonce = load["name"], load["seq"], load["nonce"]
            except (msgspec.DecodeError, KeyError, TypeError):
                continue
            if load["topic"] not in topics:
                continue
            last = self._last.get(name)
            if last is not None and seq != last["seq"] + 1:
                self._wrong(record, name, f"transaction {seq} follows {last['seq']}")
            if (name, nonce) in self._nonces:
                self._wrong(record, name, f"transaction {seq} has the nonce of one before it")
            if last is not None and (load["run"], load["records"]) < (last["run"], last["records"]):
                self._wrong(record, name, f"{load['records']} records follow {last['records']}")
            self._last[name] = load
            self._nonces.add((name, nonce))

    def _wrong(self, record: Record, name: str, what: str) -> None:
        self.problems.append(f"{LOADS} at {record.offset}, load {name}: {what}")
