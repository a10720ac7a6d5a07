"""The running sum as a Faust application: one module, which Faust runs, and a worker of this project.

Under Faust, the variable PROCESSING_GUARANTEE, which Faust reads, selects its guarantee.
"""

from __future__ import annotations

from typing import Any

import faust

from benchmarks.peers.programs.plan import Mark, read_plan

__all__ = ["app", "main"]

COMMIT_S = 1.0  # its default is 2.8 s

_plan = read_plan()
_mark = Mark(_plan)

app = faust.App(
    _plan.name,
    broker=f"kafka://{_plan.servers}",
    datadir=_plan.state_dir,
    topic_partitions=_plan.partitions,
    topic_replication_factor=1,
    broker_commit_interval=COMMIT_S,
    broker_session_timeout=10.0,
    producer_compression_type="lz4",
    web_enabled=False,
)


class Payment(faust.Record):
    number: int
    amount: int
    branch: str


class Sum(faust.Record):
    number: int
    total: int
    count: int


payments = app.topic(_plan.source, key_type=str, value_type=Payment)
results = app.topic(_plan.target, key_type=str, value_type=Sum)
sums = app.Table("sums", key_type=str, default=lambda: [0, 0], partitions=_plan.partitions)


@app.agent(payments)
async def add(stream: Any) -> None:
    async for account, payment in stream.items():
        total, count = sums[account]
        total, count = total + payment.amount, count + 1
        sums[account] = [total, count]
        await results.send(key=account, value=Sum(payment.number, total, count))
        _mark.left -= 1
        if not _mark.left:
            _mark.write()


def main() -> None:
    """Run Faust's worker until SIGTERM."""
    faust.Worker(app, loglevel="WARN").execute_from_commandline()


if __name__ == "__main__":
    main()
