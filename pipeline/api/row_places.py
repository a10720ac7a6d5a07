"""The partition of a row: `partition_of_row`. A row belongs to the partition of the record whose handler wrote it."""

from __future__ import annotations

from typing import Any

from pipeline.api.declarations import DeclaredTable
from pipeline.api.declared_group import DeclaredGroup
from pipeline.core.records import partition_of
from pipeline.errors import InputError

__all__ = ["partition_of_row"]


def partition_of_row(group: DeclaredGroup, table: DeclaredTable[Any, Any], key: Any, partitions: int) -> int:
    """The partition of the records with this key, in the inputs of the table's group.

    Raises InputError if no input has keys of the table's type: then only the handlers know the partition.
    """
    for topic in group.inputs:
        if topic.key.schema == table.key_codec.schema:
            encoded = topic.key.encode(key)
            if encoded is not None:
                return partition_of(encoded, partitions)
    raise InputError(
        f"no input of group {table.group} has keys of the type of {table.label}, so the partition of a row is not "
        "known",
        hint="pass partition=, the partition of the record whose handler wrote the row",
    )
