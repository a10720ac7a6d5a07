"""Cases of applications that count and sum: tables, groups, sets, several topics."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

import msgspec

from tests.support.faust.cases import Case, Records, Results, in_any_order, key_of, values_of
from tests.support.faust.kafka import Input

__all__ = ["COUNTING_CASES"]

COUNT = 300
WORDS = ("to", "be", "or", "not", "that", "is", "the", "question", "Whether", "nobler")


def json_input(topic: str, key: str, value: Any) -> Input:
    """An input of JSON."""
    return Input(topic, key, msgspec.json.encode(value))


def posts(draw: random.Random) -> list[Input]:
    """Posts of a few words."""
    return [Input("posts", None, " ".join(draw.choices(WORDS, k=4)).encode()) for _ in range(COUNT)]


def counted_words(records: Records) -> Results:
    """The words, and how often each was in a post."""
    found = Results()
    texts = [(message.value or b"").decode().lower() for message in records["posts"]]
    for word in (word for text in texts for word in re.findall(r"\w+", text)):
        found.outputs["words"].append((word, word))
        found.tables["counts"][word] = found.tables["counts"].get(word, 0) + 1
    return found


def views(draw: random.Random) -> list[Input]:
    """Views of users. Seconds are binary fractions, whose sum is the same in any order."""
    return [
        json_input(
            "views",
            (user := f"user-{draw.randrange(20)}"),
            {"page": f"p{draw.randrange(7)}", "user": user, "seconds": draw.randrange(40) / 4},
        )
        for _ in range(COUNT)
    ]


def counted_views(records: Records) -> Results:
    """Views and seconds by page."""
    found = Results()
    for _, view in values_of(records, "views"):
        page, counts, seconds = view["page"], found.tables["view-counts"], found.tables["seconds"]
        counts[page] = counts.get(page, 0) + 1
        seconds[page] = seconds.get(page, 0.0) + view["seconds"]
    return found


def view_pages(results: Results) -> dict[str, Any]:
    """The page of each page."""
    counts = results.tables["view-counts"]
    return {f"/views/{page}/": {"page": page, "views": count} for page, count in counts.items()}


def orders(draw: random.Random) -> list[Input]:
    """Orders of customers of four shops."""
    return [
        json_input(
            "orders",
            (customer := f"{draw.choice('abcd')}{draw.randrange(5)}"),
            {"customer": customer, "product": f"product-{draw.randrange(9)}", "amount": draw.randrange(100)},
        )
        for _ in range(COUNT)
    ]


def order_totals(records: Records) -> Results:
    """Sums by product and shop; copies of all orders, and the number of large ones by customer."""
    found = Results()
    products, shops, large = (found.tables[name] for name in ("products", "shops", "large-counts"))
    for customer, order in values_of(records, "orders"):
        products[order["product"]] = products.get(order["product"], 0) + order["amount"]
        shops[customer[0]] = shops.get(customer[0], 0) + order["amount"]
        large.update({customer: large.get(customer, 0) + 1} if order["amount"] >= 50 else {})
        found.outputs["copied-orders"].append((customer, order))
    return found


def measurements(draw: random.Random) -> list[Input]:
    """Temperatures around the limit."""
    return [
        json_input(
            "measurements",
            (sensor := f"sensor-{draw.randrange(6)}"),
            {"sensor": sensor, "celsius": draw.choice((50.5, 70.0, 85.0, 90.25, 95.0)), "number": number},
        )
        for number in range(COUNT)
    ]


def raised_alarms(records: Records) -> Results:
    """Alarms, and the state of each sensor."""
    found = Results()
    for key, seen in values_of(records, "measurements"):
        celsius = seen["celsius"]
        state = found.tables["sensors"].setdefault(key, {"hot": 0, "alarm": False, "highest": -273.15})
        state["hot"] = state["hot"] + 1 if celsius > 80 else 0
        state["highest"] = max(state["highest"], celsius)
        begins, ends = not state["alarm"] and state["hot"] >= 3, state["alarm"] and celsius < 60
        if begins or ends:
            state["alarm"] = begins
            alarm = {"sensor": key, "kind": "begin" if begins else "end"}
            found.outputs["alarms"].append((key, alarm | {"number": seen["number"], "celsius": celsius}))
    return found


def applications(draw: random.Random) -> list[Input]:
    """Applications for credit. Accounts are opened between them, and two never."""
    inputs = []
    unopened = [f"account-{number}" for number in range(12)]
    for number in range(COUNT):
        if number % 20 == 10 and len(unopened) > 2:
            account = unopened.pop(draw.randrange(len(unopened)))
            inputs.append(json_input("accounts", account, {"account": account, "limit": "250.50"}))
        account = f"account-{draw.randrange(12)}"
        amount = f"{draw.randrange(1, 40)}.{draw.randrange(10, 100)}"
        inputs.append(
            json_input("applications", account, {"account": account, "number": number, "amount": amount})
        )
    return inputs


def decided(records: Records) -> Results:
    """Decisions. The order of the two topics does not matter, since an application waits for its account."""
    found = Results()
    limits = {key: Decimal(account["limit"]) for key, account in values_of(records, "accounts")}
    used: dict[str, Decimal] = dict.fromkeys(limits, Decimal(0))
    for key, application in values_of(records, "applications"):
        if key not in limits:
            found.tables["waiting"].setdefault(key, []).append(application)
            continue
        amount = Decimal(application["amount"])
        granted = used[key] + amount <= limits[key]
        used[key] += amount if granted else 0
        decision = {"account": key, "number": application["number"], "granted": granted}
        found.outputs["decisions"].append((None, decision | {"left": str(limits[key] - used[key])}))
    found.tables["credits"] = {
        key: {"limit": str(limit), "used": str(used[key])} for key, limit in limits.items()
    }
    return found


def visits(draw: random.Random) -> list[Input]:
    """Visitors who enter and leave rooms; sometimes a room is emptied."""
    actions = draw.choices(("enter", "leave", "group", "clear"), weights=(50, 35, 13, 2), k=COUNT)
    return [
        json_input(
            "visits",
            (room := f"room-{draw.randrange(5)}"),
            {"room": room, "visitor": f"v{draw.randrange(12)}", "action": action},
        )
        for action in actions
    ]


def present_visitors(records: Records) -> Results:
    """Who is in each room, and the number after each visit. A room that was never changed has no row."""
    found, rooms = Results(), defaultdict[str, set[str]](set)
    for key, visit in values_of(records, "visits"):
        visitor, action = visit["visitor"], visit["action"]
        if action == "clear":
            rooms[key].clear()
        elif action == "leave":
            rooms[key].discard(visitor)
        else:
            rooms[key] |= {visitor, f"{visitor}-guest"} if action == "group" else {visitor}
        found.outputs["present"].append((key, len(rooms[key])))
    found.tables["rooms"] = {key: sorted(members) for key, members in rooms.items()}
    return found


def games(draw: random.Random) -> list[Input]:
    """Points that are won and lost."""
    return [json_input("games", f"player-{draw.randrange(9)}", draw.randrange(-6, 12)) for _ in range(COUNT)]


def leaders(records: Records) -> Results:
    """The best three players after each game. A player below zero is out."""
    found, points = Results(), Counter[str]()
    for player, won in values_of(records, "games"):
        points[player] += won
        if points[player] < 0:
            del points[player]
        best = sorted(points.items(), key=lambda row: (-row[1], row[0]))
        result = {"players": len(points), "best": [list(row) for row in best[:3]]}
        found.outputs["leaders"].append((None, result))
    found.tables["points"] = dict(points)
    return found


def notes(draw: random.Random) -> list[Input]:
    """Notes in JSON, in reverse order."""
    return [
        Input(
            "notes",
            (author := f"author-{draw.randrange(8)}"),
            msgspec.json.encode({"author": author, "text": f"note {number}"})[::-1],
        )
        for number in range(COUNT)
    ]


def kept_notes(records: Records) -> Results:
    """The latest note of each author."""
    found = Results()
    cards = found.tables["latest"]
    for message in records["notes"]:
        key, note = key_of(message), msgspec.json.decode((message.value or b"")[::-1])
        card = {"author": key, "notes": cards[key]["notes"] + 1 if key in cards else 1, "last": note["text"]}
        cards[key] = card
        found.outputs["cards"].append((key, card))
        found.outputs["mirrors"].append((key, note["text"]))
    return found


def from_base64(value: bytes) -> Any:
    """JSON that is encoded as base64."""
    return msgspec.json.decode(msgspec.json.decode(b'"' + value.strip() + b'"', type=bytes))


def from_mirror(value: bytes) -> Any:
    """JSON in reverse order."""
    return msgspec.json.decode(value[::-1])


COUNTING_CASES = (
    Case(
        "word_count",
        "word-count",
        posts,
        counted_words,
        sources=("posts",),
        outputs=("words",),
        tables=("counts",),
    ),
    Case(
        "page_views",
        "page-views",
        views,
        counted_views,
        sources=("views",),
        tables=("view-counts", "seconds"),
        get=view_pages,
        post={"/view/": {"page": "p3", "user": "user-1"}},
    ),
    Case(
        "product_totals",
        "product-totals",
        orders,
        order_totals,
        sources=("orders",),
        outputs=("copied-orders",),
        tables=("products", "shops", "large-counts"),
    ),
    Case(
        "sensor_alarms",
        "sensor-alarms",
        measurements,
        raised_alarms,
        sources=("measurements",),
        outputs=("alarms",),
        tables=("sensors",),
    ),
    Case(
        "credit_checks",
        "credit-checks",
        applications,
        decided,
        sources=("accounts", "applications"),
        outputs=("decisions",),
        tables=("credits", "waiting"),
        compared={"decisions": in_any_order},
    ),
    Case(
        "visitors",
        "visitors",
        visits,
        present_visitors,
        sources=("visits",),
        outputs=("present",),
        set_tables=("rooms",),
    ),
    Case(
        "leaderboard",
        "leaderboard",
        games,
        leaders,
        sources=("games",),
        outputs=("leaders",),
        tables=("points",),
        partitions=1,
    ),
    Case(
        "secret_notes",
        "secret-notes",
        notes,
        kept_notes,
        sources=("notes",),
        outputs=("cards", "mirrors"),
        tables=("latest",),
        decode={"cards": from_base64, "latest": from_base64, "mirrors": from_mirror},
    ),
)
