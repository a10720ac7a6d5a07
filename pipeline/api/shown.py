"""How values that JSON does not have are shown: `represented`, the `enc_hook` of msgspec wherever rows are printed."""

from __future__ import annotations

from typing import Any

__all__ = ["represented"]


def represented(value: Any) -> Any:
    """What a value of another library says it is, such as a Record of Faust. Raises NotImplementedError."""
    represent = getattr(value, "to_representation", None)
    if represent is None:
        raise NotImplementedError(f"{type(value).__name__} has no representation in JSON")
    return represent()
