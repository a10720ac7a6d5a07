"""`python -m benchmarks [throughput]`: run benchmarks on a Kafka of their own."""

from __future__ import annotations

import argparse
import sys

from benchmarks import throughput


def main() -> int:
    """Run what is asked for; 0 when every stated bound holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="events to process (1,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="times each side is measured (3)")
    parser.add_argument("--keys", type=int, default=10_000, help="different keys (10,000)")
    arguments = parser.parse_args()
    return throughput.run(arguments.events, arguments.rounds, arguments.keys)


if __name__ == "__main__":
    sys.exit(main())
