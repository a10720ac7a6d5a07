"""Cases of applications with windows, batches, chains of agents, and senders outside of agents."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from tests.support.faust.cases import (
    Case,
    Pairs,
    Records,
    Results,
    at_least_once,
    decoded,
    in_any_order,
    key_of,
    values_of,
)
from tests.support.faust.counting_cases import COUNT, json_input
from tests.support.faust.kafka import Input

__all__ = ["STREAM_CASES"]

START = datetime(2024, 2, 28, 23, 59, 20, tzinfo=UTC)
# A window of Faust ends a tenth of a second before the next one.
GAP_S = 0.1
QUESTIONS = 12


def window(start_s: float, size_s: int) -> tuple[float, float]:
    """A window as a part of a key."""
    return (float(start_s), start_s + size_s - GAP_S)


def readings(draw: random.Random) -> list[Input]:
    """Readings out of order, within half a minute."""
    return [
        json_input(
            "readings",
            (meter := f"meter-{draw.randrange(6)}"),
            {
                "meter": meter,
                "taken": (START + timedelta(seconds=number / 4 + draw.randrange(30))).isoformat(),
                "watts": draw.randrange(1_000),
            },
        )
        for number in range(COUNT)
    ]


def summed_readings(records: Records) -> Results:
    """Sums and values of each window of ten seconds."""
    found = Results()
    for meter, reading in values_of(records, "readings"):
        start_s = datetime.fromisoformat(reading["taken"]).timestamp() // 10 * 10
        row, watts = (meter, window(start_s, 10)), reading["watts"]
        totals, each = found.tables["totals"], found.tables["each"]
        totals[row] = totals.get(row, 0) + watts
        each[row] = [*each.get(row, []), watts]
        result = {"meter": meter, "readings": len(each[row]), "watts": totals[row]}
        found.outputs["sums"].append((meter, result))
    return found


def clicks(draw: random.Random) -> list[Input]:
    """Clicks whose records have timestamps out of order."""
    start_ms = int(START.timestamp() * 1000)
    return [
        Input(
            "clicks",
            f"page-{draw.randrange(6)}",
            msgspec.json.encode(number),
            at_ms=start_ms + number * 900 + draw.randrange(25_000),
        )
        for number in range(COUNT)
    ]


def counted_clicks(records: Records) -> Results:
    """Counts of the three windows of each click.

    `now()` is the window that starts last of those that the partition has; Faust has it by the table's latest end.
    """
    found, latest = Results(), defaultdict[int, float](float)
    counts: Counter[Any] = Counter()
    for message in records["clicks"]:
        key, at_s = key_of(message), message.at_ms / 1000
        last_s = at_s // 20 * 20
        for start_s in (last_s - 40, last_s - 20, last_s):
            counts[key, window(start_s, 60)] += 1
        latest[message.partition] = max(latest[message.partition], last_s)
        trend = {
            "number": decoded(message),
            "now": counts[key, window(latest[message.partition], 60)],
            "current": counts[key, window(last_s, 60)],
            "minute_before": counts[key, window((at_s - 60) // 20 * 20, 60)],
        }
        found.outputs["trends"].append((key, trend))
    found.tables["click-counts"] = {row: count for row, count in counts.items() if count}
    return found


def payments(draw: random.Random) -> list[Input]:
    """Payments, numbered."""
    return [
        json_input("payments", (account := f"a{draw.randrange(9)}"), {"account": account, "number": number})
        for number in range(COUNT)
    ]


def written_payments(records: Records) -> Results:
    """Each payment once. Which payments share a batch depends on the clock."""
    found = Results()
    for _, payment in values_of(records, "payments"):
        found.outputs["payment-batches"].append((None, [[payment["account"], payment["number"]]]))
    return found


def payments_of_batches(pairs: Pairs) -> list[Any]:
    """The payments of all batches. Fails for a batch that is too large, or out of order."""
    for _, batch in pairs:
        assert len(batch) <= 7, batch
        for account in {name for name, _ in batch}:
            numbers = [number for name, number in batch if name == account]
            assert numbers == sorted(numbers), batch
    return sorted(payment for _, batch in pairs for payment in batch)


def texts(draw: random.Random) -> list[Input]:
    """Texts with spaces, some of them empty."""
    return [
        json_input(
            "texts",
            (author := f"author-{draw.randrange(8)}"),
            {"author": author, "text": "  ".join(draw.choices(("", "a", "few", "words"), k=4))},
        )
        for _ in range(COUNT)
    ]


def chained(records: Records) -> Results:
    """What each step of the chain gives on."""
    found = Results()
    for _, text in values_of(records, "texts"):
        clean = " ".join(text["text"].split())
        if not clean:
            continue
        author, length = text["author"], {"author": text["author"], "characters": len(clean)}
        found.outputs["cleaned"].append((None, {"author": author, "text": clean}))
        found.outputs["lengths"].append((author, length))
        if len(clean) >= 10:
            found.outputs["longest"].append((author, length))
    return found


def path_clicks(draw: random.Random) -> list[Input]:
    """Clicks of users, some with a header."""
    return [
        Input(
            "path-clicks",
            (user := f"user-{draw.randrange(9)}"),
            msgspec.json.encode({"user": user, "path": draw.choice(("/", "/a", "/buy")), "number": number}),
            headers=[("test", b"yes")] if draw.random() < 0.2 else [],
        )
        for number in range(COUNT)
    ]


def followed(records: Records) -> Results:
    """Copies, which have no key, purchases, and the last three steps of each user."""
    found = Results()
    steps = found.tables["steps"]
    for message in records["path-clicks"]:
        key, click = key_of(message), decoded(message)
        found.outputs["copies"].append((None, click))
        if click["path"] == "/buy":
            found.outputs["bought"].append((key, click))
        steps[key] = [*steps.get(key, []), click["path"]][-3:]
        path = {"path": steps[key], "test": dict(message.headers).get("test") == b"yes"}
        found.outputs["paths"].append((key, path))
    return found


def numbers(draw: random.Random) -> list[Input]:
    """Numbers by key."""
    return [json_input("numbers", f"k{draw.randrange(9)}", draw.randrange(1_000)) for _ in range(COUNT)]


def doubled(records: Records) -> Results:
    """Each number plus one, and the answers to the questions."""
    found = Results()
    found.outputs["kept"] = [(key, number + 1) for key, number in values_of(records, "numbers")]
    found.outputs["answers"] = [(str(number), 2 * number) for number in range(QUESTIONS)]
    return found


def counted_ticks(records: Records) -> Results:
    """Each tick of a sender has the next number."""
    found = Results()
    totals = found.tables["tick-totals"]
    for sender, _ in values_of(records, "ticks"):
        totals[sender] = totals.get(sender, 0) + 1
        found.outputs["seen"].append((sender, {"sender": sender, "number": totals[sender]}))
    return found


def enough_ticks(records: Records) -> bool:
    """Whether each sender has sent; the crontab once a minute."""
    sent = Counter(key_of(message) for message in records["ticks"])
    return min(sent["timer"], sent["leader"]) >= 3 and bool(sent["task"] and sent["crontab"])


STREAM_CASES = (
    Case(
        "tumbling_sums",
        "tumbling-sums",
        readings,
        summed_readings,
        sources=("readings",),
        outputs=("sums",),
        tables=("totals", "each"),
    ),
    Case(
        "hopping_clicks",
        "hopping-clicks",
        clicks,
        counted_clicks,
        sources=("clicks",),
        outputs=("trends",),
        tables=("click-counts",),
    ),
    Case(
        "batches",
        "batches",
        payments,
        written_payments,
        sources=("payments",),
        outputs=("payment-batches",),
        compared={"payment-batches": payments_of_batches},
    ),
    Case(
        "chain",
        "chain",
        texts,
        chained,
        sources=("texts",),
        outputs=("cleaned", "lengths", "longest"),
        compared=dict.fromkeys(("cleaned", "lengths", "longest"), in_any_order),
    ),
    Case(
        "click_paths",
        "click-paths",
        path_clicks,
        followed,
        sources=("path-clicks",),
        outputs=("copies", "bought", "paths"),
        compared={"copies": in_any_order},
        tables=("steps",),
    ),
    Case(
        "doubler",
        "doubler",
        numbers,
        doubled,
        sources=("numbers",),
        outputs=("kept", "answers"),
        compared={"answers": at_least_once},
    ),
    Case(
        "schedule",
        "schedule",
        lambda _draw: [],
        counted_ticks,
        sources=("ticks",),
        outputs=("seen",),
        tables=("tick-totals",),
        command=("send-one", "--number", "9"),
        sends=True,
        least=enough_ticks,
        deadline_s=120.0,
    ),
)
