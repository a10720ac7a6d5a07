"""Topics written as declarations: planned afterwards they are an empty plan, and people's words stay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.names import never_declared
from pipeline.errors import InputError
from pipeline.ops.topics.declarations import parse_topic, read_topics
from pipeline.ops.topics.exporting import FileState, chosen_topics, plan_export, write_export
from pipeline.ops.topics.fields import SCHEMA_FILE, SCHEMA_LINE, schema_text
from pipeline.ops.topics.writing import render
from pipeline.ports import TopicSpec
from tests.ops.topics.conftest import Case, declare


def _export(case: Case, directory: Path, *patterns: str, overwrite: bool = False) -> dict[str, FileState]:
    names = chosen_topics(case.cluster.topics(), patterns)
    exports = plan_export(names, case.cluster, directory)
    write_export(exports, directory, overwrite=overwrite)
    return {each.topic: each.state for each in exports}


def test_a_topic_is_written_with_what_it_has_for_itself(case: Case, tmp_path: Path) -> None:
    """And with places for what only people know."""
    case.create("orders", retention_ms="-1", cleanup_policy="compact,delete")
    case.create("wide", 12, replication=2)
    assert _export(case, tmp_path / "topics") == {"orders": FileState.NEW, "wide": FileState.NEW}
    assert (tmp_path / "topics" / "orders.yaml").read_text() == SCHEMA_LINE + (
        "name: orders\npartitions: 4\nowner: describe me\nkey: describe me\nvalue: describe me\n"
        "config:\n  cleanup.policy: compact,delete\n  retention.ms: -1\n"
    )
    assert "replication: 2\n" in (tmp_path / "topics" / "wide.yaml").read_text()
    assert (tmp_path / "topics" / SCHEMA_FILE).read_text() == schema_text()
    assert not list((tmp_path / "topics").glob(".*"))


_VALUES: Mapping[str, st.SearchStrategy[str]] = {
    "cleanup.policy": st.sampled_from(["compact,delete", "delete,compact", "compact", "delete", ""]),
    "retention.ms": st.sampled_from(["-1", "604800000", "9223372036854775807", "1"]),
    "max.message.bytes": st.integers(1, 2**31 - 1).map(str),
    "min.cleanable.dirty.ratio": st.floats(0, 1).map(str),
    "min.insync.replicas": st.integers(1, 5).map(str),
    "preallocate": st.sampled_from(["true", "false"]),
    "compression.type": st.sampled_from(["zstd", "producer"]),
    "leader.replication.throttled.replicas": st.sampled_from(["*", "0:1,1:2"]),
}
_NAMES = st.text("aZ09._-", min_size=1, max_size=12).filter(
    lambda name: name not in {".", ".."} and never_declared(name) is None
)
_ODD_NAMES = st.sampled_from(["null", "true", "no", "12", "1.5", "0x1", "-", "---", "1e3", "a" * 249])
_SPECS = st.builds(
    TopicSpec,
    _NAMES | _ODD_NAMES,
    st.integers(1, 9),
    st.integers(0, 5),
    st.fixed_dictionaries({}, optional=_VALUES),
)


@given(st.lists(_SPECS, unique_by=lambda spec: spec.name, min_size=1, max_size=4))
def test_whatever_a_cluster_has_its_export_is_an_empty_plan(specs: list[TopicSpec]) -> None:
    """Otherwise the first plan for an existing cluster would change it."""
    case = Case()
    for spec in specs:
        case.broker.create(spec)
    with TemporaryDirectory() as name:
        _export(case, Path(name))
        plan = case.plan(*read_topics(Path(name)))
        assert plan.empty
        assert not plan.undeclared
        assert set(_export(case, Path(name)).values()) == {FileState.SAME}


@given(_SPECS, _SPECS, st.booleans())
def test_a_file_that_is_overwritten_is_an_empty_plan_too(was: TopicSpec, now: TopicSpec, flow: bool) -> None:
    """Whatever it said before, in whichever of YAML's forms."""
    case = Case()
    case.broker.create(TopicSpec("orders", now.partitions, now.replication, now.config))
    old = declare("orders", was.partitions)
    text = render(old).replace("describe me", "kept")
    if was.config and flow:
        text += (
            "config: {" + ", ".join(f'{name}: "{value}"' for name, value in was.config.items()) + "} # here\n"
        )
    elif was.config:
        text += "config:\n" + "".join(
            f'    # why\n    {name}: "{value}" # so\n' for name, value in was.config.items()
        )
    with TemporaryDirectory() as name:
        path = Path(name) / "orders.yaml"
        path.write_text(text.rstrip("\n") if flow else text)
        _export(case, Path(name), overwrite=True)
        assert case.plan(*read_topics(Path(name))).empty
        declared, _ = parse_topic(path.read_text(), "")
        assert declared is not None
        assert (declared.owner, declared.key) == ("tests", "none")


MINE = """\
# Ask before you change this.
name: orders
partitions: 2  # generous
replication: 1
owner: sales
key: |
  the customer's number,
  text
value: one order
config:
  # flights of 2013 carry their own time
  retention.ms: -1
  segment.bytes: 2000000  # small
  cleanup.policy: delete
"""


def test_comments_and_descriptions_of_a_file_stay(case: Case, tmp_path: Path) -> None:
    """They are what the cluster does not know."""
    case.create("orders", 4, 1, retention_ms="60000", cleanup_policy="delete", max_message_bytes="2000000")
    path = tmp_path / "orders.yaml"
    path.write_text(MINE)
    assert _export(case, tmp_path) == {"orders": FileState.DIFFERENT}
    assert path.read_text() == MINE
    _export(case, tmp_path, overwrite=True)
    assert path.read_text() == (
        MINE.replace("partitions: 2", "partitions: 4")
        .replace("retention.ms: -1", "retention.ms: 60000")
        .replace("  segment.bytes: 2000000  # small\n", "")
        + "  max.message.bytes: 2000000\n"
    )
    assert _export(case, tmp_path) == {"orders": FileState.SAME}


def test_a_file_that_is_right_is_not_touched(case: Case, tmp_path: Path) -> None:
    """A different order of settings or a default that is written down is no difference."""
    case.create("orders", 2, 1, retention_ms="-1", segment_bytes="2000000")
    path = tmp_path / "orders.yml"
    path.write_text(MINE)
    assert _export(case, tmp_path, overwrite=True) == {"orders": FileState.SAME}
    assert path.read_text() == MINE
    assert not (tmp_path / "orders.yaml").exists()


@pytest.mark.parametrize("text", ["name: orders\ndeleted: true\nowner: sales\n", "name: [", ""])
def test_a_file_that_cannot_be_changed_in_place_is_written_anew(
    case: Case, tmp_path: Path, text: str
) -> None:
    """A tombstone of a topic that is there, or no declaration at all: only when that is asked for."""
    case.create("orders")
    path = tmp_path / "orders.yaml"
    path.write_text(text)
    assert _export(case, tmp_path) == {"orders": FileState.DIFFERENT}
    assert path.read_text() == text
    _export(case, tmp_path, overwrite=True)
    (declared,) = read_topics(tmp_path)
    assert case.plan(declared).empty
    assert declared.owner == ("sales" if "sales" in text else "describe me")


def test_topics_are_chosen_by_pattern_and_internal_ones_never(case: Case) -> None:
    """If a journal had a declaration, users could change its settings."""
    names = [
        "orders-a",
        "orders-b",
        "clicks",
        "shop.main.journal",
        "pipeline.loads",
        "shop.main.dead-letters",
    ]
    assert chosen_topics(names, []) == ["clicks", "orders-a", "orders-b"]
    assert chosen_topics(names, ["orders-*"]) == ["orders-a", "orders-b"]
    assert chosen_topics(names, ["clicks", "*-a"]) == ["clicks", "orders-a"]
    with pytest.raises(InputError, match=r"no topic 'click'; did you mean 'clicks'"):
        chosen_topics(names, ["click"])
    with pytest.raises(InputError, match=r"is the name of a journal"):
        chosen_topics(names, ["shop.main.journal"])
