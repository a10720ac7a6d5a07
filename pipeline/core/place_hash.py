"""A short identity of a place, such as a record, or a row at a time: `place_hash`.

Effect keys are such hashes, so what they are made of is fixed: users have stored them in other systems.
"""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["place_hash"]


def place_hash(*parts: object) -> str:
    """32 hexadecimal digits that identify these texts and numbers, in this order.

    A part contains no null character, since it is a number, hexadecimal digits, or a name, in which Kafka and the
    pipeline allow none; or it consists of several parts, joined by null characters.

    Example:
        ```python
        assert place_hash("shop\\x00main", "orders", 3) == place_hash("shop", "main", "orders", 3)
        ```
    """
    return blake2b("\x00".join(map(str, parts)).encode(), digest_size=16).hexdigest()
