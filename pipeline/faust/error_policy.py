"""What happens with a record whose agent raises: `faust_error_policy`.

Faust logs the error, starts the agent again and continues with the next event: the failed one is lost, with whatever it
had sent and stored before. Here its effects are undone, and by default its partition stops.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pipeline.api.bindings import RETRY_DELAY_S, OnError
from pipeline.errors import ConfigError
from pipeline.faust.detection import is_faust_app

__all__ = ["Policy", "faust_error_policy", "policy_of"]

_ATTRIBUTE = "_pipeline_error_policy"


class Policy(NamedTuple):
    """The options of the handlers of an app's agents, as those of `App.handler`."""

    on_error: OnError = "stop"
    retries: int = 0
    retry_delay_s: float = RETRY_DELAY_S


def faust_error_policy(
    app: Any, *, on_error: OnError, retries: int = 0, retry_delay_s: float = RETRY_DELAY_S
) -> None:
    """Choose what happens with a record for which an agent of a `faust.App` raises. Faust itself ignores it.

    Args:
        app: The `faust.App`. Call this in its module, before the app is run.
        on_error: `"stop"` its partition (the default without this call), `"skip"` the record, or send it to the
            dead-letter topic of the app (`"dead_letter"`).
        retries: How often it is tried again first.
        retry_delay_s: Seconds before the first retry. Each further delay is twice as long, up to a minute.

    Raises:
        ConfigError: It is not a `faust.App`. A wrong option is reported when the app is run.

    Example:
        ```python
        app = faust.App("orders")
        faust_error_policy(app, on_error="dead_letter", retries=3)
        ```
    """
    if not is_faust_app(app):
        raise ConfigError(f"faust_error_policy takes a faust.App, not {app!r}")
    vars(app)[_ATTRIBUTE] = Policy(on_error, retries, retry_delay_s)


def policy_of(app: Any) -> Policy:
    """The policy of an app."""
    policy: Policy = vars(app).get(_ATTRIBUTE, Policy())
    return policy
