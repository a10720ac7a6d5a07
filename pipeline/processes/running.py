"""The App that users import: declarations, and `run`, which is the one thing that needs the real parts."""

from __future__ import annotations

from pipeline.api.app import App as DeclaredApp
from pipeline.config import Settings, load_settings
from pipeline.processes.wiring import run_app

__all__ = ["App"]


class App(DeclaredApp):
    """A stream-processing application; it is itself the handler group `main`."""

    def run(self, settings: Settings | None = None) -> None:
        """Run a worker on this thread until SIGTERM or SIGINT. It shares the tasks with the other workers of the app.

        `settings`: default, what PIPELINE_* and pipeline.toml say. The worker's log goes to structlog as the
        program has configured it. Raises ConfigError, UnreachableError, or the first failure of a task.
        """
        chosen = settings if settings is not None else load_settings()
        run_app(self, chosen)
