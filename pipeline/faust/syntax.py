"""What an application uses, according to the syntax trees of its modules.

A name is resolved to the object that its module has under that name. Inside a function, only a few local names are
known: the stream of an agent, what is derived from it, and its events. An expression whose object is not known is no
use of anything: nothing is refused on a guess.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from pipeline.faust.features import Feature, setting
from pipeline.faust.uses import Module, Place, Use, code_of, feature_of

__all__ = ["uses_of_syntax"]

_STREAMS = frozenset(
    {"filter", "group_by", "through", "echo", "noack", "clone"}
)  # methods that return a stream
_STREAM: Mapping[str, Sequence[str]] = {
    "events": ["stream.events"],
    "items": ["stream.items"],
    "take": ["stream.take"],
    "take_events": ["stream.take"],
    "take_with_timestamp": ["stream.take"],
    "noack_take": ["stream.take"],
    "filter": ["stream.filter"],
    "add_processor": ["stream.filter"],
    "group_by": ["stream.group_by"],
    "through": ["stream.through"],
    "echo": ["stream.echo"],
    "enumerate": ["stream.enumerate"],
    "noack": ["stream.ack"],
    "ack": ["stream.ack"],
    **{name: ["stream.combine"] for name in ("combine", "join", "left_join", "inner_join", "outer_join")},
}
# What is the same in our streams.
_STREAM_KNOWN = frozenset(
    {
        "active_partitions",
        "app",
        "channel",
        "concurrency_index",
        "current_event",
        "derive_topic",
        "get_active_stream",
        "get_root_stream",
        "label",
        "log",
        "logger",
        "prefix",
        "shortlabel",
    }
)
_EVENT = {"forward": "event.forward", "send": "event.forward", "ack": "stream.ack"}
_ASKS = frozenset({"ask", "ask_nowait", "map", "kvmap", "join", "kvjoin"})
_AGENT = {
    **dict.fromkeys(("cast", "send", "send_soon"), "agent.cast"),
    **dict.fromkeys(_ASKS, "agent.ask"),
    "add_sink": "agent.sink",
    "test_context": "agent.test_context",
    "stream": "stream.free",
}
_SENDS = frozenset({"send", "send_soon", "cast", "forward"})
_WINDOWS = frozenset({"tumbling", "hopping", "using_window"})
_RELATIVE = frozenset({"relative_to", "relative_to_stream", "relative_to_now", "relative_to_field"})
_TABLE = {
    **dict.fromkeys(("items", "keys", "values"), "table.items"),
    **dict.fromkeys(_RELATIVE, "window.relative"),
    **dict.fromkeys(("on_recover", "on_changelog_event"), "table.on_recover"),
    **dict.fromkeys(("join", "left_join", "inner_join", "outer_join", "combine"), "stream.combine"),
}
_TOPIC = {"send": "topic.send", "send_soon": "topic.send", "stream": "stream.free"}
_APP = {
    "send": "topic.send",
    "stream": "stream.free",
    "discover": "app.discover",
    "main": "app.main",
    "Worker": "app.main",
    "is_leader": "app.leader",
    "page": "app.page",
    "web": "app.page",
    "table_route": "app.table_route",
    "topic_route": "app.table_route",
    "command": "app.command",
    "web_server": "app.web_server",
    "LiveCheck": "app.livecheck",
    **dict.fromkeys(("monitor", "sensors"), "app.monitor"),
    **dict.fromkeys(("service", "add_runtime_dependency", "add_dependency", "add_context"), "app.service"),
    **dict.fromkeys(
        ("start", "stop", "maybe_start", "restart", "crash", "start_client", "maybe_start_client"),
        "app.worker",
    ),
    **dict.fromkeys(
        (
            "on_worker_init",
            "on_configured",
            "on_before_configured",
            "on_after_configured",
            "on_before_shutdown",
        ),
        "app.signals",
    ),
    **dict.fromkeys(
        ("on_partitions_assigned", "on_partitions_revoked", "on_rebalance_complete", "on_produce_message"),
        "app.rebalance",
    ),
    **dict.fromkeys(
        (
            "consumer",
            "producer",
            "producer_transport",
            "transport",
            "assignor",
            "router",
            "commit",
            "flow_control",
            "maybe_start_producer",
            "in_transaction",
            "topics",
            "FlowControlQueue",
            "boot_strategy",
        ),
        "app.engine",
    ),
}
# What objects show already, and what works as it is because it does not depend on Faust's engine.
_KNOWN = """
agent actor timer crontab task topic channel Table SetTable GlobalTable SetGlobalTable conf log logger loop id name
label shortlabel http_client cache serializers tables agents trace traced tracer config_from_object finalize finalized
should_stop sleep wait wait_first itertimer add_future beacon fixups create_event on_startup_finished configured
client_only
"""
_APP_KNOWN = frozenset(_KNOWN.split())
_MAKES = {
    "topic": "topic",
    "channel": "channel",
    "Table": "table",
    "SetTable": "table",
    "GlobalTable": "table",
    "SetGlobalTable": "table",
    "stream": "stream",
}


class _Known(NamedTuple):
    """What an expression is: a kind of Faust object, or a module. `value`: the object, if it exists."""

    kind: str
    value: Any = None


def uses_of_syntax(app: Any, modules: list[Module]) -> Iterator[Use]:
    """The uses that the source shows, in its order."""
    agents = {
        (code.co_filename, code.co_firstlineno)
        for agent in app.agents.values()
        if (code := code_of(agent.fun)) is not None
    }
    for module in modules:
        walk = _Walk(app, module, agents)
        walk.visit(module.tree)
        yield from walk.uses


class _Walk(ast.NodeVisitor):
    """Walks one module. `_scopes`: the local names of the functions around a node; None hides a global name."""

    def __init__(self, app: Any, module: Module, agents: set[tuple[str, int]]) -> None:
        self.uses: list[Use] = []
        self._app = app
        self._module = module
        self._agents = agents
        self._scopes: list[dict[str, _Known | None]] = []
        self._in_agent = 0

    # Scopes

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for each in (*node.decorator_list, *node.args.defaults):
            self.visit(each)
        names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        scope: dict[str, _Known | None] = dict.fromkeys(names)
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        is_agent = bool(names) and (self._module.file, first) in self._agents
        if is_agent:
            scope[names[0]] = _Known("stream")
        self._scopes.append(scope)
        self._in_agent += is_agent
        for statement in node.body:
            self.visit(statement)
        self._in_agent -= is_agent
        self._scopes.pop()

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._scopes.append(dict.fromkeys(arg.arg for arg in node.args.args))
        self.visit(node.body)
        self._scopes.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        found = self._module.names.get(node.name)
        record = sys.modules["faust"].Record
        if isinstance(found, type) and issubclass(found, record):
            options: Any = vars(found).get("_options")
            pickled = "pickle" in str(getattr(options, "serializer", None) or "").split("|")
            self._use(feature_of("topic.pickle" if pickled else "record"), node.name, node)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._bind(target, self._known(node.value))

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._for(node)

    def visit_For(self, node: ast.For) -> None:
        self._for(node)

    def _for(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        known = self._known(node.iter)
        if known is not None and known.kind == "stream":
            self._use(feature_of("stream"), ast.unparse(node.iter), node)
        if known is not None and known.kind in {"table", "window"}:
            self._use(feature_of("table.items"), ast.unparse(node.iter), node)
        is_event = known is not None and known.kind == "events"
        self._bind(node.target, _Known("event") if is_event else None)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def _bind(self, target: ast.expr, known: _Known | None) -> None:
        if not self._scopes:
            return  # the namespace of the module has the object
        if isinstance(target, ast.Name):
            self._scopes[-1][target.id] = known
        elif isinstance(target, ast.Tuple | ast.List):
            for each in target.elts:
                self._bind(each, None)

    # Uses

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        base = self._known(node.value)
        if base is not None:
            self._attribute(base, node)

    def _attribute(self, base: _Known, node: ast.Attribute) -> None:
        name = node.attr
        what = ast.unparse(node)
        match base.kind:
            case "stream":
                for key in _stream_features(name):
                    self._use(feature_of(key), what, node)
            case "event" if name in _EVENT:
                self._use(feature_of(_EVENT[name]), what, node)
            case "agent" if name in _AGENT:
                inside = name in _ASKS and self._in_agent
                self._use(feature_of("agent.ask_inside" if inside else _AGENT[name]), what, node)
            case "table" | "window" if name in _TABLE:
                self._use(feature_of(_TABLE[name]), what, node)
            case "topic" if name in _TOPIC:
                self._use(feature_of(_TOPIC[name]), what, node)
            case "conf" if isinstance(node.ctx, ast.Store):
                self._use(setting(name), what, node)
            case "app":
                self._app_attribute(name, what, node)

    def _app_attribute(self, name: str, what: str, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Store) and not hasattr(type(self._app), name):
            return  # an attribute of the user's own
        if name in _APP:
            self._use(feature_of(_APP[name]), what, node)
        elif name not in _APP_KNOWN and not name.startswith("__") and hasattr(type(self._app), name):
            self._use(feature_of("app.unknown"), what, node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        known = self._known(node.func)
        if known is not None and known.kind == "faust.Worker":
            self._use(feature_of("app.main"), ast.unparse(node.func), node)
        if isinstance(node.func, ast.Name) and node.func.id == "len" and node.args:
            counted = self._known(node.args[0])
            if counted is not None and counted.kind in {"table", "window"}:
                self._use(feature_of("table.items"), ast.unparse(node), node)
        self._send_options(node)
        if self._is_on_app(node.func):
            for keyword in node.keywords:
                if keyword.arg == "on_leader" and not _is_false(keyword.value):
                    self._use(feature_of("app.leader"), "on_leader=", node)

    def _send_options(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Attribute) or node.func.attr not in _SENDS:
            return
        base = self._known(node.func.value)
        if base is not None and base.kind in {"topic", "agent", "event", "app", "channel"}:
            for keyword in node.keywords:
                if keyword.arg in {"partition", "callback"} and not _is_none(keyword.value):
                    self._use(feature_of("topic.send_options"), f"{keyword.arg}=", node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.generic_visit(node)
        left = self._known(node.left)
        if isinstance(node.op, ast.BitAnd) and left is not None and left.kind in {"stream", "table"}:
            self._use(feature_of("stream.combine"), ast.unparse(node), node)

    def _is_on_app(self, function: ast.expr) -> bool:
        if not isinstance(function, ast.Attribute):
            return False
        base = self._known(function.value)
        return base is not None and base.kind == "app"

    def _use(self, feature: Feature, what: str, node: ast.stmt | ast.expr) -> None:
        self.uses.append(Use(feature, what, Place(self._module.file, node.lineno)))

    # Resolution

    def _known(self, node: ast.expr) -> _Known | None:
        """What an expression is, without evaluating it."""
        match node:
            case ast.Name(id=name):
                scope = next((scope for scope in reversed(self._scopes) if name in scope), None)
                return scope[name] if scope is not None else self._kind(self._module.names.get(name))
            case ast.Attribute(value=value, attr=name):
                return self._member(self._known(value), name)
            case ast.Call(func=ast.Attribute(value=value, attr=name)):
                return self._returned(self._known(value), name)
            case ast.Await(value=awaited):
                return self._known(awaited)
        return None

    def _member(self, base: _Known | None, name: str) -> _Known | None:
        if base is None:
            return None
        if base.kind == "module":
            if base.value is sys.modules["faust"]:  # which loads its names when they are first read
                return self._kind(getattr(base.value, name, None))
            return self._kind(vars(base.value).get(name))
        if base.kind == "app" and name == "conf":
            return _Known("conf")
        return None

    def _returned(self, base: _Known | None, name: str) -> _Known | None:
        """What a method returns."""
        kind = base.kind if base is not None else ""
        match kind, name:
            case "stream", "events" | "take_events":
                return _Known("events")
            case ("stream", _) if name in _STREAMS:
                return base
            case ("app", _) if name in _MAKES:
                return _Known(_MAKES[name])
            case "topic", "stream":
                return _Known("stream")
            case (_, _) if (kind == "table" and name in _WINDOWS) or (kind == "window" and name in _RELATIVE):
                return _Known("window")
        return None

    def _kind(self, value: Any) -> _Known | None:
        loaded = sys.modules
        if value is self._app:
            return _Known("app", value)
        if isinstance(value, ModuleType):
            return _Known("module", value)
        for kind, module, name in (
            ("agent", "faust.agents.agent", "Agent"),
            ("window", "faust.tables.wrappers", "WindowWrapper"),
            ("table", "faust.tables.base", "Collection"),
            ("topic", "faust.topics", "Topic"),
            ("channel", "faust.channels", "Channel"),
            ("stream", "faust.streams", "Stream"),
        ):
            if module in loaded and isinstance(value, getattr(loaded[module], name)):
                owner = getattr(value, "table", value).app  # a window has no application of its own
                return _Known(kind, value) if owner is self._app else None
        worker = loaded.get("faust.worker")
        if worker is not None and isinstance(value, type) and issubclass(value, worker.Worker):
            return _Known("faust.Worker")
        return None


def _stream_features(name: str) -> Sequence[str]:
    """The features that an attribute of a stream is. An attribute that Faust's streams do not have is none."""
    if name in _STREAM:
        return _STREAM[name]
    known = name in _STREAM_KNOWN or name.startswith("__")
    is_method = hasattr(sys.modules["faust.streams"].Stream, name)
    return ["stream.unknown"] if is_method and not known else []


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not node.value
