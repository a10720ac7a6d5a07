"""The jobs in Quix Streams, exactly-once. Its state is by message key: `dedup` keeps ids beside the sum of the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from quixstreams import Application

from benchmarks.peers.programs.plan import Mark, Plan, read_plan

__all__ = ["main"]

COMMIT_S = 1.0  # its default is 5 s; with 1 s it was as fast
SESSION_MS = 10_000


def _application(plan: Plan) -> Any:
    return Application(
        broker_address=plan.servers,
        consumer_group=plan.name,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=plan.commit_ms / 1000 if plan.commit_ms else COMMIT_S,
        state_dir=plan.state_dir,
        loglevel="WARNING",
        request_timeout=60,
        consumer_extra_config={
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": SESSION_MS // 3,
            "group.instance.id": plan.worker,
            "fetch.queue.backoff.ms": 3,
        },
        producer_extra_config={
            "transaction.timeout.ms": SESSION_MS,
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": 200_000,
        },
    )


def _topics(application: Any, plan: Plan) -> tuple[Any, Any]:
    source = application.topic(plan.source, key_deserializer="str", value_deserializer="json")
    target = application.topic(plan.target, key_serializer="str", value_serializer="json")
    return source, target


def _added(mark: Mark) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    def add(payment: dict[str, Any], state: Any) -> dict[str, Any]:
        total, count = state.get("sum") or (0, 0)
        total, count = total + payment["amount"], count + 1
        state.set("sum", (total, count))
        mark.left -= 1
        if not mark.left:
            mark.write()
        result = {"number": payment["number"], "total": total, "count": count}
        if "note" in payment:
            result["note"] = payment["note"]
        return result

    return add


def _is_new(payment: dict[str, Any], state: Any) -> bool:
    seen = f"id-{payment['number']}"
    if state.exists(seen):
        return False
    state.set(seen, 1)
    return True


def _running_sum(application: Any, plan: Plan) -> None:
    source, target = _topics(application, plan)
    frame = application.dataframe(source)
    if plan.job == "dedup":
        frame = frame.filter(_is_new, stateful=True)
    frame.apply(_added(Mark(plan)), stateful=True).to_topic(target)


def _add_account(payment: dict[str, Any], state: Any) -> dict[str, Any]:
    total, count = state.get("sum") or (0, 0)
    state.set("sum", (total + payment["amount"], count + 1))
    return payment


def _two_stages(application: Any, plan: Plan) -> None:
    source, target = _topics(application, plan)
    middle = application.topic(
        plan.middle,
        key_serializer="str",
        value_serializer="json",
        key_deserializer="str",
        value_deserializer="json",
    )
    accounts = application.dataframe(source).apply(_add_account, stateful=True)
    accounts.to_topic(middle, key=lambda payment: payment["branch"])
    branches = application.dataframe(middle)
    branches.apply(_added(Mark(plan)), stateful=True).to_topic(target)


JOBS: dict[str, Callable[[Any, Plan], None]] = {
    "sum": _running_sum,
    "dedup": _running_sum,
    "two-stages": _two_stages,
}


def main() -> None:
    """Run until SIGTERM."""
    plan = read_plan()
    Path(plan.state_dir).mkdir(parents=True, exist_ok=True)
    application = _application(plan)
    JOBS[plan.job](application, plan)
    application.run()


if __name__ == "__main__":
    main()
