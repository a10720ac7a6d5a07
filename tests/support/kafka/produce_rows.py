"""A program that sends the rows of a file with a `pipeline.Producer`, each under its own id. It may be killed.

python -m tests.support.kafka.produce_rows SERVERS TOPIC FILE PROGRESS FROM

FILE has one `key,number` per line; the id of a line is its number. The program appends to PROGRESS the line up to which
all rows are delivered. It starts at line FROM: a restart may start too early, but never too late.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

from pipeline import App, Producer
from pipeline.config import KafkaSettings, ProducerSettings, Settings

AT_A_TIME = 2_000


def main(servers: str, topic: str, file: str, progress: str, start: str) -> int:
    """Send all rows from a line on."""
    rows = App("rows").topic(topic, key=str, value=int)
    at = int(start)
    settings = Settings(KafkaSettings(servers), producer=ProducerSettings(max_records=50_000))
    with Producer(settings) as producer, Path(file).open() as lines, Path(progress).open("a") as told:
        for line in islice(lines, at, None):
            key, number = line.split(",")
            producer.send(rows, key, int(number), id=str(at))
            at += 1
            if at % AT_A_TIME == 0:
                producer.flush()
                told.write(f"{at}\n")
                told.flush()
        producer.flush()
        told.write(f"{at}\ndone\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
