"""Recorded assignments. `python -m tests.support.core.ring_golden` writes them again."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.core.ring import RING_VERSION, assign

PATH = Path(__file__).parents[2] / "core" / "ring_golden.json"


def cases() -> dict[str, object]:
    """Some histories and their assignments."""
    tasks = [f"app/main/{number}" for number in range(24)]
    three = {"alpha": 1, "beta": 1, "gamma": 1}
    start = assign(tasks, three)
    joined = assign(tasks, {**three, "delta": 1}, start)
    left = assign(tasks, {"alpha": 1, "gamma": 1, "delta": 1}, joined)
    weighted = assign(tasks, {"alpha": 3, "beta": 1, "delta": 2})
    return {
        "version": RING_VERSION,
        "start": start,
        "joined": joined,
        "left": left,
        "weighted": weighted,
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(cases(), indent=1, ensure_ascii=True) + "\n")
