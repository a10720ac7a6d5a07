"""What tests of pipelines import: Kafka, disk, databases, time and threads in memory.

`TestDriver` runs an app, with crashes at each `Step`. `TestProducer` stands for a `Producer`. The other names are what
these two give access to, or raise. `LocalKafka` is a real Apache Kafka on this machine, for tests that need one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.ports.steps import Step as Step
from pipeline.testing.databases import DriverDatabases as DriverDatabases
from pipeline.testing.driver import SimulatedCrash as SimulatedCrash
from pipeline.testing.driver import TestDriver as TestDriver
from pipeline.testing.faults import Faults as Faults
from pipeline.testing.guard import StaleHandleError as StaleHandleError
from pipeline.testing.memory_broker import MemoryBroker as MemoryBroker
from pipeline.testing.producer import MemoryEventClients as MemoryEventClients
from pipeline.testing.producer import TestProducer as TestProducer
from pipeline.testing.system import ManualClock as ManualClock
from pipeline.testing.system import SeededRandom as SeededRandom

if TYPE_CHECKING:
    from pipeline.broker.local import LocalKafka

__all__ = [
    "DriverDatabases",
    "Faults",
    "LocalKafka",
    "ManualClock",
    "MemoryBroker",
    "MemoryEventClients",
    "SeededRandom",
    "SimulatedCrash",
    "StaleHandleError",
    "Step",
    "TestDriver",
    "TestProducer",
]

if not TYPE_CHECKING:  # a type checker would take this for a module that has every name

    def __getattr__(name: str) -> Any:
        if name != "LocalKafka":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # Loaded when it is first used: most tests run in memory, and it takes as long to load as all of the above.
        value = globals()[name] = import_module("pipeline.broker.local").LocalKafka
        return value
