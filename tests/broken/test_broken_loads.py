"""Broken on purpose: loads of files: how they go on."""

from __future__ import annotations

import pytest

from tests.broken.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a refused record is sent five times",
        "client/transactions.py",
        "            if isinstance(reason, RefusedError):  # for what",
        "            if False:  # for what",
        "tests/client/test_transactions.py refused_record",
    ),
    Broken(
        "finished files of a load are not compared",
        "client/loading/series.py",
        "            if other:\n",
        "            if False:\n",
        "tests/client/loading/test_loader.py begins_otherwise",
    ),
    Broken(
        "the loaded part of a file is not compared",
        "client/loading/series.py",
        "        check_prefix(position, cursor.skip_to(position.offset, position.line))\n",
        "        cursor.skip_to(position.offset, position.line)\n",
        "tests/client/loading/test_loader.py changed_beginning",
    ),
    Broken(
        "a line that was loaded without its end may go on",
        "client/loading/series.py",
        "        if not at_end and not cursor.ends_line:\n",
        "        if False:\n",
        "tests/client/loading/test_series.py without_its_end",
    ),
    Broken(
        "a Parquet file is known by its length alone",
        "client/loading/formats/parquet.py",
        "                digest.update(block)\n",
        "                pass\n",
        "tests/client/loading/formats/test_parquet.py footer",
    ),
    Broken(
        "a slow commit of a load is taken for a clean one",
        "client/transactions.py",
        "                if not slow:\n",
        "                if True:\n",
        "tests/client/loading/test_load_faults.py slow_commit",
    ),
]


@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
