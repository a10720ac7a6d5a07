"""The verdict of `make soak`: what counts as growth."""

from __future__ import annotations

import pytest

from benchmarks.soak import growth_per_minute, steady_stretches

RATE = 100


def _samples(resident: list[float], records: list[float] | None = None) -> list[dict[str, float]]:
    """One sample every 15 s. Without `records`, both stages keep up with the load."""
    return [
        {
            "second": 15.0 * number,
            "resident_bytes": value,
            "records": records[number] if records is not None else 2 * RATE * 15.0 * number,
        }
        for number, value in enumerate(resident)
    ]


def test_steady_growth_is_found_despite_noise() -> None:
    """Compactions move memory by more than an hour of a leak adds in a minute."""
    samples = _samples([1000 * number + (5000 if number % 3 else 0) for number in range(60)])
    (stretch,) = steady_stretches(samples, RATE)
    assert growth_per_minute([stretch], "resident_bytes") == pytest.approx(4000, rel=0.05)


def test_a_step_while_the_worker_is_stopped_is_not_growth() -> None:
    """Other work on the machine stops the worker, and its backlog takes memory once."""
    records = [2 * RATE * 15.0 * number for number in range(40)]
    records[20:22] = [records[19], records[19]]
    samples = _samples([100.0] * 20 + [900.0] * 20, records)
    stretches = steady_stretches(samples, RATE)
    assert [len(stretch) for stretch in stretches] == [20, 17]
    assert growth_per_minute(stretches, "resident_bytes") == 0


def test_a_worker_that_does_not_keep_up_gives_no_verdict() -> None:
    """The memory of a growing backlog is not that of a steady state."""
    samples = _samples([100.0] * 40, [RATE * 15.0 * number for number in range(40)])
    assert steady_stretches(samples, RATE) == []
