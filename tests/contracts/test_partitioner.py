"""Where keys go must never change."""

from __future__ import annotations

import pytest

from pipeline.core.records import murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_agrees_with_the_java_clients_published_values(data: bytes, expected: int) -> None:
    """Records written by any Kafka client lie where this package looks for them."""
    assert murmur2(data) == expected % 2**32


def test_a_partition_is_always_one_of_those_there_are() -> None:
    """The hash is signed in Java; its sign must not leak."""
    keys = [str(n).encode() for n in range(1000)]
    assert {partition_of(key, 5) for key in keys} == set(range(5))
