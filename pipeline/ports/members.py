"""The port to the membership of an app: `Members`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["Members"]


class Members(Protocol):
    """The membership of this process in the group of its app's workers."""

    def join(self, consumer_group: str, topic: str, client_id: str, progress: Callable[[], object]) -> None:
        """Become a dynamic member, and stay one while `progress` keeps returning new values.

        `topic`: any topic that exists, because a member must subscribe to one. Returns at once; joining continues in
        the background. May raise ConfigError.
        """
        ...

    def announce(self, topic: str, notes: Sequence[tuple[bytes, bytes]]) -> None:
        """Write (key, value) records outside of a transaction, and wait for delivery. From any thread.

        May raise UnreachableError.
        """
        ...

    def leave(self) -> None:
        """Leave the group at once. Does nothing before `join`. Never raises."""
        ...
