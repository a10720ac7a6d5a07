"""Records per second of `pipeline produce`, the command as users run it, on CSV, JSON lines and Parquet.

The same rows each time: eight columns, of them a key, numbers and text. The rate is the one that the command gives in
its own account, from the fence to the last commit; what Python needs to start is not in it. The kinds take turns.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from pipeline.testing import LocalKafka

PARTITIONS = 4
MANY = 1_000
ROWS = 500_000
KINDS = ("csv", "jsonl", "parquet", "csv.zst", f"{MANY} csv")
_ROOT = Path(__file__).parents[1]
_Row = tuple[str, int, int, float, str, str, int, str]
_NAMES = ("carrier", "flight", "year", "delay", "origin", "dest", "distance", "note")


def run(rows: int, rounds: int, kinds: tuple[str, ...] = KINDS) -> int:
    """Measure and print; 0."""
    console = Console(highlight=False)
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        inputs = {kind: _write(root, kind, _rows(rows)) for kind in kinds}
        with LocalKafka(root / "kafka") as kafka, closing(_cluster(kafka)) as cluster:
            for turn in range(rounds):
                for kind, file in inputs.items():
                    topic = f"load-{turn}-{kind.replace(' ', '-')}"
                    cluster.create([TopicSpec(topic, PARTITIONS)])
                    found[kind].append(_load(topic, file, kafka.bootstrap_servers, rows))
    table = Table("input", "records/s", "lowest", "highest", box=None)
    for kind, rates in found.items():
        table.add_row(kind, *(f"{rate:,.0f}" for rate in (statistics.median(rates), min(rates), max(rates))))
    console.print(table)
    console.print(
        f"{rows:,} rows, {PARTITIONS} partitions, one local Kafka on the same machine; median of {rounds}"
    )
    return 0


def _cluster(kafka: LocalKafka) -> KafkaCluster:
    return KafkaCluster(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))


def _load(topic: str, file: Path, servers: str, rows: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "produce", topic, str(file), "--key", "carrier", "--json"],
        env={**os.environ, "PIPELINE_KAFKA": servers, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    account = json.loads(done.stdout)
    if account["records"] != rows:
        raise SystemExit(f"{topic}: {account['records']:,} records of {rows:,}")
    return float(account["records"] / account["duration_s"])


def _rows(count: int) -> list[_Row]:
    return [
        (f"C{n % 97}", n, 2013, n % 1000 / 4 - 60, "JFK", f"D{n % 211}", n % 4983, f"flight number {n}")
        for n in range(count)
    ]


def _write(root: Path, kind: str, rows: list[_Row]) -> Path:
    if kind == "parquet":
        return _write_parquet(root / "rows.parquet", rows)
    if kind.endswith(" csv"):
        folder = root / "many"
        folder.mkdir()
        for part in range(MANY):
            _write_csv(folder / f"{part:05}.csv", rows[part::MANY])
        return folder
    if kind == "jsonl":
        path = root / "rows.jsonl"
        path.write_text("".join(json.dumps(dict(zip(_NAMES, row, strict=True))) + "\n" for row in rows))
        return path
    path = _write_csv(root / f"rows-{kind.replace('.', '-')}.csv", rows)
    return _pack(path) if kind.endswith(".zst") else path


def _write_csv(path: Path, rows: list[_Row]) -> Path:
    path.write_text(",".join(_NAMES) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def _pack(path: Path) -> Path:
    import zstandard  # noqa: PLC0415 - only this kind needs it

    packed = path.with_suffix(".csv.zst")
    with (
        path.open("rb") as plain,
        packed.open("wb") as out,
        zstandard.ZstdCompressor().stream_writer(out) as zst,
    ):
        shutil.copyfileobj(plain, zst)
    return packed


def _write_parquet(path: Path, rows: list[_Row]) -> Path:
    import pyarrow as pa  # noqa: PLC0415 - only this kind needs it
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns = dict(zip(_NAMES, zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), path)
    return path
