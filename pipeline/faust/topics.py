"""Faust's topics: `typed_topic`, with Faust's codecs, for tests; and `spec_of`, how to create one."""

from __future__ import annotations

from typing import Any

from pipeline.api.app import NewTopic
from pipeline.api.codecs import ValueCodec
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.keys import KeyCodec
from pipeline.faust.serializers import decoder_of, encoder_of

__all__ = ["spec_of", "typed_topic"]


def typed_topic(app: Any, topic: Any, name: str) -> DeclaredTopic[Any, Any]:
    """A topic under the same name whose codecs are those of a Faust topic. The handlers' own topic has bytes."""
    schema, registry, decoder = topic.schema, app.serializers, decoder_of(app, topic)
    encode_key = encoder_of(schema.key_type, schema.key_serializer, registry.key_serializer)
    encode = encoder_of(schema.value_type, schema.value_serializer, registry.value_serializer)
    keys: KeyCodec[Any] = KeyCodec(
        lambda key: None if key is None else encode_key(key), decoder.key, _no_prefix, True, "faust"
    )
    values: ValueCodec[Any] = ValueCodec(
        lambda value: (encode(value), value), encode, decoder.value, True, False, "faust"
    )
    return DeclaredTopic(name, keys, values)


def _no_prefix(key: Any) -> bytes:
    raise TypeError(f"keys of topics have no prefixes: {key!r}")


def spec_of(name: str, topic: Any, conf: Any) -> NewTopic:
    """The topic as Faust would create it."""
    config = {key: str(value) for key, value in (topic.config or {}).items()}
    policies = [
        policy for policy, chosen in (("compact", topic.compacting), ("delete", topic.deleting)) if chosen
    ]
    if policies:
        config.setdefault("cleanup.policy", ",".join(policies))
    if topic.retention:
        config.setdefault("retention.ms", str(int(_seconds(topic.retention) * 1000)))
    return NewTopic(
        name,
        topic.partitions or conf.topic_partitions,
        topic.replicas or conf.topic_replication_factor or 0,
        config,
    )


def _seconds(given: Any) -> float:
    return float(given.total_seconds() if hasattr(given, "total_seconds") else given)
