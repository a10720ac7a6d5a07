"""The resources of handlers, such as clients: `Resources`. Each is made at its first use."""

from __future__ import annotations

from typing import Any

from pipeline.api.declarations import DeclaredResource

__all__ = ["Resources"]


class Resources:
    """The resources of one worker. Processing thread only."""

    def __init__(self) -> None:
        self._made: dict[DeclaredResource[Any], Any] = {}

    def get(self, resource: DeclaredResource[Any]) -> Any:
        """This worker's instance. Raises what its factory raises."""
        if resource not in self._made:
            self._made[resource] = resource.factory()
        return self._made[resource]

    def close(self) -> None:
        """Close the resources that have a `close` method, and drop all."""
        for made in self._made.values():
            if callable(getattr(made, "close", None)):
                made.close()
        self._made.clear()
