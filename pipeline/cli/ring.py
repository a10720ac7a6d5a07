"""`pipeline ring simulate`: how tasks are spread over workers, and what moves when one joins or leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import blake2b
from itertools import pairwise
from typing import Annotated, TypedDict

import typer

from pipeline.cli.options import JsonOption, print_json, say
from pipeline.cli.tables import Cell, Column, print_table
from pipeline.core.ring import Ring, assign, moves

__all__ = ["ring_app"]

ring_app = typer.Typer(help="Simulate how tasks are spread over workers.", no_args_is_help=True)

# From today's owners to tomorrow's; owners are empty at first.
Policy = Callable[[list[str], list[str], Mapping[str, str]], dict[str, str]]


@ring_app.callback()
def _group() -> None:
    """Keep `simulate` a subcommand of its own."""


@ring_app.command()
def simulate(
    workers: Annotated[int, typer.Option(help="Workers at first.", min=1, max=1_000)],
    tasks: Annotated[int, typer.Option(help="Tasks.", min=1, max=100_000)],
    join: Annotated[int, typer.Option(help="Workers that join, one after the other.", min=0)] = 0,
    leave: Annotated[
        int, typer.Option(help="Workers that leave after that, one after the other.", min=0)
    ] = 0,
    json: JsonOption = False,
) -> None:
    """Spread tasks over workers, let some join and some leave, and compare with other ways to do it.

    `moved` counts the tasks that change their worker, over all joins and leaves; `must move` those that have to:
    what a new worker gets, and what one that leaves had.
    """
    if leave >= workers + join:
        raise typer.BadParameter("somebody must stay", param_hint="--leave")
    # Host names of containers are random: a new one comes anywhere in their order.
    names = [blake2b(b"%d" % number, digest_size=6).hexdigest() for number in range(workers + join)]
    history = [sorted(names[: workers + joined]) for joined in range(join + 1)]
    for _ in range(leave):
        last = history[-1]
        history.append([name for name in last if name != last[len(last) // 2]])
    work = [f"task-{number}" for number in range(tasks)]
    rows = [_row(name, policy, work, history) for name, policy in _POLICIES.items()]
    if json:
        for row in rows:
            print_json(row)
        return
    print_table(_COLUMNS, map(_cells, rows))
    say(
        f"{tasks} tasks, {workers} workers, {join} joined, {leave} left; load: tasks of one worker at the end"
    )


_COLUMNS = (
    Column("way"),
    Column("load", number=True),
    Column("moved", number=True),
    Column("must move", number=True),
    Column("moved / must move", number=True),
)


class _RingRow(TypedDict):
    way: str
    least: int
    most: int
    moved: int
    must_move: int


def _cells(row: _RingRow) -> list[Cell]:
    ratio = f"{row['moved'] / row['must_move']:.2f}" if row["must_move"] else None
    return [row["way"], f"{row['least']} to {row['most']}", row["moved"], row["must_move"], ratio]


def _row(name: str, policy: Policy, work: list[str], history: list[list[str]]) -> _RingRow:
    owners = policy(work, history[0], {})
    moved = must = 0
    for before, members in pairwise(history):
        after = policy(work, members, owners)
        moved += moves(owners, after)
        gone, new = set(before) - set(members), set(members) - set(before)
        must += sum(worker in gone for worker in owners.values()) + len(new) * (len(work) // len(members))
        owners = after
    counted = Counter(owners.values())
    loads = [counted[worker] for worker in history[-1]]
    return {"way": name, "least": min(loads), "most": max(loads), "moved": moved, "must_move": must}


def _ring(work: list[str], members: list[str], owners: Mapping[str, str]) -> dict[str, str]:
    return assign(work, dict.fromkeys(members, 1), owners)


def _plain(work: list[str], members: list[str], _owners: Mapping[str, str]) -> dict[str, str]:
    ring = Ring(dict.fromkeys(members, 1))
    return {task: next(ring.walk(task)) for task in work}


def _range(work: list[str], members: list[str], _owners: Mapping[str, str]) -> dict[str, str]:
    return {task: members[index * len(members) // len(work)] for index, task in enumerate(work)}


def _round_robin(work: list[str], members: list[str], _owners: Mapping[str, str]) -> dict[str, str]:
    return {task: members[index % len(members)] for index, task in enumerate(work)}


_POLICIES: Mapping[str, Policy] = {
    "this ring": _ring,
    "plain consistent hashing": _plain,
    "range": _range,
    "round-robin": _round_robin,
}
