"""The sink groups of an app, from the workers' notes: for commands without the app's code or its database."""

from __future__ import annotations

from pipeline.core.membership import Owner, decode_note
from pipeline.core.names import GroupId, TopicPartition, workers_topic
from pipeline.ports import JournalReader

__all__ = ["sink_groups"]


def sink_groups(app: str, reader: JournalReader) -> list[GroupId]:
    """The sink groups that have had an owner. The workers' topic of the app must exist. Raises UnreachableError."""
    topic = TopicPartition(workers_topic(app), 0)
    bounds = reader.bounds(topic)
    found: dict[GroupId, bool] = {}
    for _, data in reader.read(topic, bounds.start, bounds.stable_end):
        note = decode_note(app, data)
        if note is not None and isinstance(note[1], Owner):
            found[note[0].group_id] = bool(note[1].database)
    return [group for group, of_sinks in sorted(found.items()) if of_sinks]
