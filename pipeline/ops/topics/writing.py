"""Writes declarations: a new file, or an existing one with new values and the same comments. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pipeline.ops.topics.declarations import TopicDeclaration
from pipeline.ops.topics.fields import SCHEMA_LINE
from pipeline.ops.topics.yaml_documents import (
    NUMBERS_AND_FLAGS,
    CommentedMap,
    MappingNode,
    Node,
    dump,
    kind_of_text,
    load,
    parse,
    quoted,
)

__all__ = ["edited", "render"]

EntryPath = tuple[str, ...]  # a field, or `config` and the name of a setting


def render(topic: TopicDeclaration) -> str:
    """The text of a new file. Its first line refers editors to the schema."""
    document = CommentedMap(name=quoted(topic.name), partitions=str(topic.partitions))
    if topic.replication:
        document["replication"] = str(topic.replication)
    for field in ("owner", "key", "value"):
        document[field] = quoted(getattr(topic, field))
    if topic.id:
        document["id"] = quoted(topic.id)
    if topic.config:
        document["config"] = _settings(topic.config)
    return SCHEMA_LINE + dump(document)


def edited(text: str, declared: TopicDeclaration, wanted: TopicDeclaration) -> str:
    """The file `text` with the partitions, the replication and the settings of another declaration.

    Args:
        text: A file that declares a topic.
        declared: What it declares.
        wanted: The declaration with the new values. Its `name`, `owner`, `key`, `value` and `id` are ignored.

    Returns:
        The new text. All other lines and all comments are unchanged. A file that consists of one `{...}` is formatted
        anew.
    """
    if not text.endswith("\n"):
        text += "\n"
    document = load(text)
    indent = _indent(document.get("config"))
    changed: set[EntryPath] = set()
    if wanted.partitions != declared.partitions:
        document["partitions"] = str(wanted.partitions)
        changed.add(("partitions",))
    if wanted.replication != declared.replication:
        _set_replication(document, wanted.replication)
        changed.add(("replication",))
    if wanted.config != declared.config:
        changed |= _set_config(document, declared.config, wanted.config)
    written = dump(document, indent=indent)
    return written if document.fa.flow_style() else _merged(text, written, changed)


def _indent(config: CommentedMap | None) -> int:
    """The indentation of the settings in the file; 2 if it has none, or has them on one line."""
    if not config or config.fa.flow_style():
        return 2
    return int(config.lc.key(next(iter(config)))[1])


def _set_replication(document: CommentedMap, replication: int) -> None:
    if "replication" in document:
        document["replication"] = str(replication)
    else:
        document.insert(list(document).index("partitions") + 1, "replication", str(replication))


def _set_config(document: CommentedMap, old: Mapping[str, str], new: Mapping[str, str]) -> set[EntryPath]:
    """Change the settings, and return the paths of the entries that must be rewritten."""
    config = document.get("config")
    if not config:
        document["config"] = _settings(new)
        return {("config",)}
    if not new:
        del document["config"]
        return set()
    for name in old.keys() - new.keys():
        del config[name]
    others = {name for name, value in new.items() if old.get(name) != value}
    config.update(_settings({name: value for name, value in new.items() if name in others}))
    return {("config",)} if config.fa.flow_style() else {("config", name) for name in others}


def _settings(config: Mapping[str, str]) -> CommentedMap:
    """Settings as YAML. Numbers and flags need no quotes: they are the same text to Kafka."""
    return CommentedMap(
        (name, value if kind_of_text(value) in NUMBERS_AND_FLAGS else quoted(value))
        for name, value in config.items()
    )


class _Entry(NamedTuple):
    """The lines of one entry; `after`: the comments and blank lines up to the next one."""

    path: EntryPath
    lines: list[str]
    after: list[str]
    is_alias: bool


class _Span(NamedTuple):
    """The first line of an entry, and the first line after it. `is_alias`: its value is that of an anchor above it."""

    path: EntryPath
    first: int
    end: int
    is_alias: bool = False


def _merged(before: str, after: str, changed: set[EntryPath]) -> str:
    """The text `before`, with the changed, new and removed entries of `after`.

    `after` is the same document as ruamel.yaml writes it: it spaces and wraps some lines in its own way, and it drops
    the comments that follow a removed entry. It also moves an anchor whose entry was removed to the first alias.
    """
    head, entries = _entries(before)
    kept = {entry.path for entry in entries}
    written: dict[EntryPath, _Entry] = {}
    added: dict[EntryPath, list[str]] = {}
    previous: EntryPath = ()
    for entry in _entries(after)[1]:
        written[entry.path] = entry
        if entry.path in kept:
            previous = entry.path
        else:
            added.setdefault(previous, []).extend(entry.lines)
    result = head
    for entry in entries:
        new = written.get(entry.path)
        if new is not None:
            is_changed = entry.path in changed or entry.is_alias != new.is_alias
            result += new.lines if is_changed else entry.lines
        result += added.get(entry.path, []) + entry.after
    return "".join(result)


def _entries(text: str) -> tuple[list[str], list[_Entry]]:
    """The lines before the first entry, and the entries in order."""
    lines = [f"{line}\n" for line in text.removesuffix("\n").split("\n")]
    spans = list(_spans(parse(text)))
    nexts = [span.first for span in spans[1:]] + [len(lines)]
    entries = [
        _Entry(span.path, lines[span.first : span.end], lines[span.end : following], span.is_alias)
        for span, following in zip(spans, nexts, strict=True)
    ]
    return lines[: spans[0].first], entries


def _spans(root: Node | None, above: EntryPath = ()) -> Iterator[_Span]:
    """The entries in order. The settings of a block are entries of their own."""
    for key, value in root.value if isinstance(root, MappingNode) else ():
        path, first, mark = (*above, str(key.value)), key.start_mark.line, value.end_mark
        if mark.index < key.start_mark.index:
            yield _Span(path, first, first + 1, is_alias=True)
        elif isinstance(value, MappingNode) and not value.flow_style:
            yield _Span(path, first, first + 1)
            yield from _spans(value, path)
        else:
            yield _Span(path, first, mark.line + (1 if mark.column else 0))
