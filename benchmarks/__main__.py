"""`python -m benchmarks [throughput|restart]`: run benchmarks, each on a Kafka of its own; without a name all."""

from __future__ import annotations

import argparse
import sys

from benchmarks import restart, throughput


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 0 when every stated bound holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmark", nargs="?", choices=("throughput", "restart"), help="one of them (both)")
    parser.add_argument(
        "--events", type=int, default=1_000_000, help="throughput: events to process (1,000,000)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="times each thing is measured (3)")
    parser.add_argument(
        "--keys",
        type=int,
        nargs="+",
        help="throughput: different keys (10,000); restart: sizes of the table (10,000 1,000,000 5,000,000)",
    )
    chosen = parser.parse_args(arguments)
    codes = []
    if chosen.benchmark != "restart":
        keys = chosen.keys or [10_000]
        if len(keys) > 1:
            parser.error("throughput takes one number of keys; name the benchmark that takes more: restart")
        codes.append(throughput.run(chosen.events, chosen.rounds, keys[0]))
    if chosen.benchmark != "throughput":
        codes.append(restart.run(chosen.keys or restart.SIZES, chosen.rounds))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
