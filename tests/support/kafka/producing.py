"""The client's own producer for tests: `ordered_producer`."""

from __future__ import annotations

from confluent_kafka import Producer

__all__ = ["ordered_producer"]


def ordered_producer(servers: str, **settings: int) -> Producer:
    """A producer that keeps the order of its records, and puts a key into the partition that our workers expect.

    Without idempotence, the first batch for a new topic can be retried, and arrives after later ones.
    """
    return Producer(
        {
            "bootstrap.servers": servers,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            **{name.replace("_", "."): value for name, value in settings.items()},
        }
    )
