"""Exports the topics of a cluster as declarations. The plan of exported declarations has no changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.core.names import never_declared
from pipeline.core.suggestions import did_you_mean
from pipeline.core.topic_settings import UNMANAGED
from pipeline.errors import ConfigError, InputError
from pipeline.ops.topics.declarations import TopicDeclaration, parse_topic
from pipeline.ops.topics.fields import SCHEMA_FILE, schema_text
from pipeline.ops.topics.plan import ClusterFacts, differences
from pipeline.ops.topics.writing import edited, render
from pipeline.ports import Cluster, TopicInfo

__all__ = ["UNDESCRIBED", "Export", "FileState", "chosen_topics", "plan_export", "write_export"]

UNDESCRIBED = "describe me"


class FileState(StrEnum):
    """The state of a topic's file before the export: missing, as in the cluster, or different.

    A DIFFERENT file is replaced only if the caller requests it.
    """

    NEW = "new"
    SAME = "same"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Export:
    """The file of one topic. `text`: its new content."""

    topic: str
    path: Path
    state: FileState
    text: str


def chosen_topics(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The topics of `names` that can be declared and match a pattern (`*` and `?` as in a shell).

    Without patterns, all topics that can be declared. Raises InputError for a pattern that matches no topic.
    """
    declarable = sorted(name for name in names if never_declared(name) is None)
    if not patterns:
        return declarable
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in declarable):
            why = never_declared(pattern)
            raise InputError(
                f"{pattern!r} {why}"
                if why
                else f"there is no topic {pattern!r}{did_you_mean(pattern, declarable)}"
            )
    return [name for name in declarable if any(fnmatchcase(name, pattern) for pattern in patterns)]


def plan_export(topics: Sequence[str], cluster: Cluster, directory: Path) -> list[Export]:
    """The file of each topic. Reads the cluster and the directory, and writes no file.

    Raises UnreachableError, ConfigError (a file cannot be read).
    """
    usual = cluster.default_replication()
    return list(_exports(cluster.describe(topics), usual, directory))


def write_export(exports: Sequence[Export], directory: Path, *, overwrite: bool) -> None:
    """Write the new files, with `overwrite` also the different ones, and the JSON Schema that they refer to.

    A crash leaves no incomplete file: each one is written under another name and renamed. Raises ConfigError if a write
    fails.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / SCHEMA_FILE, schema_text())
        for each in exports:
            if each.state is FileState.NEW or (overwrite and each.state is FileState.DIFFERENT):
                _write(each.path, each.text)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {directory}: {error.strerror}",
            hint="choose another directory with --dir, or correct its permissions",
        ) from error


def _described(topic: TopicDeclaration) -> tuple[str, ...]:
    """The descriptions, which no cluster knows."""
    return topic.owner, topic.key, topic.value, topic.id


def _exports(infos: Mapping[str, TopicInfo], usual: int, directory: Path) -> Iterator[Export]:
    for name, info in sorted(infos.items()):
        wanted = _declaration(info, usual)
        path = _file(directory, name)
        if not path.exists():
            yield Export(name, path, FileState.NEW, render(wanted))
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        declared, _ = parse_topic(text, str(path))
        if declared is not None and _agrees(declared, info):
            yield Export(name, path, FileState.SAME, text)
        else:
            yield Export(name, path, FileState.DIFFERENT, _changed(text, declared, wanted, info))


def _declaration(info: TopicInfo, usual: int) -> TopicDeclaration:
    return TopicDeclaration(
        name=info.name,
        partitions=info.partitions,
        owner=UNDESCRIBED,
        key=UNDESCRIBED,
        value=UNDESCRIBED,
        # Leave out the cluster's default, so that the file can also be applied to a cluster with fewer brokers.
        replication=info.replication if info.replication != usual else 0,
        config={name: info.config[name] for name in sorted(info.overridden - UNMANAGED)},
    )


def _agrees(declared: TopicDeclaration, info: TopicInfo) -> bool:
    return (
        declared.name == info.name
        and not declared.deleted
        and not differences(declared, info, ClusterFacts((), {info.name: info}))
    )


def _changed(text: str, declared: TopicDeclaration | None, wanted: TopicDeclaration, info: TopicInfo) -> str:
    """The old file with the new values; a new file if the old one is not valid or cannot be changed in place."""
    if declared is None:
        return render(wanted)
    if declared.replication:
        wanted = replace(wanted, replication=info.replication)
    if not declared.deleted:
        changed = edited(text, declared, wanted)
        again, _ = parse_topic(changed, "")
        if again is not None and _agrees(again, info) and _described(again) == _described(declared):
            return changed
    return render(
        replace(
            wanted,
            owner=declared.owner or UNDESCRIBED,
            key=declared.key or UNDESCRIBED,
            value=declared.value or UNDESCRIBED,
            id=declared.id,
        )
    )


def _file(directory: Path, topic: str) -> Path:
    other = directory / f"{topic}.yml"
    return other if other.exists() else directory / f"{topic}.yaml"


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name[:200]}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
