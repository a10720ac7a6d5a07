"""Runs a `faust.App` of the package faust-streaming on this engine: `declared_faust_app`.

The user's module imports the real faust and makes real objects of it: an App, agents, topics, tables, Records. Nothing
of Faust's own transport, consumer, assignor or table recovery is started. The modules:

| module                      | contents                                                                            |
|-----------------------------|-------------------------------------------------------------------------------------|
| `detection`                 | whether an object is a `faust.App`, without importing faust                         |
| `translation`               | a `faust.App` becomes a `DeclaredApp`: topics, tables, a handler for each agent     |
| `refusals`                  | what is not carried over, refused at the start by name                              |
| `agents`                    | one coroutine of an agent, which the handler steps directly                         |
| `agent_loop`                | the event loop and the asyncio Task that continue a step in which an agent waits    |
| `streams`                   | what an agent iterates over                                                         |
| `events`                    | Faust's Event and Message of one of our records                                     |
| `current`                   | the agent that runs in this context: what tables and sends belong to                |
| `outputs`                   | sends, as part of the commit of the record that is processed                        |
| `tables`, `sets`            | Faust's tables over the rows of the task                                            |
| `topics`                    | Faust's topics, for tests and for their creation                                    |
| `serializers`, `json_bytes` | Faust's codecs as functions                                                         |
| `error_policy`              | what happens with a record whose agent raises                                       |
| `check`, `features`, ...    | `pipeline faust check`: what an application uses, and what becomes of it            |

What runs outside of agents:

| module       | contents                                                                                           |
|--------------|----------------------------------------------------------------------------------------------------|
| `app_loop`   | timers, crontabs, tasks and pages, on an event loop of a thread in the worker's process            |
| `outside`    | their sends, by our idempotent producer                                                            |
| `committed`  | their reads of tables: the committed rows of the tasks that are live in this worker                |
| `pages`      | pages, on the HTTP port of the worker                                                              |
| `routing`    | which worker has a key, and which one is the leader                                                |
| `replies`    | answers to `agent.ask`                                                                             |
| `commands`   | commands of the application                                                                        |
| `connection` | settings of the application that stand for ours                                                    |
| `running`    | a worker inside of another asyncio program                                                         |

`check`, `features`, `objects`, `syntax` and `uses` are `pipeline faust check`. `detection` is all that an App of this
package needs. The others import faust only when a `faust.App` is given.
"""

from __future__ import annotations

from importlib import import_module

from pipeline.api.app import DeclaredApp
from pipeline.config import Settings
from pipeline.config.loading import Fallback
from pipeline.errors import ConfigError
from pipeline.faust.detection import is_faust_app
from pipeline.processes.companion import Companion

__all__ = ["companion_of", "declared_faust_app", "fallback_for", "is_faust_app"]


def declared_faust_app(app: object) -> DeclaredApp:
    """What the package reads of a `faust.App`. The same object for each call with the same app.

    Raises:
        ConfigError: The app uses what is not carried over, or the extra `faust` is not installed.
    """
    try:
        translation = import_module("pipeline.faust.translation")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{app!r} is a faust.App, and {error.name} is not installed",
            hint="pip install 'exactly-once-pipeline[faust]'",
        ) from error
    declared: DeclaredApp = translation.translated(app)
    return declared


def fallback_for(app: DeclaredApp) -> Fallback:
    """The settings that a Faust application gives; nothing for other apps. Raises ConfigError."""
    faust_app = getattr(app, "faust_app", None)
    if faust_app is None:
        return Fallback()
    found: Fallback = import_module("pipeline.faust.connection").fallback_of(faust_app)
    return found


def companion_of(app: DeclaredApp, settings: Settings) -> Companion | None:
    """What a Faust application runs outside of its agents; None for other apps. Raises ConfigError."""
    if getattr(app, "faust_app", None) is None:
        return None
    made: Companion = import_module("pipeline.faust.app_loop").app_loop(app, settings)
    return made
