"""A worker of a Faust application inside of another asyncio program: `faust_running`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from pipeline.config import Settings
from pipeline.config.loading import load_settings_over
from pipeline.errors import ConfigError
from pipeline.faust import companion_of, declared_faust_app, fallback_for, is_faust_app
from pipeline.processes.embedded import RunningWorker, running

__all__ = ["faust_running"]


def faust_running(app: Any, settings: Settings | None = None) -> AbstractAsyncContextManager[RunningWorker]:
    """Run a worker of a `faust.App` inside this asyncio program, where the application called `await app.start()`.

    The program may send to topics, cast to agents, ask them and read tables, as a page of the application does.

    Args:
        app: The `faust.App`.
        settings: Default: those of `PIPELINE_*` variables and `pipeline.toml`, and then those of the app.

    Returns:
        A context manager, as that of `App.running`.

    Raises:
        ConfigError: It is not a `faust.App`, or uses what is not carried over.

    Example:
        ```python
        @asynccontextmanager
        async def lifespan(api: FastAPI) -> AsyncIterator[None]:
            async with faust_running(app):
                yield
        ```
    """
    if not is_faust_app(app):
        raise ConfigError(f"faust_running takes a faust.App, not {app!r}")
    declared = declared_faust_app(app)
    chosen = settings if settings is not None else load_settings_over(fallback_for(declared))
    return running(declared, chosen, companion_of(declared, chosen))
