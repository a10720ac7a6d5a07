"""Declarations as text: what is written is read back, and a file that is changed keeps everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.ops.topics.declarations import TopicDeclaration, parse_topic
from pipeline.ops.topics.writing import edited, render


def _declared(text: str) -> TopicDeclaration:
    topic, mistakes = parse_topic(text, "orders.yaml")
    assert topic is not None, mistakes
    return topic


def _with(text: str, config: Mapping[str, str | None], partitions: int = 0, replication: int = 0) -> str:
    """The file with other facts. `config`: what is changed; None: removed."""
    declared = _declared(text)
    settings = {**declared.config, **config}
    wanted = replace(
        declared,
        partitions=partitions or declared.partitions,
        replication=replication or declared.replication,
        config={name: value for name, value in settings.items() if value is not None},
    )
    result = edited(text, declared, wanted)
    assert _declared(result) == wanted
    return result


HEAD = """\
# top
---
name:        orders   # aligned
partitions:  4
owner:       'sales'
key: >-
    folded
    text
value: one
  order
"""
CONFIG = """\
config:  # all of them
        # why a
        a.b:    1      # one

        # why c
        c:      "2"    # two
        # why d
        d:      x
# the end
...
"""


def test_other_lines_keep_their_spelling() -> None:
    """A review shows the lines of a change; a change of spacing everywhere hides them."""
    assert _with(HEAD + CONFIG, {}) == HEAD + CONFIG
    assert _with(HEAD + CONFIG, {"c": "3"}, 6, 3) == (HEAD + CONFIG).replace(
        "partitions:  4\n", "partitions: 6\nreplication: 3\n"
    ).replace('c:      "2"    # two', 'c: "3"         # two')


def test_comments_after_a_removed_setting_stay() -> None:
    """They are about the next one, or about something that only people know."""
    assert _with(HEAD + CONFIG, {"c": None}) == (HEAD + CONFIG).replace('        c:      "2"    # two\n', "")
    assert _with(HEAD + CONFIG, {"a.b": None, "c": None, "d": None}) == HEAD + "".join(
        f"{line}\n"
        for line in ["        # why a", "", "        # why c", "        # why d", "# the end", "..."]
    )


def test_new_settings_come_before_the_comments_at_the_end() -> None:
    """A comment at the end of the file is about the file."""
    assert _with(HEAD + CONFIG, {"e": "true", "f": ""}) == (HEAD + CONFIG).replace(
        "        d:      x\n", '        d:      x\n        e: true\n        f: ""\n'
    )
    assert _with(HEAD + "# the end\n", {"e": "1e-05"}) == HEAD + "config:\n  e: 1e-05\n# the end\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("config: {}\n", "config:\n  e: x,y\n"),
        ("config: { a: 1 , b: 2 } # why\n", "config: {a: 1, b: 2, e: 'x,y'} # why\n"),
        ("config: {a: 1}", "config: {a: 1, e: 'x,y'}\n"),
        ("", "config:\n  e: x,y\n"),
    ],
)
def test_settings_are_added_in_the_form_that_the_file_has(old: str, new: str) -> None:
    """Both forms are YAML, and people choose one."""
    assert _with(HEAD + old, {"e": "x,y"}) == HEAD + new


def test_an_alias_survives_its_anchor() -> None:
    """Else a file would be written anew, without its comments, when one setting goes."""
    text = HEAD + "config:\n  a: &size 5\n  # why\n  b:   *size\n  c:   *size  # too\n"
    removed = HEAD + "config:\n  # why\n  b: &size 5\n  c:   *size  # too\n"
    assert _with(text, {"a": None}) == removed
    assert _with(text, {"a": "7"}) == removed.replace("config:\n", "config:\n  a: 7\n")


def test_a_file_in_braces_is_changed_too() -> None:
    """JSON is YAML, and programs write it."""
    text = (
        '{"name": "orders", "partitions": 4, "owner": "a", "key": "b", "value": "c", "config": {"d": -1}}\n'
    )
    assert _with(text, {"d": "5"}, 6) == text.replace("4", "6").replace("-1", "5")


_TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool)
_ODD = st.sampled_from(
    [
        *["no", "On", "y", "null", "~", "12", "0x1", "1_000", "12:30", "2013-01-01", "=", "<<", "---", "..."],
        *[
            "a: b",
            "a # b",
            "- a",
            "? a",
            "*a",
            "&a",
            "!a",
            "[a",
            "{a",
            "%a",
            "@a",
            "'",
            '"',
            "\\",
            "a\nb",
            "a\tb",
        ],
        *["\x1b", "\x7f", "a\x85b", "\u2028x\u2028y", "\ufeffx", "\U0001f600"],
    ]
).map(str.strip)


@given(_TEXTS | _ODD, _TEXTS | _ODD)
def test_any_text_is_read_back_by_both_versions_of_yaml(owner: str, value: str) -> None:
    """Other programs read the files, too, and many by YAML 1.1, where `no` is a flag."""
    topic = TopicDeclaration("orders", 4, owner, "none", value, config={"a": value})
    text = render(topic)
    assert _declared(text) == topic
    old = YAML(typ="safe", pure=True)
    old.version = (1, 1)
    found = old.load(text)
    assert (found["owner"], found["value"]) == (owner, value)


_COMMENTS = st.sampled_from(["", "", "# c\n", "\n", "  # indented\n\n", "\n# c\n\n"])
_VALUES = st.sampled_from(
    [
        "-1",
        "'-1'",
        "true",
        '"x, y"',
        "zstd",
        "0x1",
        "1_000",
        ".5e3",
        "|\n          x\n",
        "compact  # so",
        "''",
    ]
)
_LINES = st.lists(
    st.tuples(st.sampled_from(["a", "b.c", "no", "d", "e"]), _VALUES, _COMMENTS),
    unique_by=lambda line: line[0],
)
_NEW = st.dictionaries(
    st.sampled_from(["a", "b.c", "no", "d", "f"]), st.sampled_from([None, "7", "false", "x", "", "null", "*"])
)


@given(_LINES, _NEW, _COMMENTS, st.sampled_from([1, 2, 4]), st.booleans())
def test_every_comment_stays_whatever_is_changed(
    lines: list[tuple[str, str, str]], new: dict[str, str | None], end: str, indent: int, last: bool
) -> None:
    """The cluster does not store comments, so a lost comment cannot be restored."""
    block = "".join(f"{' ' * indent}{name}:   {value.rstrip()}\n{comment}" for name, value, comment in lines)
    config = f"config:\n{end}{block}" if lines else ""
    text = HEAD + config if last else config + HEAD.replace("---\n", "")
    result = _with(text, new, 6)
    comments = [line for line in text.split("\n") if line.lstrip().startswith("#")]
    assert [line for line in result.split("\n") if line.lstrip().startswith("#")] == comments
