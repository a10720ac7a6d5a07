"""An app's topics against the declarations where its worker starts: `check_topics`.

A worker reads the files of its own topics and no others, so a mistake in another one's file does not stop it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipeline.client.topics.declarations import WHAT_IS_DECLARED, TopicDeclaration, read_topic_file
from pipeline.client.topics.plan import Facts, differences
from pipeline.errors import ConfigError
from pipeline.ports import Cluster, Logger

__all__ = ["check_topics"]


def check_topics(topics: Collection[str], directory: Path, cluster: Cluster, log: Logger) -> None:
    """Compare the topics that are declared in the directory with the cluster.

    Another number of partitions, a tombstone and a wrong file are ConfigErrors: keys would be elsewhere than somebody
    believes. Another setting, and a topic without a declaration, are warnings by name. A topic that is not in the
    cluster is left to the start itself. Nothing is said where the directory declares nothing.
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
        for change in differences(topic, info, Facts((), {name: info})):
            log.warning(
                "topic_differs",
                topic=name,
                setting=change.what,
                declared="the cluster's default" if change.to_default else change.after,
                actual=change.before,
                next=f"pipeline topics plan --dir {directory}",
            )


def _file(name: str, directory: Path, log: Logger) -> Path | None:
    for path in (directory / f"{name}.yaml", directory / f"{name}.yml"):
        if path.exists():
            return path
    log.warning(
        "topic_not_declared", topic=name, next=f"pipeline topics export --dir {directory} --topic {name}"
    )
    return None


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
