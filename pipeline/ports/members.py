"""The other processes of an app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["Members"]


class Members(Protocol):
    """This process among the workers of its app."""

    def join(self, consumer_group: str, topic: str, client_id: str, progress: Callable[[], object]) -> None:
        """Become a dynamic member, and stay one for as long as `progress` keeps returning something new.

        `topic`: one that exists; members must subscribe to something. Joining goes on beside the caller. May
        raise ConfigError.
        """
        ...

    def announce(self, topic: str, notes: Sequence[tuple[bytes, bytes]]) -> None:
        """Write (key, value) records, outside of any transaction, and wait. May raise UnreachableError."""
        ...

    def leave(self) -> None:
        """Be a member no longer, at once. Never raises; nothing happens without a join."""
        ...
