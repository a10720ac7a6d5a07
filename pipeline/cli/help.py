"""The help of every command, and the errors of a command line: plain text, the same on a terminal and in a pipe.

Typer's own help has boxes with three columns, and puts required arguments in braces. This help looks like that of `git`
and `kubectl`: a usage line that can be typed, then arguments and options with their values and defaults, and an
example. `adopt` applies it to a command line and all its commands.

For an error such as an unknown option, Typer would print a usage line and its own words. `describe` gives it a message
that names the command, and a hint, as all other errors have. Unknown names get the name that was probably meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from pipeline.core.suggestions import closest, did_you_mean

__all__ = ["EXAMPLES", "Command", "Commands", "UsageError", "adopt", "describe", "parameter_name"]

# Typer has a private copy of click and exports only this subclass of the errors of a command line.
UsageError: type[Any] = typer.BadParameter.__bases__[0]

_NUMBER = re.compile(r"int|float", re.IGNORECASE)
_FILE = re.compile(r"path|file|dir", re.IGNORECASE)


EXAMPLES: Mapping[str, str] = {
    "new": "pipeline new my-app",
    "demo": "pipeline demo",
    "worker": "pipeline worker delays:app --processes 4",
    "doctor": "pipeline doctor delays:app",
    "acls": "pipeline acls delays:app --role worker --role load",
    "status": "pipeline status flight-delays --watch",
    "probe": "pipeline probe ready --http-port 8080",
    "ui": "pipeline ui delays:app --http-port 8080",
    "table show": "pipeline table show totals AA --app delays:app",
    "table history": "pipeline table history totals AA --app delays:app",
    "debug": "pipeline debug delays:app flights/0/17 --yes",
    "journal show": "pipeline journal show flight-delays --task 0 --last 1",
    "journal forget": "pipeline journal forget flight-delays --group main",
    "checkpoints list": "pipeline checkpoints list flight-delays --store s3://bucket/prefix",
    "checkpoints verify": "pipeline checkpoints verify flight-delays --task 0",
    "checkpoints prune": "pipeline checkpoints prune flight-delays --dry-run",
    "reset": "pipeline reset delays:app --from flights=2026-01-31T00:00:00Z --dry-run",
    "migrate plan": "pipeline migrate plan delays delays-2 --topic flights=flights-2",
    "migrate run": "pipeline migrate run delays delays-2 --topic flights=flights-2 --follow",
    "migrate switch": "pipeline migrate switch delays delays-2 --topic flights=flights-2 --retire",
    "migrate revive": "pipeline migrate revive delays",
    "faust check": "pipeline faust check revenue:app",
    "faust migrate": "pipeline faust migrate revenue:app --dry-run",
    "faust command": "pipeline faust command revenue:app close-books",
    "drill list": "pipeline drill list",
    "drill plan": "pipeline drill plan kill-worker --worker orders-1",
    "drill run": "pipeline drill run kill-worker --max-tasks 8 --abort-if 'live_tasks == 0'",
    "drill suite": "pipeline drill suite weekly.toml --yes",
    "drill proxy": "pipeline drill proxy --port 9392",
    "drill abort": "pipeline drill abort",
    "drill undo": "pipeline drill undo",
    "drill report list": "pipeline drill report list",
    "drill report show": "pipeline drill report show kill-worker",
    "drill report diff": "pipeline drill report diff before.json after.json",
    "drill report export": "pipeline drill report export kill-worker --to report.html",
    "drill report schema": "pipeline drill report schema",
    "topics plan": "pipeline topics plan --check",
    "topics apply": "pipeline topics apply --allow old-orders",
    "topics export": "pipeline topics export --topic 'orders-*'",
    "topics schema": "pipeline topics schema",
    "topics list": "pipeline topics list",
    "topics show": "pipeline topics show flights",
    "topics set": "pipeline topics set flight-delays.main.journal retention.ms=-1",
    "produce": "pipeline produce flights flights.csv --key carrier --null NA",
    "loads list": "pipeline loads list",
    "loads show": "pipeline loads show flights/flights.csv",
    "consume": "pipeline consume carrier-delays --follow --max 5",
    "deadletters list": "pipeline deadletters list delays:app --open",
    "deadletters show": "pipeline deadletters show delays:app 0:12",
    "deadletters replay": "pipeline deadletters replay delays:app --error KeyError --dry-run",
    "deadletters discard": "pipeline deadletters discard delays:app 0:12 0:15",
    "deadletters purge": "pipeline deadletters purge delays:app --yes",
    "broker start": "pipeline broker start --port 9192",
    "broker stop": "pipeline broker stop",
    "broker status": "pipeline broker status --json",
    "broker logs": "pipeline broker logs --follow",
    "ring simulate": "pipeline ring simulate --workers 4 --tasks 64 --join 1",
    "runbook": "pipeline runbook poison-record",
}

# Parts of Typer's messages, and what replaces them.
_WORDING = [
    (re.compile(pattern), text)
    for pattern, text in (
        (r"^Value error, ", ""),
        (r"^Input should be a valid integer.*", "is not a whole number"),
        (r"^Input should be a valid number.*", "is not a number"),
        (r"^Input should be ", "must be "),
        (r"greater than or equal to", "at least"),
        (r"less than or equal to", "at most"),
        (r"^Option '(.+)' requires an argument", r"\1 requires a value"),
        (r"^Option '(.+)' does not take a value", r"\1 does not take a value"),
        (r"^Got unexpected extra arguments?(?:\(s\))? \((.+)\)", r"there are too many arguments: \1"),
    )
]


class _KnowsItself:
    """Names the command in errors of its command line, which Typer leaves out of some of them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the command."""
        with _named(ctx):
            parsed: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
            return parsed

    def invoke(self, ctx: Any) -> Any:
        """Run the command, which may find values that do not fit together."""
        with _named(ctx):
            return super().invoke(ctx)  # type: ignore[misc]


class Command(_KnowsItself, TyperCommand):
    """A command with plain help and an example."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command: `[OPTIONS] MODULE:APP [ID]...`."""
        return [self.options_metavar or "", *_arguments(self, ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options, each with its value."""
        _write(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The example, on one line that can be copied."""
        example = EXAMPLES.get(ctx.command_path.partition(" ")[2])
        if example is not None:
            with formatter.section("Example"):
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


class Commands(_KnowsItself, TyperGroup):
    """Commands with plain help, each with its first sentence. `sections`: the names of commands, by heading."""

    sections: Mapping[str, Sequence[str]] = {}

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command: `[OPTIONS] COMMAND ...`."""
        return [self.options_metavar or "", *_arguments(self, ctx), "COMMAND ..."]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the typed command, or raise an error with the name that was probably meant."""
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"{ctx.command_path} has no command {name!r}{did_you_mean(name, self.commands)}")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Options, then commands."""
        _write(self, ctx, formatter)
        rows = {
            name: _first_sentence(command.help or "")
            for name in self.list_commands(ctx)
            for command in [self.commands[name]]
            if not command.hidden
        }
        for title, names in (self.sections or {"Commands": tuple(rows)}).items():
            shown = [(f"{name:<{max(map(len, rows))}}", rows[name]) for name in names if name in rows]
            if shown:
                with formatter.section(title):
                    formatter.write_dl(shown)


def adopt(app: typer.Typer, kind: type[Commands] = Commands) -> typer.Typer:
    """Give plain help to an app and all its commands, and return the app. `kind` is the class of the app itself."""
    app.rich_markup_mode = None
    app.info.cls = kind
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.cls = Commands
            adopt(group.typer_instance)
    return app


@contextmanager
def _named(ctx: Any) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        error.ctx = error.ctx or ctx
        raise


def _write(command: Any, ctx: Any, formatter: Any) -> None:
    shown = [parameter for parameter in command.get_params(ctx) if not parameter.hidden]
    for title, kind in (("Arguments", "argument"), ("Options", "option")):
        rows = [
            (parameter_name(parameter, ctx), _help(parameter))
            for parameter in shown
            if parameter.param_type_name == kind
        ]
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def _arguments(command: Any, ctx: Any) -> list[str]:
    return [
        parameter_name(parameter, ctx)
        for parameter in command.get_params(ctx)
        if parameter.param_type_name == "argument" and not parameter.hidden
    ]


def parameter_name(parameter: Any, ctx: Any) -> str:
    """The name of a parameter: `MODULE:APP`, `[ID]...`, `--weight N`, `--json`."""
    if parameter.param_type_name == "argument":
        name = (parameter.metavar or parameter.name.upper()).strip("[].")
        name = name if parameter.required else f"[{name}]"
        return name + ("..." if parameter.nargs != 1 else "")
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    value = "" if parameter.is_flag else f" {parameter.metavar or _value(parameter, ctx)}"
    return names + value


def _value(parameter: Any, ctx: Any) -> str:
    """The value of an option, by its type: N, PATH, a choice of words, or TEXT."""
    record = parameter.get_help_record(ctx)
    shown = record[0].rpartition(parameter.opts[-1])[2].strip(" <>[]") if record else ""
    if "|" in shown:
        return shown
    return "N" if _NUMBER.match(shown) else "PATH" if _FILE.match(shown) else "TEXT"


def _help(parameter: Any) -> str:
    """The help of a parameter, with its default if there is one and the text does not name it."""
    text: str = " ".join((parameter.help or "").split())
    default = parameter.default
    if parameter.required and parameter.param_type_name == "option":
        return f"{text} Required."
    if isinstance(default, bool) or not isinstance(default, str | int | float | Path | Enum):
        return text  # no default, or the library's marker for that
    if "Default" in text or not str(default):
        return text
    shown = default.value if isinstance(default, Enum) else default
    return f"{text} Default: {shown:,}." if isinstance(shown, int) else f"{text} Default: {shown}."


def _first_sentence(text: str) -> str:
    """The first sentence, which the list of commands shows. It is never cut."""
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    return re.split(r"(?<=[.]) ", paragraph, maxsplit=1)[0]


def describe(error: Any) -> tuple[str, str | None]:
    """The message and the hint for an error of Typer's parser, or for a `typer.BadParameter` of ours.

    Args:
        error: A `UsageError`. Its classes are private, so they are distinguished by their names.
    """
    command = error.ctx.command_path if error.ctx is not None else "pipeline"
    hint = f"see {command} --help"
    match type(error).__name__:
        case "NoSuchOption":
            name = error.option_name
            return f"{command} has no option {name}{_option_meant(name, error.ctx)}", hint
        case "MissingParameter":
            example = EXAMPLES.get(command.partition(" ")[2])
            missing = parameter_name(error.param, error.ctx)
            return f"{command} requires {missing}", f"for example: {example}" if example else hint
        case "BadParameter":
            given, reason = _given(error), _reason(error)
            separator = " " if reason.startswith(("must ", "is not ")) else ": "
            return f"{given}{separator}{reason}" if given else reason, hint
    return _reason(error), hint


def _option_meant(name: str, context: Any) -> str:
    """The end of the message. The dashes are not compared: all options have them, so short names would be alike."""
    options = {option.lstrip("-"): option for option in _options(context)}
    found = closest(name.lstrip("-"), options)
    return f"; did you mean {options[found]!r}?" if found is not None else ""


def _options(context: Any) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        if parameter.param_type_name == "option" and not parameter.hidden:
            yield from (*parameter.opts, *parameter.secondary_opts)


def _given(error: Any) -> str | None:
    """The option or the argument whose value is wrong."""
    if error.param_hint is not None:
        return str(error.param_hint)
    if error.param is None:
        return None
    if error.param.param_type_name == "argument":
        return parameter_name(error.param, error.ctx)
    return str(error.param.opts[-1])


def _reason(error: Any) -> str:
    """Typer's message in our words."""
    text: str = error.message.rstrip(".")
    for pattern, replacement in _WORDING:
        text = pattern.sub(replacement, text)
    return text
