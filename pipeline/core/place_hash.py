"""Hashes that identify a record, a row or a due step: `place_hash`.

What they are made of must never change: users store effect keys in other systems.
"""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["place_digest", "place_hash"]


def place_hash(*parts: object) -> str:
    """32 hexadecimal digits that identify these texts and numbers, in this order.

    A part contains no null character, except a scope, which is several parts joined by them.

    Example:
        ```python
        assert place_hash("shop\\x00main", "orders", 3) == place_hash("shop", "main", "orders", 3)
        ```
    """
    return place_digest(*parts).hex()


def place_digest(*parts: object) -> bytes:
    """`place_hash` as 16 bytes, for keys of which there can be millions."""
    return blake2b("\x00".join(map(str, parts)).encode(), digest_size=16).digest()
