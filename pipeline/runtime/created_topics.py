"""Topics that a worker creates at its start: `create_topics`, and `create_new_topics` for those that an app names.

A crash in between leaves some of them, which the next start finds.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.api.app import DeclaredApp
from pipeline.errors import FatalTaskError
from pipeline.ports import Deadline, TopicSpec
from pipeline.runtime.environment import Environment

__all__ = ["create_new_topics", "create_topics"]

_SEEN_S = 10.0
_POLL_S = 0.05


def create_topics(specs: Sequence[TopicSpec], environment: Environment) -> None:
    """Create the missing ones. Raises FatalTaskError if they do not appear in the cluster's metadata."""
    names = {spec.name for spec in specs}
    environment.cluster.create(specs)
    deadline = Deadline(environment.clock, _SEEN_S, _POLL_S)
    while not names.issubset(environment.cluster.topics()):
        # Another broker may answer than the one that created them, and its metadata is updated a moment later.
        if not deadline.pause():
            raise FatalTaskError(
                f"topics {', '.join(sorted(names))} were created but did not appear within {_SEEN_S:.0f} s",
                hint="check the brokers, then start again",
            )


def create_new_topics(app: DeclaredApp, environment: Environment) -> None:
    """Create the topics that the app names and that do not exist. Raises FatalTaskError, UnreachableError."""
    if not app.new_topics(()):
        return
    new = app.new_topics(environment.cluster.topics())
    if new:
        sizes = {topic.name: topic.partitions for topic in new}
        existing = environment.cluster.describe([topic.like for topic in new if topic.like])
        sizes.update((name, info.partitions) for name, info in existing.items())
        specs = [
            TopicSpec(topic.name, sizes.get(topic.like, topic.partitions), topic.replicas, topic.config)
            for topic in new
        ]
        create_topics(specs, environment)
        environment.log.info("topics_created", topics=[topic.name for topic in new])
