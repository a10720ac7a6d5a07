"""Finds the app, the groups and the tasks that arguments name: from MODULE:APP, or from Kafka by the app's name."""

from __future__ import annotations

import ast
import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from pipeline.api.app import DeclaredApp
from pipeline.api.declared_group import DeclaredGroup
from pipeline.app import App, declared_app
from pipeline.core.names import GroupId, TaskChoice, TaskId, check_name
from pipeline.core.suggestions import closest
from pipeline.errors import ConfigError, InputError, PipelineError
from pipeline.faust import is_faust_app
from pipeline.ports import Cluster

__all__ = [
    "AppArgument",
    "GroupOption",
    "TaskOption",
    "app_named",
    "find_app",
    "find_faust_app",
    "find_group",
    "group_of",
    "journaled_tasks",
    "no_task",
    "parse_task",
]

_PACKAGE = Path(__file__).parents[1]
_MOST_FILES = 200  # that are parsed for a hint
_SAME_MODULE = 0.6  # from this similarity on, a name of a module is probably a typo of another one

AppArgument = Annotated[
    str, typer.Argument(metavar="APP", help="The app: its name, or MODULE:APP as for pipeline worker.")
]


def parse_task(text: str) -> TaskChoice:
    """The value of `--task`. Raises BadParameter, so that the message names the option."""
    try:
        return TaskChoice.parse(text)
    except InputError as error:
        raise typer.BadParameter(f"{error.message}: {error.hint}") from error


TaskOption = Annotated[
    TaskChoice | None,
    typer.Option(
        "--task", metavar="[GROUP/]N", help="Only the task with this number. Default: all.", parser=parse_task
    ),
]

# With `group_of`, for commands that have both options.
GroupOption = Annotated[
    str | None,
    typer.Option("--group", help="The handler group. Default: that of --task, or main.", show_default=False),
]


def find_app(target: str) -> DeclaredApp:
    """Import the App that `target` names, as MODULE:NAME.

    The working directory is added at the end of the path, so that a user's file pipeline.py does not hide this package.

    Raises:
        ConfigError: The module cannot be imported, or has no such App.
    """
    value, module, attribute = _named(target)
    if not _is_app(value):
        what = f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
        raise ConfigError(
            f"{target} is {what}, and not an App{_where_it_is(module)}", hint=_apps_of(module, attribute)
        )
    return declared_app(value)


def find_faust_app(target: str) -> Any:
    """Import the `faust.App` that `target` names, as MODULE:NAME, and the modules that it discovers.

    Raises:
        ConfigError: The module cannot be imported, or has no such `faust.App`.
    """
    value: Any
    value, module, _ = _named(target)
    if not is_faust_app(value):
        what = f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
        raise ConfigError(
            f"{target} is {what}, and not a faust.App{_where_it_is(module)}",
            hint="for an App of this package, leave out the word faust" if isinstance(value, App) else None,
        )
    try:
        value.finalize()
        if value.conf.autodiscover:
            value.discover()
    except Exception as error:
        raise ConfigError(
            f"{target} cannot be configured:\n{_as_the_user_sees_it(error)}",
            hint="check the settings of faust.App, and autodiscover=",
        ) from error
    return value


def _named(target: str) -> tuple[object, ModuleType, str]:
    """The object that `target` names, its module, and its name there. Raises ConfigError."""
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{target!r} is not MODULE:APP", hint=_how_to_write_it(module_name))
    module = _imported(module_name, attribute)
    value: object = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ConfigError(
                f"module {module_name} has no {attribute}{_where_it_is(module)}",
                hint=_apps_of(module, attribute),
            )
        value = getattr(value, part)
    return value, module, attribute


def _is_app(value: object) -> bool:
    return isinstance(value, App) or is_faust_app(value)


def find_group(
    app: DeclaredApp, groups: Sequence[DeclaredGroup], name: str, what: str = "group"
) -> DeclaredGroup:
    """The one of `groups` with this name. Raises InputError, which says `what` the app does not have."""
    for group in groups:
        if group.name == name:
            return group
    known = ", ".join(group.name for group in groups) or "none"
    raise InputError(f"app {app.name} has no {what} {name}", hint=f"its groups: {known}")


def group_of(group: str | None, task: TaskChoice | None) -> str | None:
    """The group that `--group` or `--task GROUP/N` names; None if neither does.

    Raises InputError if they differ, ConfigError for a name that no group can have.
    """
    named = task.group if task is not None else ""
    if group is not None and named not in {"", group}:
        raise InputError(f"task {task} is not a task of group {group}", hint=f"leave out --group {group}")
    found = group if group is not None else named or None
    return check_name("group", found) if found is not None else None


def _how_to_write_it(target: str) -> str:
    """The hint for a name without a colon, which may be an app's name, or a module without an app."""
    found = _apps_in_source(target)
    which = f"try {target}:{found[0]}" if found else "write MODULE:APP, as in flights.app:app"
    return f"{which}. This command runs code of the app, so it needs the module"


def _where_modules_are(name: str, attribute: str) -> str:
    """The hint for a module that does not exist."""
    if name.endswith(".py") and Path(name).exists():
        return f"write the module, not its file: {'.'.join(Path(name).with_suffix('').parts)}:APP"
    nearby = _apps_nearby(name, attribute, similarity=_SAME_MODULE)
    if nearby is not None:
        return f"did you mean {nearby}?"
    return "run the command in the directory of the module's file or package"


def _apps_in_source(module: str) -> list[str]:
    """The names of the apps in a module of the working directory, from its source. No code is run for a hint."""
    try:
        file = Path(*module.split(".")).with_suffix(".py")
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return []
    return [
        target.id
        for line in tree.body
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Call)
        for target in line.targets
        if isinstance(target, ast.Name)
        and ast.unparse(line.value.func) in {"App", "faust.App", "pipeline.App"}
    ]


def _apps_nearby(module: str, meant: str, similarity: float = 0) -> str | None:
    """MODULE:APP of the file in the working directory that has an App and is most like the module.

    `similarity`: the least similarity of the module's name, as in `closest`.
    """
    found = {file.stem: _apps_in_source(file.stem) for file in sorted(Path.cwd().glob("*.py"))[:_MOST_FILES]}
    others = [name for name, apps in found.items() if apps and name != module]
    nearest = closest(module, others, similarity=similarity)
    return f"{nearest}:{closest(meant, found[nearest], similarity=0)}" if nearest else None


def _where_it_is(module: ModuleType) -> str:
    """The end of a message: the file that was imported, and a file of the working directory that it hides."""
    file = getattr(module, "__file__", None)
    if file is None:
        return ""
    parts = Path(*module.__name__.split("."))
    hidden = [
        path
        for path in (parts.with_suffix(".py"), parts / "__init__.py")
        if path.exists() and path.resolve() != Path(file).resolve()
    ]
    text = f"; it was imported from {_relative(file)}"
    return f"{text}, which hides ./{hidden[0]}: rename ./{hidden[0]}" if hidden else text


def _imported(name: str, attribute: str) -> ModuleType:
    """The module. `attribute`: the name that is looked up in it, for hints."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"module {name} does not exist in {here} or on the Python path",
                hint=_where_modules_are(name, attribute),
            ) from error
        raise ConfigError(
            f"module {name} imports {error.name}, which is not installed",
            hint=f"install it in the environment of this command: {sys.prefix}",
        ) from error
    except PipelineError:
        raise
    except SyntaxError as error:
        raise ConfigError(f"{_relative(error.filename or name)}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        raise ConfigError(f"module {name} cannot be imported:\n{_as_the_user_sees_it(error)}") from error


def _as_the_user_sees_it(error: Exception) -> str:
    """The traceback without the frames of this package and of Python's import system."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen importlib", importlib.__path__[0]))
        and not Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    for frame in frames:
        frame.filename = _relative(frame.filename)
    lines = [*traceback.format_list(frames), *traceback.format_exception_only(error)]
    return "".join(lines).rstrip()


def _relative(file: str) -> str:
    """The path relative to the working directory, if the file is below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def _apps_of(module: ModuleType, meant: str) -> str:
    found = [name for name, item in vars(module).items() if _is_app(item)]
    if not found:
        nearby = _apps_nearby(module.__name__, meant)
        return f"module {module.__name__} has no App" + (f". Did you mean {nearby}?" if nearby else "")
    return f"try {module.__name__}:{closest(meant, found, similarity=0) or found[0]}"


def app_named(given: str) -> str:
    """Return the name of the app. An argument with a colon is MODULE:APP, because names have no colon.

    Raises:
        ConfigError: The argument is not a valid name, or the module cannot be imported.
    """
    if ":" not in given:
        return check_name("app", given)
    try:
        return find_app(given).name
    except ConfigError as error:
        instead = "or give the app's name: this command does not need its code"
        raise ConfigError(
            error.message, hint=f"{error.hint}; {instead}" if error.hint else instead
        ) from error


def journaled_tasks(cluster: Cluster, group_id: GroupId, chosen: TaskChoice | None) -> list[TaskId]:
    """Return the tasks of a group, or the chosen one, according to the group's journal.

    Raises:
        InputError: There is no such journal or task.
        UnreachableError: Kafka does not answer.
    """
    topic = cluster.describe([group_id.journal_topic]).get(group_id.journal_topic)
    if topic is None and cluster.committed(group_id.consumer_group):
        raise InputError(
            f"group {group_id.app}/{group_id.group} has no journal and no checkpoints",
            hint="a group of sinks keeps its positions in its database (SELECT * FROM pipeline_positions), and "
            "pipeline status shows its tasks. For a group of handlers: runbooks/journal-lost.md",
        )
    if topic is None:
        raise InputError(
            f"this Kafka cluster has no journal {group_id.journal_topic}",
            hint="check the app's name, which is the one in App(...), and the group (--group)",
        )
    tasks = [TaskId(*group_id, number) for number in range(topic.partitions)]
    if chosen is None:
        return tasks
    found = [task for task in tasks if chosen.means(task)]
    if not found:
        raise no_task(group_id, chosen, topic.partitions)
    return found


def no_task(group_id: GroupId, chosen: TaskChoice, tasks: int) -> InputError:
    """The error for a task that a group does not have. `tasks`: how many it has."""
    return InputError(
        f"group {group_id.app}/{group_id.group} has no task {chosen}",
        hint=f"its tasks are 0 to {tasks - 1}; partition P of its inputs belongs to task P mod {tasks}",
    )
