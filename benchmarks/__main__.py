"""`python -m benchmarks [NAME]`: run one of those in NAMES, or all, each on its own Kafka.

`python -m benchmarks peers` is the comparison with other systems, and `python -m benchmarks faust` that of a Faust
application under both engines; these have their own options.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    async_handlers,
    dedup,
    expiry,
    faust_kills,
    handoff,
    latency,
    loads,
    observe,
    partitions,
    producer,
    recovery,
    restart,
    restore,
    sinks,
    throughput,
    timers,
    windows,
)
from benchmarks.peers.command import main as peers

HANDOFFS = 20
NAMES = (
    "throughput",
    "partitions",
    "restart",
    "restore",
    "handoff",
    "loads",
    "dedup",
    "producer",
    "sinks",
    "observe",
    "recovery",
    "latency",
    "async",
    "windows",
    "expiry",
    "timers",
)


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 0 when every stated bound holds."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["faust"]:
        return _faust(given[1:])
    return peers(given[1:]) if given[:1] == ["peers"] else _run(given)


def _faust(given: list[str]) -> int:
    """One Faust application under both engines: records/s, and what is lost or repeated after kills."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks faust", description=_faust.__doc__)
    parser.add_argument("--turns", type=int, default=5, help="times each system runs (5); 0 for none")
    parser.add_argument(
        "--kills",
        type=int,
        default=faust_kills.KILLS,
        help=f"kills of each system ({faust_kills.KILLS}); 0 for none",
    )
    parser.add_argument("--records", type=int, help="records of the input of the comparison, for a quick try")
    chosen = parser.parse_args(given)
    failed = False
    if chosen.turns:
        options = ["--case", "faust-app", "--no-page", "--turns", str(chosen.turns)]
        failed |= bool(peers([*options, *(["--records", str(chosen.records)] if chosen.records else [])]))
    if chosen.kills:
        failed |= bool(faust_kills.run(chosen.kills))
    return int(failed)


def _run(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmark", nargs="?", choices=NAMES, help="one of them (all)")
    parser.add_argument(
        "--events",
        type=int,
        help="throughput, partitions: events to process (1,000,000); loads: rows (500,000); dedup: events in each turn "
        f"({dedup.EVENTS:,}); producer: events ({producer.EVENTS:,}); observe: events in each run "
        f"({observe.EVENTS:,}); async: events in each run ({async_handlers.EVENTS:,})",
    )
    parser.add_argument(
        "--ids", type=int, default=dedup.IDS, help=f"dedup: ids that are remembered ({dedup.IDS:,})"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help="times each thing is measured (3; handoff 20; observe 10; async 10; recovery 5; timers 1)",
    )
    parser.add_argument(
        "--mb",
        type=int,
        nargs="+",
        default=recovery.SIZES_MB,
        help="recovery: sizes of the state in MB (100 1000)",
    )
    parser.add_argument(
        "--keys",
        type=int,
        nargs="+",
        help="throughput, partitions: different keys (10,000); restart: table sizes (10,000 1,000,000 5,000,000); "
        f"restore: rows (1,500,000); expiry: rows ({expiry.KEYS:,})",
    )
    parser.add_argument(
        "--case",
        action="append",
        type=latency.case_of,
        metavar="RATE:PARTITIONS",
        help="latency: records a second, partitions and maybe tasks, repeatable (10000:4 1000:4 100:4 10000:64 0:4)",
    )
    parser.add_argument(
        "--partitions",
        type=int,
        help="partitions: start workers on an input with this many, instead of a comparison of throughput",
    )
    parser.add_argument(
        "--tasks", type=int, help="partitions: tasks of the group (the default of a new group)"
    )
    parser.add_argument("--files", type=int, help="partitions: the limit on open files (that of this shell)")
    parser.add_argument(
        "--timers",
        type=int,
        default=timers.TIMERS_SET,
        help=f"timers: timers that become due at once ({timers.TIMERS_SET:,})",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=timers.TIMEOUT_S,
        metavar="SECONDS",
        help=f"timers: a round that takes longer fails ({timers.TIMEOUT_S:.0f})",
    )
    parser.add_argument("--against", type=Path, help="latency: another checkout, whose worker takes turns")
    chosen = parser.parse_args(given)
    if chosen.timers < 1:
        parser.error("--timers is at least 1")
    rounds, events = chosen.rounds or 3, chosen.events or 1_000_000
    wanted = [chosen.benchmark] if chosen.benchmark else list(NAMES)
    if chosen.benchmark != "restart" and len(chosen.keys or []) > 1:
        parser.error("only restart takes more than one number of keys: name it")
    keys = (chosen.keys or [10_000])[0]
    runs: dict[str, Callable[[], int]] = {
        "throughput": lambda: throughput.run(events, rounds, keys),
        "partitions": lambda: (
            partitions.run(chosen.partitions, chosen.tasks, rounds, chosen.files)
            if chosen.partitions
            else throughput.run_partitions(events, rounds, keys)
        ),
        "restart": lambda: restart.run(chosen.keys or restart.SIZES, rounds),
        "restore": lambda: restore.run((chosen.keys or [restore.KEYS])[0], rounds),
        "handoff": lambda: handoff.run(chosen.rounds or HANDOFFS, (chosen.keys or [handoff.KEYS])[0]),
        "loads": lambda: loads.run(chosen.events or loads.ROWS, rounds),
        "dedup": lambda: dedup.run(chosen.ids, chosen.events or dedup.EVENTS, rounds),
        "producer": lambda: producer.run(chosen.events or producer.EVENTS, rounds),
        "sinks": lambda: sinks.run(rounds),
        "observe": lambda: observe.run(chosen.events or observe.EVENTS, chosen.rounds or observe.PAIRS, keys),
        "recovery": lambda: recovery.run(chosen.mb, chosen.rounds or recovery.ROUNDS),
        "async": lambda: async_handlers.run(
            chosen.events or async_handlers.EVENTS, chosen.rounds or async_handlers.PAIRS
        ),
        "windows": lambda: windows.run(chosen.events or windows.EVENTS, rounds, keys),
        "expiry": lambda: expiry.run((chosen.keys or [expiry.KEYS])[0]),
        "timers": lambda: timers.run(chosen.timers, chosen.rounds or timers.ROUNDS, chosen.timeout),
        "latency": lambda: latency.run(chosen.case or latency.CASES, rounds, chosen.against),
    }
    return max([runs[name]() for name in wanted])


if __name__ == "__main__":
    sys.exit(main())
