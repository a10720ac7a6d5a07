"""The input of all systems: what record number n is. Only the standard library: the systems' programs import it."""

from __future__ import annotations

__all__ = ["BRANCHES", "account_of", "amount_of", "branch_of", "key_of", "note_of", "value_of"]

BRANCHES = 1_000
STRIDE = 7_919  # a prime: neighbours in the input are far apart among the keys


def account_of(number: int, keys: int) -> int:
    """The number of the account."""
    return number * STRIDE % keys


def amount_of(number: int) -> int:
    """The amount of the payment."""
    return number % 1_000


def branch_of(number: int, keys: int) -> int:
    """The number of the account's branch."""
    return account_of(number, keys) % BRANCHES


def key_of(number: int, keys: int) -> bytes:
    """The key of the record."""
    return b"account-%d" % account_of(number, keys)


def note_of(size: int) -> bytes:
    """A text of so many characters, which compresses as badly as random hexadecimal digits do."""
    digits, seed = bytearray(), 0x9E3779B97F4A7C15
    while len(digits) < size:
        seed = seed * 6364136223846793005 + 1442695040888963407 & 0xFFFFFFFFFFFFFFFF
        digits += b"%016x" % seed
    return bytes(digits[:size])


def value_of(number: int, keys: int, note: bytes = b"") -> bytes:
    """The value of the record, as JSON."""
    if note:
        return b'{"number":%d,"amount":%d,"branch":"branch-%d","note":"%b"}' % (
            number,
            number % 1_000,
            number * STRIDE % keys % BRANCHES,
            note,
        )
    return b'{"number":%d,"amount":%d,"branch":"branch-%d"}' % (
        number,
        number % 1_000,
        number * STRIDE % keys % BRANCHES,
    )
