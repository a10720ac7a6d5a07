"""The JSON Schema that editors use and the reader: they come from one table, and take the same files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.ops.topics.declarations import parse_topic
from pipeline.ops.topics.fields import FIELDS, SCHEMA_FILE, SCHEMA_LINE, schema_text

ROOT = Path(__file__).parents[3]
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
}


def _valid(schema: dict[str, Any], value: Any) -> bool:  # noqa: PLR0911 - one line for each keyword
    """As much of JSON Schema as ours has; a keyword that is not known here fails the test."""
    known = {
        "$schema", "title", "description", "type", "properties", "additionalProperties", "required", "if", "else",
        "pattern", "not", "anyOf", "minimum", "maximum", "const", "propertyNames",
    }  # fmt: skip
    assert schema.keys() <= known
    if "type" in schema and not any(_is(kind, value) for kind in _listed(schema["type"])):
        return False
    if "const" in schema and value is not schema["const"]:
        return False
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        return False
    if "minimum" in schema and not schema["minimum"] <= value <= schema["maximum"]:
        return False
    if "not" in schema and _valid(schema["not"], value):
        return False
    if "anyOf" in schema and not any(_valid(each, value) for each in schema["anyOf"]):
        return False
    if isinstance(value, dict) and not _valid_members(schema, value):
        return False
    return not ("if" in schema and not _valid(schema["if"], value) and not _valid(schema["else"], value))


def _valid_members(schema: dict[str, Any], value: dict[Any, Any]) -> bool:
    if any(name not in value for name in schema.get("required", [])):
        return False
    if "propertyNames" in schema and not all(_valid(schema["propertyNames"], str(name)) for name in value):
        return False
    properties, other = schema.get("properties", {}), schema.get("additionalProperties", {})
    for name, member in value.items():
        wanted = properties.get(name, other)
        if wanted is False or not _valid(wanted, member):
            return False
    return True


def _listed(types: str | list[str]) -> list[str]:
    return types if isinstance(types, list) else [types]


def _is(kind: str, value: Any) -> bool:
    if kind == "integer":
        return isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


GOOD = "name: orders\npartitions: 4\nowner: sales\nkey: none\nvalue: none\n"
CONFIG = GOOD + "config:\n  "


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (GOOD, True),
        (GOOD + "replication: 3\n", True),
        (GOOD + "replication: 101\n", False),
        (GOOD + "replication:\n", False),
        (GOOD + "deleted: true\n", True),
        (GOOD + "deleted: false\n", True),
        (GOOD + 'deleted: "true"\n', False),
        (GOOD + "deleted: 1\n", False),
        ("name: orders\ndeleted: true\n", True),
        ("name: orders\ndeleted: false\n", False),
        ("deleted: true\n", False),
        ("name: orders\n", False),
        (GOOD + "unknown: 1\n", False),
        (GOOD.replace("partitions: 4\n", ""), False),
        (GOOD.replace("4", '"4"'), False),
        (GOOD.replace("4", "4.0"), True),
        (GOOD.replace("4", "4.5"), False),
        (GOOD.replace("4", "0"), False),
        (GOOD.replace("4", "-4"), False),
        (GOOD.replace("4", "10000"), True),
        (GOOD.replace("4", "10001"), False),
        (GOOD.replace("4", "true"), False),
        (GOOD.replace("4", "[4]"), False),
        (GOOD.replace("sales", ""), False),
        (GOOD.replace("sales", '"  "'), False),
        (GOOD.replace("sales", "7"), False),
        (GOOD.replace("sales", "'7'"), True),
        (GOOD.replace("sales", "true"), False),
        (GOOD.replace("sales", "{a: b}"), False),
        (GOOD.replace("orders", "or ders"), False),
        (GOOD.replace("orders", "'orders '"), False),
        (GOOD.replace("orders", ".."), False),
        (GOOD.replace("orders", "..."), True),
        (GOOD.replace("orders", "shop.main.journal"), False),
        (GOOD.replace("orders", "shop.journal"), True),
        (GOOD.replace("orders", "shop.main.dead-letters"), False),
        (GOOD.replace("orders", "pipeline.loads"), False),
        (GOOD.replace("orders", "pipelines"), True),
        (GOOD.replace("orders", "__consumer_offsets"), False),
        (GOOD.replace("orders", "a" * 249), True),
        (GOOD.replace("orders", "a" * 250), False),
        (GOOD + "config: {}\n", True),
        (GOOD + "config:\n", False),
        (GOOD + "config: []\n", False),
        (GOOD + "config: x\n", False),
        (CONFIG + "retention.ms: -1\n", True),
        (CONFIG + "retention.ms: a week\n", True),  # the cluster says no, not the file
        (CONFIG + "of.tomorrow: true\n", True),
        (CONFIG + 'cleanup.policy: ""\n', True),
        (CONFIG + "cleanup.policy:\n", False),
        (CONFIG + "cleanup.policy: ~\n", False),
        (CONFIG + "cleanup.policy: [compact, delete]\n", False),
        (CONFIG + "a b: 1\n", False),
        ("- a\n", False),
        ("orders\n", False),
        ("", False),
    ],
)  # fmt: skip
def test_the_reader_and_the_schema_take_the_same_files(text: str, right: bool) -> None:
    """An editor that is content with what the command refuses, or the other way round, is worse than none."""
    assert _valid(json.loads(schema_text()), YAML(typ="safe", pure=True).load(text)) is right
    assert (parse_topic(text, "")[0] is not None) is right


def test_the_schema_in_the_repository_is_the_one_that_is_made() -> None:
    """Editors read the file; the command makes it: `pipeline topics schema > topics/topic.schema.json`."""
    assert (ROOT / "topics" / SCHEMA_FILE).read_text(encoding="utf-8") == schema_text()


def test_the_declarations_of_this_repository_name_their_schema() -> None:
    """It is what makes an editor complete names and mark mistakes, without any setting of its own."""
    for directory in (ROOT / "topics", ROOT / "examples" / "orders" / "topics"):
        files = list(directory.glob("*.yaml"))
        assert files
        for file in files:
            line = file.read_text(encoding="utf-8").splitlines()[0]
            assert line.startswith(SCHEMA_LINE.partition("=")[0])
            assert (directory / line.partition("=")[2]).resolve() == ROOT / "topics" / SCHEMA_FILE
            assert _valid(
                json.loads(schema_text()), YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
            )


def test_every_field_says_what_it_is() -> None:
    """Editors show the text beside the field."""
    assert all(field.about.endswith(".") for field in FIELDS.values())
