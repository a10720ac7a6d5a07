"""Topics against the declarations in the directory at hand: an app's where its worker starts, a load's.

Each reads the files of its own topics and no others, so a mistake in another one's file does not stop it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.ops.topics.declarations import (
    WHAT_IS_DECLARED,
    TopicDeclaration,
    declaration_file,
    read_topic_file,
)
from pipeline.ops.topics.plan import ClusterFacts, differences
from pipeline.ports import Cluster, Logger

__all__ = ["check_load", "check_topics"]


def check_topics(
    topics: Collection[str], directory: Path, cluster: Cluster, log: Logger, *, with_ids: Collection[str] = ()
) -> None:
    """Compare the topics that are declared in the directory with the cluster.

    Another number of partitions, a tombstone and a wrong file are ConfigErrors: keys would be elsewhere than a reader
    believes. Another setting, and a topic without a declaration, are warnings by name. A topic that is not in the
    cluster is left to the start itself. Nothing is said where the directory declares nothing. `with_ids`: topics whose
    records must carry ids; a declaration that does not say so is a warning, too.
    """
    if not any(path.suffix in {".yaml", ".yml"} for path in directory.iterdir()):
        return
    infos = cluster.describe(list(topics))
    for name in topics:
        path = _file(name, directory, log)
        info = infos.get(name)
        if path is None or info is None:
            continue
        topic = _declared(name, path)
        if topic.partitions != info.partitions:
            raise ConfigError(
                f"topic {name} has {info.partitions} partitions, and {path} declares {topic.partitions}",
                hint=f"see what that means: pipeline topics plan --dir {directory}",
            )
        if name in with_ids and not topic.id:
            log.warning(
                "topic_differs",
                topic=name,
                setting="id",
                declared=None,
                actual="the app drops duplicates by event id",
                hint=f"describe the event id in {path} as `id: ...`; pipeline produce then requires --id",
            )
        for change in differences(topic, info, ClusterFacts((), {name: info})):
            log.warning(
                "topic_differs",
                topic=name,
                setting=change.what,
                declared="the cluster's default" if change.to_default else change.after,
                actual=change.before,
                hint=f"pipeline topics plan --dir {directory}",
            )


def check_load(topic: str, directory: Path) -> None:
    """Of a load without event ids. Raises ConfigError where the topic's declaration says that events have one.

    A file that is wrong says nothing here: it is refused where topics are made and used.
    """
    path = declaration_file(topic, directory)
    declared = read_topic_file(path)[0] if path is not None else None
    if declared is not None and declared.id:
        raise ConfigError(
            f"{path} says that events of topic {topic} have an id ({declared.id}), and this load gives them none",
            hint="--id FIELD names the field with it: a record without one is an error for who drops duplicates by it",
        )


def _file(name: str, directory: Path, log: Logger) -> Path | None:
    path = declaration_file(name, directory)
    if path is None:
        log.warning(
            "topic_not_declared", topic=name, hint=f"pipeline topics export --dir {directory} --topic {name}"
        )
    return path


def _declared(name: str, path: Path) -> TopicDeclaration:
    topic, mistakes = read_topic_file(path)
    if topic is None:
        text = "\n  ".join(["the declaration of a topic of this app is wrong:", *mistakes])
        raise ConfigError(text, hint=WHAT_IS_DECLARED)
    if topic.deleted:
        raise ConfigError(
            f"this app uses topic {name}, which {path} declares as deleted",
            hint="take `deleted` out of the file, or the topic out of the app",
        )
    return topic
