"""Events that were not delivered, in words: how many, and which."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import ConfigError, DeliveryError, PipelineError
from pipeline.producing.delivery import Delivery

__all__ = ["named", "text_of", "undelivered"]


def undelivered(
    count: int, first: Sequence[Delivery], what: str, reason: PipelineError | None = None
) -> DeliveryError:
    """An error about `count` events, of which the first ones are given; `what` says what is wrong with them.

    `reason`: why the first one failed. An error of settings is not fixed by a retry.
    """
    because = f"; the first one: {reason.message}" if reason is not None else ""
    hint = "they may have been written all the same: send them again under the same ids"
    if isinstance(reason, ConfigError) and reason.hint:
        hint = reason.hint
    names = ", ".join(named(delivery) for delivery in first) + (", ..." if count > len(first) else "")
    return DeliveryError(
        f"{count} events {what}: {names}{because}",
        hint=hint,
        count=count,
        events=tuple((delivery.topic, delivery.key, delivery.id) for delivery in first),
    )


def named(delivery: Delivery) -> str:
    """An event as a person can find it again."""
    key = "without a key" if delivery.key is None else f"of key {delivery.key!r}"
    return f"event {text_of(delivery.id)} {key} for topic {delivery.topic}"


def text_of(data: bytes) -> str:
    """An id as text."""
    return data.decode(errors="backslashreplace")
