"""`Producer` of this package, with default settings, sends the input of the comparison and reads no delivery."""

from __future__ import annotations

import msgspec

from benchmarks.peers.programs.plan import Mark, read_plan
from benchmarks.peers.records import account_of, amount_of, branch_of
from pipeline import App, KafkaSettings, Producer, Settings

__all__ = ["main"]

AT_ONCE = 4_000


class Payment(msgspec.Struct, frozen=True):
    """An event."""

    number: int
    amount: int
    branch: str


def main() -> None:
    """Send the records of the plan."""
    plan = read_plan()
    payments, mark = App(plan.name).topic(plan.target, key=str, value=Payment), Mark(plan)
    with Producer(Settings(KafkaSettings(plan.servers))) as producer:
        for start in range(0, plan.records, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, plan.records))
            for number in numbers:
                payment = Payment(number, amount_of(number), f"branch-{branch_of(number, plan.keys)}")
                producer.send(payments, f"account-{account_of(number, plan.keys)}", payment)
            mark.count(len(numbers))


if __name__ == "__main__":
    main()
