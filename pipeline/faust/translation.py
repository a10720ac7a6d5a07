"""A `faust.App` becomes a `DeclaredApp`: `translated`.

    1. finalize the app, and import what `autodiscover` names, as `faust worker` does;
    2. refuse what is not carried over;
    3. declare a topic of bytes for each topic of the app, and a table of bytes for each table;
    4. declare a handler for each agent and each of its topics, all in the group `main`;
    5. give the app our output buffer and producer, and its tables our rows.

Names that Faust allows and the engine does not get `-` for the other characters.
"""

from __future__ import annotations

import gc
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from inspect import isasyncgenfunction
from typing import Any
from uuid import UUID

import faust
from faust.agents.models import ReqRepResponse
from faust.types import AgentT, TopicT
from faust.types.tables import WindowWrapperT

from pipeline.api.app import DeclaredApp, NewTopic
from pipeline.api.bindings import RuntimeBinding
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.ticks import SHORTEST_S, TickTopic
from pipeline.errors import ConfigError
from pipeline.faust.agent_loop import AgentLoop
from pipeline.faust.agents import AgentPlan
from pipeline.faust.check import refuse
from pipeline.faust.committed import CommittedRows
from pipeline.faust.error_policy import Policy, policy_of
from pipeline.faust.held import HeldEvents
from pipeline.faust.outputs import EngineProducer, OutputBuffer, Outputs
from pipeline.faust.refusals import check_agent, check_app, check_table, check_topic
from pipeline.faust.replies import answerable
from pipeline.faust.sets import EngineSetTable, FaustSets, SetRows
from pipeline.faust.shapes import Shape, shape_of
from pipeline.faust.tables import EngineTable, FaustTable, TableRows
from pipeline.faust.topics import spec_of, typed_topic
from pipeline.faust.windows import KEY_INDEX, EngineKeyIndex, WindowKeys, declare_windows

__all__ = ["FaustApp", "translated"]

_ATTRIBUTE = "_pipeline_app"
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")


class FaustApp(DeclaredApp):
    """The declarations of a `faust.App`. `faust_app`: the app itself. `faust_topics`: one of Faust's for each name."""

    def __init__(self, app: Any) -> None:
        super().__init__(_name(app.conf.id))
        self.replaces = app.conf.id
        self.faust_app = app
        self.faust_topics: dict[str, Any] = {}
        self.repartitions: dict[str, str] = {}  # topics that get as many partitions as another one
        self.faust_tables: dict[Any, FaustTable] = {}
        self.reply_topic: Any = None
        self.committed = CommittedRows()
        self.outputs = Outputs(app, self.topics)

    def declared(self, given: Any) -> Any:
        """What was declared for a topic, an agent or a table of Faust; other objects as they are."""
        if isinstance(given, AgentT):
            given = given.channel
        if isinstance(given, TopicT):
            return typed_topic(self.faust_app, given, given.get_topic_name())
        if isinstance(given, WindowWrapperT):
            given = given.table
        if isinstance(given, faust.Table):
            return self.faust_tables.get(given, given)
        return given

    def new_topics(self, existing: Collection[str]) -> Sequence[NewTopic]:
        """The topics to create, as Faust declares them, if the app allows that."""
        conf = self.faust_app.conf
        if not conf.topic_allow_declare:
            return ()
        return [
            spec_of(name, topic, conf)._replace(like=self.repartitions.get(name, ""))
            for name, topic in self.faust_topics.items()
            if name not in existing
        ]


def translated(app: Any) -> FaustApp:
    """The declarations of a `faust.App`, made once for each. Raises ConfigError."""
    found = vars(app).get(_ATTRIBUTE)
    if found is None:
        found = vars(app)[_ATTRIBUTE] = _translate(app)
    result: FaustApp = found
    return result


def _translate(app: Any) -> FaustApp:
    _discover(app)  # 1
    check_app(app)  # 2
    declared = FaustApp(app)
    _declare_replies(declared, app)
    shapes = _shapes_of(app)
    _declare_topics(declared, app, shapes)  # 3
    for table in app.tables.values():
        check_table(table)
    refuse(app)  # also what only the source shows, and settings; before the tables get another class
    for table in app.tables.values():
        _declare_table(declared, table)
    outputs = declared.outputs
    _declare_agents(declared, app, outputs, shapes)  # 4
    app._attachments = OutputBuffer(outputs)  # noqa: SLF001 - 5
    app.producer = EngineProducer(outputs)
    answerable(app)
    app.start = app.maybe_start = app.start_client = _refuse_start
    return declared


def _discover(app: Any) -> None:
    try:
        app.finalize()
        app.worker_init()
        if app.conf.autodiscover:
            app.discover()
    except faust.exceptions.FaustError as error:
        raise ConfigError(f"the faust.App cannot be configured: {error}") from error


def _declare_replies(declared: FaustApp, app: Any) -> None:
    """Name one reply topic for all processes, if an agent yields. Faust's has a random name in each process."""
    if not any(isasyncgenfunction(agent.fun) for agent in app.agents.values()):
        return
    conf = app.conf
    if _is_random(conf.reply_to.removeprefix(conf.reply_to_prefix)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing has used the random name yet
            conf.reply_to = f"{conf.reply_to_prefix}{conf.id}"
    declared.reply_topic = app.topic(
        conf.reply_to, partitions=1, deleting=True, retention=conf.reply_expires, value_type=ReqRepResponse
    )


def _is_random(name: str) -> bool:
    """Whether Faust has made the name: one of the user's own stays."""
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


async def _refuse_start(*_: Any, **__: Any) -> None:
    raise ConfigError(
        "the faust.App is started inside of a worker: this would start Faust's own engine",
        hint="leave the call out. In a web service, use `async with faust_running(app)`",
    )


def _indexed_by(app: Any, table: Any) -> Any:
    """The window that expires of which a table is the index of keys; None for any other table."""
    indexed = app.tables.get(table.name.removesuffix(KEY_INDEX)) if table.name.endswith(KEY_INDEX) else None
    return None if indexed is None or not indexed.window or not indexed.window.expires else indexed.window


def _shapes_of(app: Any) -> dict[Any, Shape]:
    """What the agents derive from their streams."""
    for agent in app.agents.values():
        check_agent(agent)
    return {agent: shape_of(app, agent) for agent in app.agents.values()}


def _declare_topics(declared: FaustApp, app: Any, shapes: Mapping[Any, Shape]) -> None:
    for agent, shape in shapes.items():
        source = agent.channel.topics[0]
        for derived in shape.derived:
            if derived.copartitioned:
                declared.repartitions[derived.topic.get_topic_name()] = source
    for topic in _topics_of(app):
        check_topic(topic)
        for name in topic.topics:
            if name not in declared.topics:
                declared.topic(name, bytes | None, bytes | None, "raw")
                declared.faust_topics[name] = topic


def _topics_of(app: Any) -> Iterator[Any]:
    """The topics of an app: first those of its agents, then all that exist, because an app keeps no list of them.

    Without the changelog topics of tables, which the journal replaces.
    """
    inputs = [agent.channel for agent in app.agents.values()]
    yield from inputs
    changelogs = {id(table._changelog_topic) for table in app.tables.values()}  # noqa: SLF001 - made if absent
    others = [
        each
        for each in gc.get_objects()
        if isinstance(each, TopicT) and each.app is app and id(each) not in changelogs
    ]
    yield from sorted(others, key=lambda topic: list(topic.topics))


def _declare_table(declared: FaustApp, table: Any) -> None:
    group: DeclaredGroup = declared.main
    name = _name(table.name)
    if isinstance(table, faust.SetTable):
        sets = FaustSets(group.name, name, table)
        declared.faust_tables[table] = sets
        table.__class__, table._data = EngineSetTable, SetRows(sets, table.name, declared.committed)  # noqa: SLF001 - what `data` returns
    elif table.window is not None:
        declare_windows(declared.faust_tables, group, name, table, declared.committed)
    elif (indexed := _indexed_by(declared.faust_app, table)) is not None:
        index = WindowKeys(group.name, name, table, indexed)
        declared.faust_tables[table] = index
        table.__class__, table._data = EngineKeyIndex, TableRows(index, table.name, declared.committed)  # noqa: SLF001
    else:
        rows = FaustTable(group.name, name, table)
        declared.faust_tables[table] = rows
        table.__class__, table._data = EngineTable, TableRows(rows, table.name, declared.committed)  # noqa: SLF001
    group.add_table(declared.faust_tables[table])


def _declare_agents(declared: FaustApp, app: Any, outputs: Outputs, shapes: Mapping[Any, Shape]) -> None:
    loop = declared.resource(AgentLoop)
    policy = policy_of(app)
    for agent, shape in shapes.items():
        held = HeldEvents(declared.main.name, f"{_name(agent.name)}-held") if shape.take is not None else None
        plan = AgentPlan(agent, app, outputs, loop, shape, held)
        # An error of a batch is not one of the record that completes it, so it cannot be skipped with that record.
        own = policy if held is None else policy._replace(on_error="stop")
        for number, topic in enumerate(plan.topics):
            for name in topic.topics:
                declared.main.bind(_binding(declared.topics[name], plan.handler(number), own))
        if held is not None:
            _declare_batches(declared, plan, held, own)


def _declare_batches(declared: FaustApp, plan: AgentPlan, held: HeldEvents, policy: Policy) -> None:
    """The table of the held events, and the step that ends their wait."""
    group: DeclaredGroup = declared.main
    group.add_table(held)
    taking = plan.shape.take
    if taking is not None and taking.within_s is not None:
        tick = TickTopic(group.name, held.name, max(SHORTEST_S, taking.within_s))
        group.bind_step(_binding(tick, plan.release, policy))


def _binding(topic: DeclaredTopic[Any, Any], function: Callable[..., None], policy: Policy) -> RuntimeBinding:
    return RuntimeBinding(topic, function, policy.on_error, False, policy.retries, policy.retry_delay_s)


def _name(name: str) -> str:
    """A name of Faust as one of the engine."""
    return _NO_NAME.sub("-", name)
