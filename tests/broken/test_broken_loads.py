"""Broken on purpose: how loads of files continue."""

from __future__ import annotations

import pytest

import pipeline.ops.loading.file_sequence
import pipeline.ops.loading.formats.parquet
import pipeline.ops.transactions
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a refused record is sent five times",
        pipeline.ops.transactions._Receipt.not_committed,
        "        if isinstance(error, RefusedError):  # for what",
        "        if False:  # for what",
        "tests/ops/test_transactions.py refused_record",
    ),
    Broken(
        "finished files of a load are not compared",
        pipeline.ops.loading.file_sequence.FileSequence._check_finished,
        "            if other:\n",
        "            if False:\n",
        "tests/ops/loading/test_loader.py begins_otherwise",
    ),
    Broken(
        "the loaded part of a file is not compared",
        pipeline.ops.loading.file_sequence.FileSequence.begin,
        "        check_prefix(position, cursor.skip_to(position.offset, position.line))\n",
        "        cursor.skip_to(position.offset, position.line)\n",
        "tests/ops/loading/test_loader.py changed_beginning",
    ),
    Broken(
        "a line that was loaded without its end may go on",
        pipeline.ops.loading.file_sequence.FileSequence.begin,
        "        if not at_end and not cursor.ends_line:\n",
        "        if False:\n",
        "tests/ops/loading/test_file_sequence.py without_its_end",
    ),
    Broken(
        "a Parquet file is known by its length alone",
        pipeline.ops.loading.formats.parquet.ParquetFile.__init__,
        "                digest.update(block)\n",
        "                pass\n",
        "tests/ops/loading/formats/test_parquet.py footer",
    ),
    Broken(
        "a slow commit of a load is taken for a clean one",
        pipeline.ops.transactions.ReceiptTransactions._confirm,
        "        if not self._engine.fence_due:\n            return\n",
        "        if True:\n            return\n",
        "tests/ops/loading/test_load_faults.py slow_commit",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
