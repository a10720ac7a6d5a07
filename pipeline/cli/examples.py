"""An example of each command, which its help shows. A test checks the options and arguments of each."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["EXAMPLES"]

EXAMPLES: Mapping[str, str] = {
    "new": "pipeline new my-app",
    "demo": "pipeline demo",
    "worker": "pipeline worker delays:app --processes 4",
    "status": "pipeline status flight-delays --watch",
    "table show": "pipeline table show totals AA --app delays:app",
    "journal show": "pipeline journal show flight-delays --task 0 --last 1",
    "journal forget": "pipeline journal forget flight-delays --group main",
    "checkpoints list": "pipeline checkpoints list flight-delays --store s3://bucket/prefix",
    "checkpoints verify": "pipeline checkpoints verify flight-delays --task 0",
    "checkpoints prune": "pipeline checkpoints prune flight-delays --dry-run",
    "reset": "pipeline reset delays:app --from flights=2026-01-31T00:00:00Z --dry-run",
    "migrate plan": "pipeline migrate plan delays delays-2 --topic flights=flights-2",
    "migrate run": "pipeline migrate run delays delays-2 --topic flights=flights-2 --follow",
    "migrate switch": "pipeline migrate switch delays delays-2 --topic flights=flights-2 --retire",
    "migrate revive": "pipeline migrate revive delays",
    "topics plan": "pipeline topics plan --check",
    "topics apply": "pipeline topics apply --allow old-orders",
    "topics export": "pipeline topics export --topic 'orders-*'",
    "topics schema": "pipeline topics schema",
    "topics list": "pipeline topics list",
    "topics show": "pipeline topics show flights",
    "topics set": "pipeline topics set flight-delays.main.journal retention.ms=-1",
    "produce": "pipeline produce flights flights.csv --key carrier --null NA",
    "loads list": "pipeline loads list",
    "loads show": "pipeline loads show flights/flights.csv",
    "consume": "pipeline consume carrier-delays --follow --max 5",
    "deadletters list": "pipeline deadletters list delays:app --open",
    "deadletters show": "pipeline deadletters show delays:app 0:12",
    "deadletters replay": "pipeline deadletters replay delays:app --error KeyError --dry-run",
    "deadletters discard": "pipeline deadletters discard delays:app 0:12 0:15",
    "deadletters purge": "pipeline deadletters purge delays:app --yes",
    "broker start": "pipeline broker start --port 9192",
    "broker stop": "pipeline broker stop",
    "broker status": "pipeline broker status --json",
    "broker logs": "pipeline broker logs --follow",
    "ring simulate": "pipeline ring simulate --workers 4 --tasks 64 --join 1",
    "runbook": "pipeline runbook poison-record",
}
