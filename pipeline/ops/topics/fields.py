"""The fields of a declaration, `topics/NAME.yaml`, and their JSON Schema for editors.

`FIELDS` is the source of both the schema and the reader (`declarations.py`). They accept and refuse the same files,
except that a JSON Schema cannot detect a field that is given twice.
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
_DIALECT = "http://json-schema.org/draft-07/schema#"  # the one that most editors support


class FieldKind(Enum):
    """The type of a field. TEXT is not empty. FLAG is true or false."""

    NAME = "name"
    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"
    SETTINGS = "settings"


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    `about`: its description. `required`: every declaration must have it, except one with `deleted: true`. `most`: the
    largest value of a NUMBER; the smallest is 1.
    """

    kind: FieldKind
    about: str
    required: bool = False
    most: int = 0


FIELDS: Mapping[str, Field] = {
    "name": Field(FieldKind.NAME, "The topic's name, which is the file's name without .yaml.", required=True),
    "partitions": Field(
        FieldKind.NUMBER,
        "The number of partitions. It can be raised only if no app reads the topic, and never lowered.",
        required=True,
        most=10_000,
    ),
    "replication": Field(
        FieldKind.NUMBER,
        "The number of replicas of each partition. Default: 3, or the number of brokers if there are fewer.",
        most=100,
    ),
    "owner": Field(FieldKind.TEXT, "Who to ask about the topic.", required=True),
    "key": Field(FieldKind.TEXT, "A description of the keys, for readers.", required=True),
    "value": Field(FieldKind.TEXT, "A description of the values, for readers.", required=True),
    "id": Field(
        FieldKind.TEXT,
        "A description of the event id, by which duplicates are dropped. With this field, a load requires --id.",
    ),
    "config": Field(
        FieldKind.SETTINGS,
        "Topic settings of Kafka. All other settings have the cluster's default.",
    ),
    "deleted": Field(
        FieldKind.FLAG,
        "true: delete the topic with all its records; `pipeline topics apply` also requires --allow NAME.",
    ),
}


def schema_text() -> str:
    """The JSON Schema of a declaration: the content of the file `topic.schema.json`."""
    return json.dumps(_schema(), indent=2) + "\n"


def _schema() -> dict[str, Any]:
    required = [name for name, field in FIELDS.items() if field.required]
    return {
        "$schema": _DIALECT,
        "title": "A topic declaration",
        "description": "NAME.yaml declares one topic: docs/how-to/topics.md. Created by `pipeline topics schema`.",
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
