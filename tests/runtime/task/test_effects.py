"""Effect keys through the life of a task: the same for one record in one group, whatever happens to the worker."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline import App, Batch, Context, Event
from pipeline.ports import Step
from pipeline.testing import TestDriver


class Effects:
    """An app of two groups that call out for each record, and what they have called with."""

    def __init__(self) -> None:
        self.app = App("shop")
        self.orders = self.app.topic("orders", key=str, value=int)
        self.charged: list[tuple[int, str]] = []
        self.mailed: list[tuple[int, str]] = []
        self.failing = False
        mail = self.app.group("mail")

        @self.app.handler(self.orders, on_error="dead_letter")
        def charge(event: Event[str, int], ctx: Context) -> None:
            self.charged.append((event.value, event.effect_key()))
            if self.failing:
                raise ValueError("no")

        @mail.batch_handler(self.orders)
        def send(batch: Batch[str, int], ctx: Context) -> None:
            self.mailed += [(event.value, event.effect_key()) for event in batch]

        self.driver = TestDriver(self.app, partitions=2)

    def send(self, count: int) -> None:
        for n in range(count):
            self.driver.send(self.orders, str(n), n)

    def keys(self) -> dict[int, str]:
        """The one key of each order's charge."""
        keys = dict(self.charged)
        assert set(self.charged) == set(keys.items()), "an order was charged under two keys"
        assert len(set(keys.values())) == len(keys), "two orders share a key"
        return keys


@pytest.mark.parametrize("step", [Step.BEFORE_BEGIN, Step.DURING_COMMIT, Step.AFTER_COMMIT])
def test_what_is_called_again_after_a_crash_has_its_key_again(step: Step) -> None:
    """That is all that keeps the second call from being a second effect."""
    effects = Effects()
    effects.send(20)
    effects.driver.crash_at(step)
    effects.driver.run()
    assert effects.driver.crashed
    before = effects.keys()
    effects.driver.restart(empty_disk=True)
    effects.driver.run()
    after = effects.keys()
    assert len(after) == 20
    assert before.items() <= after.items()


def test_keys_are_the_same_after_a_reset_and_in_a_replayed_dead_letter() -> None:
    """An intended replay of the input must not charge a customer twice."""
    effects = Effects()
    effects.failing = True
    effects.send(10)
    effects.driver.run()
    before = effects.keys()
    effects.failing = False
    effects.driver.replay_dead_letters()
    effects.driver.run()
    effects.driver.reset()
    effects.driver.run()
    assert effects.keys() == before
    assert set(Counter(value for value, _ in effects.charged).values()) == {3}


def test_groups_do_not_share_keys() -> None:
    """The charge must not swallow the mail."""
    effects = Effects()
    effects.send(10)
    effects.driver.run()
    assert not set(effects.keys().values()) & {key for _, key in effects.mailed}
    assert len(effects.mailed) == 10


def test_records_of_a_recreated_topic_have_keys_of_their_own() -> None:
    """They lie at the places of the old ones; their effects would be taken for done."""
    effects = Effects()
    effects.send(10)
    effects.driver.run()
    old = effects.keys()
    effects.charged.clear()
    effects.driver.stop()
    effects.driver.recreate(effects.orders)
    for group in ("main", "mail"):
        effects.driver.reset(group=group)
    effects.send(10)
    effects.driver.run()
    new = effects.keys()
    assert len(new) == 10
    assert not set(old.values()) & set(new.values())
