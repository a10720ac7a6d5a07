"""The demonstration's comparison: the expected results are those of the app, and every difference is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pipeline.demo.app import Payment, accounts, app, payments, results
from pipeline.demo.comparison import Expected, Found, compare, fold, write_payments
from pipeline.testing import TestDriver

_RESULTS: dict[str, list[object]] = {"ann": [{"number": 0}, {"number": 2}], "bob": [{"number": 1}]}
_ACCOUNTS: dict[str, object] = {"ann": {"balance": 5}, "bob": {"balance": 0}}

Rows = list[tuple[str, object]]


def _plain(value: object) -> object:
    return json.loads(msgspec.json.encode(value))


def test_the_app_computes_the_expected_results(tmp_path: Path) -> None:
    """Otherwise each demonstration reports an error that Kafka and the kills have not caused."""
    file = tmp_path / "payments.jsonl"
    write_payments(file, 3_000, seed=1)
    driver = TestDriver(app, partitions=4)
    for line in file.read_text().splitlines():
        fields = json.loads(line)
        driver.send(payments, fields["account"], Payment(fields["number"], fields["cents"]))
    driver.run()
    found = Expected()
    for event in driver.outputs(results):
        found.results.setdefault(event.key, []).append(_plain(event.value))
    found.accounts.update({name: _plain(account) for name, account in driver.table(accounts).items()})
    assert found == fold(file)


def test_payments_are_accepted_and_refused(tmp_path: Path) -> None:
    """If all were accepted, the order of the payments would not matter, and a reordering would not be found."""
    file = tmp_path / "payments.jsonl"
    write_payments(file, 3_000, seed=1)
    accepted = [value["accepted"] for each in fold(file).results.values() for value in each]  # type: ignore[index]
    assert 0.2 < sum(accepted) / len(accepted) < 0.9


def test_a_seed_always_gives_the_same_payments(tmp_path: Path) -> None:
    """A run that failed must be repeatable."""
    texts = []
    for number, seed in enumerate([1, 1, 2]):
        write_payments(tmp_path / str(number), 100, seed)
        texts.append((tmp_path / str(number)).read_text())
    assert texts[0] == texts[1] != texts[2]


def _found() -> tuple[Rows, Rows]:
    return [(key, value) for key, values in _RESULTS.items() for value in values], list(_ACCOUNTS.items())


def test_equal_results_are_exact() -> None:
    """Otherwise every run would fail."""
    lines = compare(_RESULTS, _ACCOUNTS, Found(*_found()))
    assert [line.exact for line in lines] == [True, True]
    assert [(line.expected, line.found) for line in lines] == [(3, 3), (2, 2)]


def _lose(records: Rows, _rows: Rows) -> None:
    records.pop(0)


def _duplicate(records: Rows, _rows: Rows) -> None:
    records.append(records[0])


def _reorder(records: Rows, _rows: Rows) -> None:
    records[0], records[1] = records[1], records[0]


def _misplace(records: Rows, _rows: Rows) -> None:
    records[2] = ("eve", records[2][1])


def _lose_row(_records: Rows, rows: Rows) -> None:
    rows.pop()


def _stale_row(_records: Rows, rows: Rows) -> None:
    rows[0] = ("ann", {"balance": 4})


def _row_of_two_tasks(_records: Rows, rows: Rows) -> None:
    rows.append(rows[0])


@pytest.mark.parametrize(
    ("damage", "numbers"),
    [
        (_lose, (1, 0, 1, 0, 0, 0)),
        (_duplicate, (0, 1, 1, 0, 0, 0)),
        (_reorder, (0, 0, 1, 0, 0, 0)),
        (_misplace, (1, 1, 2, 0, 0, 0)),
        (_lose_row, (0, 0, 0, 1, 0, 1)),
        (_stale_row, (0, 0, 0, 1, 1, 1)),
        (_row_of_two_tasks, (0, 0, 0, 0, 1, 1)),
    ],
)
def test_each_kind_of_difference_is_found(
    damage: Callable[[Rows, Rows], None], numbers: tuple[int, ...]
) -> None:
    """A comparison that overlooks one makes the demonstration worthless."""
    found = _found()
    damage(*found)
    lines = compare(_RESULTS, _ACCOUNTS, Found(*found))
    assert tuple(n for line in lines for n in (line.lost, line.duplicated, line.wrong)) == numbers
    assert not all(line.exact for line in lines)
