"""`pipeline faust check`: the uses of an application, and the refusal of an application that cannot be carried over.

A worker refuses an application by the same uses, so an application that passes the check starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.errors import ConfigError
from pipeline.faust.features import Feature, Outcome
from pipeline.faust.objects import uses_of_objects
from pipeline.faust.syntax import uses_of_syntax
from pipeline.faust.uses import Place, Use, modules_of

__all__ = ["by_feature", "line_of", "places_of", "refuse", "uses_of"]

_NAMED = 5  # uses in the message of an error


def uses_of(app: Any) -> list[Use]:
    """All uses of an application whose modules are imported: what is refused first, then what differs.

    Reads objects and source, and runs no code of the application.
    """
    modules = modules_of(app)
    found = dict.fromkeys((*uses_of_objects(app, modules), *uses_of_syntax(app, modules)))
    order = list(Outcome)
    return sorted(
        found, key=lambda use: (order.index(use.feature.outcome), use.feature.name, _order(use.place))
    )


def _order(place: Place | None) -> tuple[str, int]:
    return (place.file, place.line) if place is not None else ("", 0)


def by_feature(uses: Iterable[Use]) -> dict[Feature, list[Use]]:
    """The uses of each feature, in the order of `uses`."""
    found: dict[Feature, list[Use]] = {}
    for use in uses:
        found.setdefault(use.feature, []).append(use)
    return found


def refuse(app: Any) -> None:
    """Raise ConfigError if the application uses what is not carried over."""
    refused = [use for use in uses_of(app) if use.feature.outcome is Outcome.REFUSED]
    if refused:
        listed = "".join(f"\n  {line_of(use)}" for use in refused[:_NAMED])
        more = f"\n  and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        raise ConfigError(
            f"Faust application {app.conf.id} uses what is not carried over:{listed}{more}",
            hint="pipeline faust check MODULE:APP shows all of it, with what to do instead",
        )


def line_of(use: Use) -> str:
    """A use in one line: place, what, and why it is refused or different."""
    where = f"{use.place}: " if use.place is not None else ""
    note = f": {use.feature.note}" if use.feature.note else ""
    return f"{where}{use.what} ({use.feature.name.replace('`', '')}){note}"


def places_of(uses: Sequence[Use], most: int) -> str:
    """The places of uses, the first ones in full."""
    places = sorted({use.place for use in uses if use.place is not None})
    shown = ", ".join(map(str, places[:most]))
    return f"{shown} and {len(places) - most} more" if len(places) > most else shown
