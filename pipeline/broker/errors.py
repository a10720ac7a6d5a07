"""The error of the local broker: `BrokerError`."""

from __future__ import annotations

from pipeline.errors import PipelineError

__all__ = ["BrokerError"]


class BrokerError(PipelineError):
    """The local broker cannot be installed, started or stopped. Reaction: print the message and exit with 1.

    The cause is on this machine: a port, a file, memory or the network. The hint tells its user how to fix it.
    """
