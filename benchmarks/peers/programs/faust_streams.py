"""The jobs in faust-streaming with `exactly_once` and RocksDB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust

from benchmarks.peers.programs.plan import Mark, Plan, read_plan

__all__ = ["main"]

COMMIT_S = 1.0  # its default is 2.8 s


def _application(plan: Plan) -> Any:
    return faust.App(
        plan.name,
        broker=f"kafka://{plan.servers}",
        store="rocksdb://?driver=rocksdict",
        datadir=Path(plan.state_dir),
        processing_guarantee="exactly_once",
        topic_partitions=plan.partitions,
        topic_replication_factor=1,
        topic_allow_declare=False,
        broker_commit_interval=plan.commit_ms / 1000 if plan.commit_ms else COMMIT_S,
        broker_session_timeout=10.0,
        consumer_auto_offset_reset="earliest",
        producer_compression_type="lz4",
        web_enabled=False,
    )


def _added(application: Any, plan: Plan, target: Any) -> Callable[[Any], Any]:
    """The running sum of each key, of a stream."""
    sums = application.Table("sums", key_type=str, partitions=plan.partitions)
    ids = application.Table("ids", key_type=str, partitions=plan.partitions) if plan.job == "dedup" else None
    mark = Mark(plan)

    async def add(stream: Any) -> None:
        async for key, payment in stream.items():
            if ids is not None:
                seen = str(payment["number"])
                if seen in ids:
                    continue
                ids[seen] = 1
            total, count = sums.get(key) or (0, 0)
            total, count = total + payment["amount"], count + 1
            sums[key] = (total, count)
            result = {"number": payment["number"], "total": total, "count": count}
            if "note" in payment:
                result["note"] = payment["note"]
            await target.send(key=key, value=result)
            mark.left -= 1
            if not mark.left:
                mark.write()

    return add


def _running_sum(application: Any, plan: Plan) -> None:
    source = application.topic(plan.source, key_type=str, value_serializer="json")
    target = application.topic(plan.target, key_type=str, value_serializer="json")
    application.agent(source)(_added(application, plan, target))


def _two_stages(application: Any, plan: Plan) -> None:
    source = application.topic(plan.source, key_type=str, value_serializer="json")
    middle = application.topic(plan.middle, key_type=str, value_serializer="json")
    target = application.topic(plan.target, key_type=str, value_serializer="json")
    accounts = application.Table("accounts", key_type=str, partitions=plan.partitions)

    async def add_account(stream: Any) -> None:
        async for key, payment in stream.items():
            total, count = accounts.get(key) or (0, 0)
            accounts[key] = (total + payment["amount"], count + 1)
            await middle.send(key=payment["branch"], value=payment)

    application.agent(source)(add_account)
    application.agent(middle)(_added(application, plan, target))


JOBS: dict[str, Callable[[Any, Plan], None]] = {
    "sum": _running_sum,
    "dedup": _running_sum,
    "two-stages": _two_stages,
}


def main() -> None:
    """Run until SIGTERM."""
    plan = read_plan()
    application = _application(plan)
    JOBS[plan.job](application, plan)
    faust.Worker(application, loglevel="WARN").execute_from_commandline()


if __name__ == "__main__":
    main()
