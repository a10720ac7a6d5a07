"""Topic declarations: read with every mistake named, and by the schema that editors use."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.ops.topics.declarations import TopicDeclaration, parse_topic, read_topics

GOOD = """\
name: orders
partitions: 4
replication: 3
owner: sales
key: the customer's number, text
value: one order, a JSON object
config:
  retention.ms: -1
  cleanup.policy: compact
  preallocate: true
"""


def _mistakes(text: str) -> list[str]:
    topic, mistakes = parse_topic(text, "orders.yaml")
    assert topic is None
    return mistakes


def test_a_declaration_is_read_with_settings_as_kafka_writes_them() -> None:
    """`true` and -1 are text to Kafka; YAML's own idea of them must not get in between."""
    topic, mistakes = parse_topic(GOOD, "orders.yaml")
    assert mistakes == []
    assert topic == TopicDeclaration(
        name="orders",
        partitions=4,
        owner="sales",
        key="the customer's number, text",
        value="one order, a JSON object",
        replication=3,
        config={"retention.ms": "-1", "cleanup.policy": "compact", "preallocate": "true"},
    )


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        (
            "partitions: 4",
            "partitions: four",
            "orders.yaml:2: partitions must be a whole number from 1 to 10000",
        ),
        ("partitions: 4", "partitions: 0", "orders.yaml:2: partitions must be"),
        ("partitions: 4", "partitions: 10001", "orders.yaml:2: partitions must be"),
        ("partitions: 4", "partitions: [4]", "orders.yaml:2: partitions must be"),
        ("partitions: 4\n", "", "orders.yaml:1: 'partitions' is missing"),
        ("replication: 3", "replication: x", "orders.yaml:3: replication must be"),
        ("owner: sales", "owner:", "orders.yaml:4: owner must be a text"),
        ("owner: sales", "owner: sales\nowner: me", "orders.yaml:5: 'owner' is given twice"),
        ("owner: sales", "owner: sales\nretention: 5", "orders.yaml:5: there is no field 'retention'"),
        ("name: orders", "name: or ders", "orders.yaml:1: 'or ders' is not a valid topic name"),
        ("name: orders", "name: ..", "orders.yaml:1: '..' is not a valid topic name"),
        (
            "name: orders",
            "name: shop.main.journal",
            "orders.yaml:1: 'shop.main.journal' is the name of a journal",
        ),
        (
            "name: orders",
            "name: pipeline.loads",
            "orders.yaml:1: 'pipeline.loads' starts with `pipeline.`, which is reserved",
        ),
        ("config:", "config: x\nnothing:", "orders.yaml:7: config must be a list of settings"),
        ("retention.ms: -1", "retention.ms: [1]", "orders.yaml:8: config retention.ms must be a text"),
        ("owner: sales", "owner: 'sales", "orders.yaml:1: not valid YAML"),
        ("owner: sales", "owner: 7", 'orders.yaml:4: owner must be a text: quote it, "7"'),
        (
            "name: orders",
            "name: shop.main.dead-letters",
            "'shop.main.dead-letters' is the name of a dead-letter topic",
        ),
        ("name: orders", "name: __offsets", "'__offsets' is the name of an internal topic of Kafka"),
        (
            "retention.ms: -1",
            "retention.ms:",
            'orders.yaml:8: config retention.ms has no value; write an empty value as ""',
        ),
        (
            "retention.ms: -1",
            "retention ms: -1",
            "orders.yaml:8: 'retention ms' is not a valid name of a setting",
        ),
        ("config:", "deleted: yes\nconfig:", "orders.yaml:7: deleted must be true or false"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, mistake: str) -> None:
    """A user with fifty declarations needs the file and the line, not the parser's type names."""
    found = _mistakes(GOOD.replace(old, new))
    if "YAML" in mistake:
        assert "not valid YAML" in found[0]
        return
    assert any(mistake in each for each in found), found


@pytest.mark.parametrize("text", ["", "- name: orders", "orders", "\0"])
def test_what_is_no_declaration_at_all_is_refused(text: str) -> None:
    """An empty file in topics/ is a mistake, not a topic."""
    assert _mistakes(text)


def test_all_mistakes_of_all_files_come_at_once(tmp_path: Path) -> None:
    """One run, one list to work through."""
    (tmp_path / "orders.yaml").write_text(GOOD.replace("partitions: 4", "partitions: x"))
    (tmp_path / "wrong.yaml").write_text(GOOD)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(ConfigError) as error:
        read_topics(tmp_path)
    assert "orders.yaml:2: partitions" in error.value.message
    assert "wrong.yaml: declares 'orders'; rename the file to orders.yaml" in error.value.message
    assert "latin.yaml: cannot be read" in error.value.message


def test_a_directory_without_declarations_is_refused(tmp_path: Path) -> None:
    """Most likely the command runs in the wrong place."""
    with pytest.raises(ConfigError, match="has no topic declaration"):
        read_topics(tmp_path)
    with pytest.raises(ConfigError, match="no directory"):
        read_topics(tmp_path / "topics")


def test_the_declarations_of_this_repository_are_right() -> None:
    """The demo applies them, and its records of 2013 must not fall to retention."""
    topics = read_topics(Path(__file__).parents[3] / "topics")
    assert {"carrier-delays", "flights-by-carrier", "flights-by-tail", "tail-hops"} <= {
        t.name for t in topics
    }
    assert all(topic.config.get("retention.ms") == "-1" for topic in topics)


def test_a_tombstone_needs_nothing_but_the_name() -> None:
    """The declaration of a deleted topic does not need the other fields."""
    topic, mistakes = parse_topic("name: orders\ndeleted: true\n", "orders.yaml")
    assert mistakes == []
    assert topic is not None
    assert (topic.name, topic.deleted) == ("orders", True)
    assert _mistakes("name: orders\ndeleted: false\n")


def test_words_that_are_flags_only_to_old_readers_are_texts() -> None:
    """A key that holds `no` is described, not denied; and 12:30 is no number of minutes."""
    topic, mistakes = parse_topic(
        GOOD.replace("owner: sales", "owner: no").replace("retention.ms: -1", "a: 12:30"), ""
    )
    assert mistakes == []
    assert topic is not None
    assert (topic.owner, topic.config["a"]) == ("no", "12:30")


def test_a_file_that_nests_without_end_is_refused() -> None:
    """A mistake of a program that writes files must not show its reader's stack."""
    assert "nested too deeply" in _mistakes("[" * 500)[0]


@pytest.mark.parametrize(
    "text", ["2013-01-01", "1_000", "0b1", "-0x1", "12:30", "=", "<<", "yes", "!!str 7", "''", "1e", "."]
)
def test_texts_are_those_of_the_core_schema(text: str) -> None:
    """Editors check a file by that schema; what one accepts the other must not refuse."""
    topic, _ = parse_topic(GOOD.replace("owner: sales", f"owner: {text}"), "")
    if text == "''":
        assert topic is None  # a text, but an empty one
    else:
        assert topic is not None
        assert topic.owner == text.removeprefix("!!str ")


@pytest.mark.parametrize("number", ["4", "+4", "0o4", "0x4", "4.0", ".4e1", "40E-1", "!!int 4"])
def test_numbers_are_those_of_the_core_schema(number: str) -> None:
    """A number of partitions that an editor accepts must be the same number here."""
    topic, mistakes = parse_topic(GOOD.replace("partitions: 4", f"partitions: {number}"), "")
    assert mistakes == []
    assert topic is not None
    assert topic.partitions == 4


@pytest.mark.parametrize(
    "value", ["4_0", "0b1", "!!int x", ".inf", ".nan", "1e400", "9" * 5000, "4.5", "'4'"]
)
def test_other_values_are_not_a_number_of_partitions(value: str) -> None:
    """Whatever the file says, it gets an answer with a line, and no traceback."""
    found = _mistakes(GOOD.replace("partitions: 4", f"partitions: {value}"))
    assert found == ["orders.yaml:2: partitions must be a whole number from 1 to 10000"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("name: orders\nowner: \x01\n", "orders.yaml:2: not valid YAML: unacceptable character #x0001"),
        ("name: orders\nowner: a: b\n", "orders.yaml:2: not valid YAML: mapping values are not allowed here"),
        ("name: a\n---\nname: b\n", "orders.yaml:2: not valid YAML: but found another document"),
        ("name: *a\n", "orders.yaml:1: not valid YAML: found undefined alias 'a'"),
        ("ownr: me\n", "orders.yaml:1: there is no field 'ownr'; did you mean 'owner'?"),
    ],
)
def test_a_mistake_of_syntax_is_named_with_its_line(text: str, mistake: str) -> None:
    """The parser's own words, and the place where an editor would underline."""
    assert any(each.startswith(mistake) for each in _mistakes(text)), _mistakes(text)


def test_a_text_may_be_repeated_by_its_anchor() -> None:
    """It is YAML; an anchor that is used twice, and one that contains itself, must not be more than a mistake."""
    topic, mistakes = parse_topic(
        GOOD.replace("owner: sales", "owner: &a sales").replace("one order, a JSON object", "*a"), ""
    )
    assert mistakes == []
    assert topic is not None
    assert topic.value == "sales"
    assert _mistakes("name: &a x\nowner: &a y\n")
    assert _mistakes("&a\nname: orders\nconfig: *a\n")
    assert _mistakes("name: orders\nconfig: &a\n  x: *a\n")
