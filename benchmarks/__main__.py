"""`python -m benchmarks [NAME]`: run one of those in NAMES, or all, each on its own Kafka.

`python -m benchmarks peers` is the comparison with other systems, which has its own options.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import dedup, handoff, loads, observe, producer, recovery, restart, restore, sinks, throughput
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
)


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 0 when every stated bound holds."""
    given = sys.argv[1:] if arguments is None else arguments
    return peers(given[1:]) if given[:1] == ["peers"] else _run(given)


def _run(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmark", nargs="?", choices=NAMES, help="one of them (all)")
    parser.add_argument(
        "--events",
        type=int,
        help="throughput, partitions: events to process (1,000,000); loads: rows (500,000); dedup: events in each turn "
        f"({dedup.EVENTS:,}); producer: events ({producer.EVENTS:,}); observe: events in each run "
        f"({observe.EVENTS:,})",
    )
    parser.add_argument(
        "--ids", type=int, default=dedup.IDS, help=f"dedup: ids that are remembered ({dedup.IDS:,})"
    )
    parser.add_argument(
        "--rounds", type=int, help="times each thing is measured (3; handoff 20; observe 10; recovery 5)"
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
        "restore: rows (1,500,000)",
    )
    chosen = parser.parse_args(given)
    rounds, events = chosen.rounds or 3, chosen.events or 1_000_000
    codes = []
    wanted = [chosen.benchmark] if chosen.benchmark else list(NAMES)
    if chosen.benchmark != "restart" and len(chosen.keys or []) > 1:
        parser.error("only restart takes more than one number of keys: name it")
    keys = (chosen.keys or [10_000])[0]
    if "throughput" in wanted:
        codes.append(throughput.run(events, rounds, keys))
    if "partitions" in wanted:
        codes.append(throughput.run_partitions(events, rounds, keys))
    if "restart" in wanted:
        codes.append(restart.run(chosen.keys or restart.SIZES, rounds))
    if "restore" in wanted:
        codes.append(restore.run((chosen.keys or [restore.KEYS])[0], rounds))
    if "handoff" in wanted:
        codes.append(handoff.run(chosen.rounds or HANDOFFS, chosen.keys[0] if chosen.keys else handoff.KEYS))
    if "loads" in wanted:
        codes.append(loads.run(chosen.events or loads.ROWS, rounds))
    if "dedup" in wanted:
        codes.append(dedup.run(chosen.ids, chosen.events or dedup.EVENTS, rounds))
    if "producer" in wanted:
        codes.append(producer.run(chosen.events or producer.EVENTS, rounds))
    if "sinks" in wanted:
        codes.append(sinks.run(rounds))
    if "observe" in wanted:
        codes.append(observe.run(chosen.events or observe.EVENTS, chosen.rounds or observe.PAIRS, keys))
    if "recovery" in wanted:
        codes.append(recovery.run(chosen.mb, chosen.rounds or recovery.ROUNDS))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
