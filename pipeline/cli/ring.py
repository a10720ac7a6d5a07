"""`pipeline ring simulate`: how tasks are assigned to workers, and how many move when one joins or leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import blake2b
from itertools import pairwise
from typing import Annotated, TypedDict

import typer

from pipeline.cli.options import JsonOption, print_json, print_message
from pipeline.cli.rendering import Cell, Column, print_table
from pipeline.core.ring import Ring, assign, moves
from pipeline.core.suggestions import counted

__all__ = ["ring_app"]

ring_app = typer.Typer(help="Simulate how tasks are assigned to workers.", no_args_is_help=True)

# From the tasks, the members and the current owners to the new owners.
Policy = Callable[[list[str], list[str], Mapping[str, str]], dict[str, str]]


@ring_app.callback()
def _group() -> None:
    """Simulate how tasks are assigned to workers."""


@ring_app.command()
def simulate(
    workers: Annotated[int, typer.Option(help="The number of workers at the start.", min=1, max=1_000)],
    tasks: Annotated[int, typer.Option(help="The number of tasks.", min=1, max=100_000)],
    join: Annotated[int, typer.Option(help="How many workers join, one after the other.", min=0)] = 0,
    leave: Annotated[
        int, typer.Option(help="How many workers leave after that, one after the other.", min=0)
    ] = 0,
    json: JsonOption = False,
) -> None:
    """Assign tasks to workers, let workers join and leave, and compare the ring with other algorithms.

    `moved` is the number of tasks that change their worker, over all joins and leaves. `must move` is the smallest
    possible number: the share of each new worker, and the tasks of each worker that leaves.
    """
    if leave >= workers + join:
        raise typer.BadParameter("at least one worker must remain", param_hint="--leave")
    # Host names of containers are random, so a new worker can be anywhere in their order.
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
    print_message(
        f"{counted(tasks, 'task')}, {counted(workers, 'worker')}, {join} joined, {leave} left; load: tasks per "
        "worker at the end"
    )


_COLUMNS = (
    Column("algorithm"),
    Column("load", number=True),
    Column("moved", number=True),
    Column("must move", number=True),
    Column("moved / must move", number=True),
)


class _RingRow(TypedDict):
    algorithm: str
    min_load: int
    max_load: int
    moved: int
    must_move: int


def _cells(row: _RingRow) -> list[Cell]:
    ratio = f"{row['moved'] / row['must_move']:.2f}" if row["must_move"] else None
    return [
        row["algorithm"],
        f"{row['min_load']} to {row['max_load']}",
        row["moved"],
        row["must_move"],
        ratio,
    ]


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
    return {
        "algorithm": name,
        "min_load": min(loads),
        "max_load": max(loads),
        "moved": moved,
        "must_move": must,
    }


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
