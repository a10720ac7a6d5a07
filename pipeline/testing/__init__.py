"""Kafka, disk, time and threads in memory, for tests of pipelines and of this package's own runtime."""

from pipeline.testing.clock import ManualClock as ManualClock
from pipeline.testing.clock import SeededRandom as SeededRandom
from pipeline.testing.driver import SimulatedCrash as SimulatedCrash
from pipeline.testing.driver import TestDriver as TestDriver
from pipeline.testing.executor import DeferredExecutor as DeferredExecutor
from pipeline.testing.executor import InlineExecutor as InlineExecutor
from pipeline.testing.faults import Faults as Faults
from pipeline.testing.guard import StaleHandleError as StaleHandleError
from pipeline.testing.memory_broker import MemoryBroker as MemoryBroker
from pipeline.testing.memory_checkpoints import MemoryCheckpointStore as MemoryCheckpointStore
from pipeline.testing.memory_clients import MemoryCluster as MemoryCluster
from pipeline.testing.memory_clients import MemoryJournalReader as MemoryJournalReader
from pipeline.testing.memory_clients import MemoryProducers as MemoryProducers
from pipeline.testing.memory_clients import MemorySources as MemorySources
from pipeline.testing.memory_database import MemoryDatabase as MemoryDatabase
from pipeline.testing.memory_database import MemoryDatabases as MemoryDatabases
from pipeline.testing.memory_events import MemoryEventClients as MemoryEventClients
from pipeline.testing.memory_members import MemoryMembers as MemoryMembers
from pipeline.testing.memory_store import MemoryStores as MemoryStores
from pipeline.testing.producer import TestProducer as TestProducer
