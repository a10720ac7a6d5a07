"""What is known of loads afterwards."""

from __future__ import annotations

import pytest

from pipeline.core.names import LOADS_TOPIC, load_transactional_id
from pipeline.ops.loading.loader import known_loads
from pipeline.ports import Output
from pipeline.testing.memory_clients import MemoryJournalReader, MemoryProducers
from tests.support.ops.loading.load_case import ID, NAME, Case, Crash, csv_file, csv_files


def test_each_load_is_known_by_its_last_committed_position() -> None:
    """An operator must be able to see which rows are loaded, also a week later."""
    case = Case()
    reader = MemoryJournalReader(case.broker)
    assert known_loads(reader) == []
    case.broker.fail_next("begin", Crash(), where=ID)
    with pytest.raises(Crash):
        case.load(csv_file())
    assert known_loads(reader) == []
    files = csv_files(10, 20, 30)
    seen = []
    case.loader(files).run(lambda _: seen.append([(load.name, load.state) for load in known_loads(reader)]))
    assert seen[0] == [(NAME, "begun")]
    (load,) = known_loads(reader)
    assert load.state == "complete"
    assert load.position is not None
    assert (load.position.records, load.position.finished_files.count) == (30, 2)


def test_a_position_that_cannot_be_read_is_listed_as_such() -> None:
    """One damaged record must not hide all other loads."""
    case = Case()
    case.load()
    producer = MemoryProducers(case.broker).open(load_transactional_id("other"))
    producer.init()
    producer.begin()
    later = b'{"version":9,"name":"later","checksum":"","load":{}}'
    producer.send([Output(LOADS_TOPIC, b"later", later, 0), Output(LOADS_TOPIC, b"x", b"{", 0)])
    producer.flush()
    producer.commit()
    unreadable, good = known_loads(MemoryJournalReader(case.broker))
    assert (unreadable.name, unreadable.state, unreadable.position) == ("later", "unreadable", None)
    assert "version 9" in str(unreadable.fault)
    assert good.name == NAME
