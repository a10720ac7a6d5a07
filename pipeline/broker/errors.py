"""The one error of the local broker: everything about it that can go wrong on a developer's machine."""

from __future__ import annotations

from pipeline.errors import PipelineError

__all__ = ["BrokerError"]


class BrokerError(PipelineError):
    """The local broker cannot be installed, started or stopped. Reaction: say so and exit 1.

    It is about this machine (a port, a file, memory, the network), so the person at it is the one to mend it;
    the hint says how.
    """
