"""Commands of a Faust application: `command_names`, and `run_command`, which runs one on our producer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import click
import structlog
from faust.cli.base import AppCommand

from pipeline.config import Settings
from pipeline.core.suggestions import did_you_mean
from pipeline.errors import ConfigError
from pipeline.faust.app_loop import Outside, outside_on_kafka
from pipeline.faust.translation import FaustApp

__all__ = ["commands_of", "run_command"]


def commands_of() -> dict[str, Any]:
    """The commands that the imported modules have made with `@app.command` or as a subclass, by name."""
    return {
        cls._click.name: cls
        for cls in _subclasses(AppCommand)
        if not cls.__module__.startswith("faust.") and cls._click is not None
    }


def _subclasses(cls: Any) -> Iterator[Any]:
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


def run_command(declared: FaustApp, settings: Settings, name: str, arguments: Sequence[str]) -> int:
    """Run a command, and return its exit code. Raises ConfigError for an unknown one, and what the command raises."""
    return run_outside(
        outside_on_kafka(declared, settings, structlog.get_logger("pipeline")), declared, name, arguments
    )


def run_outside(outside: Outside, declared: FaustApp, name: str, arguments: Sequence[str]) -> int:
    """As `run_command`, with the sends of `outside`."""
    commands = commands_of()
    if name not in commands:
        raise ConfigError(
            f"Faust application {declared.name} has no command {name}{did_you_mean(name, commands)}",
            hint=f"its commands: {', '.join(sorted(commands))}"
            if commands
            else "declare one with @app.command()",
        )
    cls = commands[name]
    made: list[Any] = []
    cls.run_using_worker = lambda self, *_, **__: made.append(self)  # instead of Faust's own worker
    try:
        context = cls._click.make_context(f"pipeline faust command MODULE:APP {name}", list(arguments))
        context.app, context.stdout, context.stderr = declared.faust_app, None, None
        cls._click.invoke(context)
    except click.exceptions.Exit as error:
        return int(error.exit_code)
    except click.ClickException as error:
        error.show()
        return int(error.exit_code)
    except SystemExit as error:  # Faust's own end of a command
        if not made:
            return int(error.code or 0) if not isinstance(error.code, str) else 1
    asyncio.run(_execute(made[0], outside, declared.faust_app))
    return 0


async def _execute(command: Any, outside: Outside, app: Any) -> None:
    app.loop = asyncio.get_running_loop()
    outside.start()
    try:
        await command.execute(*command.args, **command.kwargs)
    finally:
        await asyncio.to_thread(outside.stop)
