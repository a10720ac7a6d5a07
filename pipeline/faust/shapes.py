"""What an agent derives from its stream before its loop: `shape_of`, with the topics and batches of an agent.

`group_by`, `through` and `take` are calls in the code of an agent, but their topics and tables must be known before
the first event. So the agent is started once while the app is loaded, up to its request for the first event. This is
done only for agents whose code has one of these names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import copy_context
from inspect import isasyncgen, unwrap
from types import CodeType
from typing import Any, NamedTuple

from pipeline.errors import ConfigError, PipelineError
from pipeline.faust.agent_loop import AgentLoop, AgentReturned, AgentTask
from pipeline.faust.streams import Chain, Derived, Taking

__all__ = ["Shape", "shape_of"]

_DERIVING = frozenset({
    "combine", "group_by", "inner_join", "left_join", "noack_take", "outer_join", "take", "take_events",
    "take_with_timestamp", "through",
})  # fmt: skip


class Shape(NamedTuple):
    """The streams of an agent. `derived`: those after the first. `take`: the batches that it asks for, if any."""

    derived: tuple[Derived, ...] = ()
    take: Taking | None = None


def shape_of(app: Any, agent: Any) -> Shape:
    """Start the agent if its code derives streams, and stop it where it asks for an event. Raises ConfigError."""
    if not _DERIVING & set(_names(agent.fun)):
        return Shape()
    chain = Chain(app, agent, declared=None)
    loop, context = AgentLoop(), copy_context()
    made: Any = None
    try:
        made = context.run(agent.fun, chain.streams[0])
        first: Any = _first(made) if isasyncgen(made) else made
        AgentTask(loop, context).step(first, None)
        context.run(first.close)
    except AgentReturned:
        raise ConfigError(
            f"agent {agent.name} returns before it asks for an event",
            hint="let it iterate over its stream in a loop without end",
        ) from None
    except PipelineError:
        raise
    except Exception as error:
        raise ConfigError(
            f"agent {agent.name} raises {type(error).__name__} before it asks for its first event: {error}",
            hint="the code before the loop of an agent that calls group_by, through or take also runs when the app is "
            "loaded, without an event",
        ) from error
    finally:
        loop.close()
    return Shape(tuple(chain.derived), chain.take)


async def _first(made: Any) -> None:
    """Step an async generator up to its request for the first event."""
    async for _ in made:
        return


def _names(function: Any) -> Iterator[str]:
    """The names of attributes and globals in the code of a function, and in the functions that it contains."""
    code = getattr(unwrap(getattr(function, "__func__", function)), "__code__", None)
    if code is not None:
        yield from _names_of(code)


def _names_of(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_of(constant)
