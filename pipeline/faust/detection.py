"""Whether an object is a `faust.App`: by the names of its classes, so that faust is imported by its users only."""

from __future__ import annotations

__all__ = ["is_faust_app"]


def is_faust_app(value: object) -> bool:
    """Whether an object is a `faust.App`, or one of a subclass."""
    return any((base.__module__, base.__name__) == ("faust.app.base", "App") for base in type(value).__mro__)
