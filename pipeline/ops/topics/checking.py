"""Compares the topics of an app, when its worker starts, and the topic of a load with their declarations.

Only the files of these topics are read, so a mistake in another file has no effect.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipeline.core.suggestions import counted, did_you_mean, topic_hint
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
    topics: Collection[str],
    directory: Path,
    cluster: Cluster,
    log: Logger,
    *,
    with_ids: Collection[str] = (),
    created: Collection[str] = (),
) -> None:
    """Compare the topics of an app that the directory declares with the cluster.

    Another setting, or a topic without a declaration, is logged as a warning. A declared topic that the cluster does
    not have is ignored: the start reports it. If the directory has no declaration, no topic is compared.

    Args:
        topics: The topics of the app.
        directory: The directory of the declarations.
        cluster: The cluster.
        log: Receives the warnings.
        with_ids: Topics whose records must have ids. A declaration without `id` is a warning.
        created: Topics that the worker creates if they do not exist.

    Raises:
        ConfigError: The number of partitions differs, because keys would be in other partitions than readers expect; a
            topic is declared as deleted; a topic is neither in the cluster nor declared; or a file is not valid.
    """
    if not any(path.suffix in {".yaml", ".yml"} for path in directory.iterdir()):
        return
    infos = cluster.describe(list(topics))
    for name in topics:
        info = infos.get(name)
        if info is None and declaration_file(name, directory) is None:
            if name in created:
                continue
            raise _unknown(name, directory, cluster)
        path = _file(name, directory, log)
        if path is None or info is None:
            continue
        topic = _declared(name, path)
        if topic.partitions != info.partitions:
            raise ConfigError(
                f"topic {name} has {counted(info.partitions, 'partition')}, but {path} declares {topic.partitions}",
                hint=f"to see the difference and what it means, run: pipeline topics plan --dir {directory}",
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
    """Raise ConfigError if the topic's declaration requires event ids. Call this for a load without event ids.

    A file that is not valid is ignored: `topics plan` and the start of a worker refuse it.
    """
    path = declaration_file(topic, directory)
    declared = read_topic_file(path)[0] if path is not None else None
    if declared is not None and declared.id:
        raise ConfigError(
            f"{path} declares that events of topic {topic} have an id ({declared.id}), but this load has no --id",
            hint="give the field with the id: --id FIELD; an app that drops duplicates refuses a record without an id",
        )


def _file(name: str, directory: Path, log: Logger) -> Path | None:
    path = declaration_file(name, directory)
    if path is None:
        log.warning(
            "topic_not_declared", topic=name, hint=f"pipeline topics export --dir {directory} --topic {name}"
        )
    return path


def _unknown(name: str, directory: Path, cluster: Cluster) -> ConfigError:
    declared = [path.stem for path in directory.iterdir() if path.suffix in {".yaml", ".yml"}]
    suggestion = did_you_mean(name, sorted({*cluster.topics(), *declared}))
    return ConfigError(
        f"the cluster has no topic {name}, which this app uses, and {directory} does not declare it{suggestion}",
        hint=topic_hint([name], named=bool(suggestion)),
    )


def _declared(name: str, path: Path) -> TopicDeclaration:
    topic, mistakes = read_topic_file(path)
    if topic is None:
        text = "\n  ".join(["the declaration of a topic of this app is not valid:", *mistakes])
        raise ConfigError(text, hint=WHAT_IS_DECLARED)
    if topic.deleted:
        raise ConfigError(
            f"this app uses topic {name}, which {path} declares as deleted",
            hint="remove `deleted` from the file, or the topic from the app",
        )
    return topic
