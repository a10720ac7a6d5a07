"""The fields of a declaration, `topics/NAME.yaml`: what the reader checks and what editors are told.

Both come from `FIELDS`. `schema` makes the JSON Schema; `declarations` reads files. They take and refuse the same
ones, but for a field that is given twice, which no JSON Schema can see.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pipeline.core.names import NEVER_DECLARED
from pipeline.core.topic_settings import SETTINGS

__all__ = [
    "FIELDS",
    "SCHEMA_FILE",
    "SCHEMA_LINE",
    "SETTING_NAME",
    "TOPIC_NAME",
    "Field",
    "FieldKind",
    "schema_text",
]

SCHEMA_FILE = "topic.schema.json"
SCHEMA_LINE = f"# yaml-language-server: $schema={SCHEMA_FILE}\n"
TOPIC_NAME = r"[A-Za-z0-9._-]{1,249}"
SETTING_NAME = r"[A-Za-z0-9._-]+"
_DIALECT = "http://json-schema.org/draft-07/schema#"  # the one that editors know best


class FieldKind(Enum):
    """What a field holds. TEXT is not empty. FLAG is true or false."""

    NAME = "name"
    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"
    SETTINGS = "settings"


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `required`: of every declaration but a tombstone. `most`: of a NUMBER, which is at least 1."""

    kind: FieldKind
    about: str
    required: bool = False
    most: int = 0


FIELDS: Mapping[str, Field] = {
    "name": Field(FieldKind.NAME, "The topic's name: what the file is called, without .yaml.", required=True),
    "partitions": Field(
        FieldKind.NUMBER,
        "How many partitions. More can be added only where no app reads the topic; fewer never.",
        required=True,
        most=10_000,
    ),
    "replication": Field(
        FieldKind.NUMBER,
        "How many copies of each partition. Left out: 3, or the number of brokers when there are fewer.",
        most=100,
    ),
    "owner": Field(FieldKind.TEXT, "Who to ask about the topic.", required=True),
    "key": Field(FieldKind.TEXT, "What a key holds, for people.", required=True),
    "value": Field(FieldKind.TEXT, "What a value holds, for people.", required=True),
    "id": Field(
        FieldKind.TEXT,
        "What the id of an event is, for people, where duplicates are dropped by it: a load then needs --id.",
    ),
    "config": Field(
        FieldKind.SETTINGS,
        "Settings of the topic, as Kafka names them. What is not here has the cluster's default.",
    ),
    "deleted": Field(
        FieldKind.FLAG,
        "true: the topic is to be deleted, with all its records; `pipeline topics apply` asks for --allow NAME, too.",
    ),
}


def schema_text() -> str:
    """The JSON Schema of a declaration, as the file `topic.schema.json` holds it."""
    return json.dumps(_schema(), indent=2) + "\n"


def _schema() -> dict[str, Any]:
    required = [name for name, field in FIELDS.items() if field.required]
    return {
        "$schema": _DIALECT,
        "title": "A topic, as code",
        "description": "NAME.yaml declares one topic: docs/how-to/topics.md. Made by `pipeline topics schema`.",
        "type": "object",
        "properties": {
            name: {"description": field.about, **_constraint(field)} for name, field in FIELDS.items()
        },
        "additionalProperties": False,
        "required": ["name"],
        "if": {"properties": {"deleted": {"const": True}}, "required": ["deleted"]},
        "else": {"required": required},
    }


def _constraint(field: Field) -> dict[str, Any]:
    match field.kind:
        case FieldKind.NAME:
            patterns = [r"\.{1,2}", *NEVER_DECLARED]
            return {
                "type": "string",
                "pattern": f"^{TOPIC_NAME}$",
                "not": {"anyOf": [{"pattern": f"^{pattern}$"} for pattern in patterns]},
            }
        case FieldKind.TEXT:
            return {"type": "string", "pattern": r"\S"}
        case FieldKind.NUMBER:
            return {"type": "integer", "minimum": 1, "maximum": field.most}
        case FieldKind.FLAG:
            return {"type": "boolean"}
        case FieldKind.SETTINGS:
            value = {"type": ["string", "number", "boolean"]}
            return {
                "type": "object",
                "properties": {name: {"description": about, **value} for name, about in SETTINGS.items()},
                "propertyNames": {"pattern": f"^{SETTING_NAME}$"},
                "additionalProperties": value,
            }
