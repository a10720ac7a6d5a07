"""A missing permission and a refused login, as the Kafka client reports them: which error, and what it says."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import KafkaError, Producer

from pipeline.config import KafkaSettings
from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, PipelineError
from pipeline.kafka.clients import admin, open_client
from pipeline.kafka.errors import (
    delivery_failure,
    is_login,
    login_failure,
    partition_failure,
    request_failure,
    transaction_failure,
)
from pipeline.kafka.source import _mirrored
from pipeline.runtime.reactions import Reaction, Reactions

DENIED = [
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
]
TASK = TaskId("app", "main", 0)


def failures(code: int) -> list[PipelineError | None]:
    """The exceptions of all places that translate an error."""
    error = KafkaError(code)
    needs = "Write on topic orders"
    return [
        request_failure(error, "it", needs),
        transaction_failure(error, "it", needs=needs),
        partition_failure(error, "it", 7, needs),
        delivery_failure(error, "it"),
    ]


@pytest.mark.parametrize("code", DENIED)
def test_a_missing_permission_is_named_and_not_retried(code: int) -> None:
    """A retry would never succeed, and would fill the log of the brokers' authorizer."""
    for failure in failures(code):
        assert isinstance(failure, ConfigError)
        assert "Kafka denies this: it needs Write on " in failure.message
        assert "with --role ROLE all that a command needs" in (failure.hint or "")
        assert Reactions().to(failure, TASK, live=True, stopping=False) is Reaction.FAIL


def test_an_unnamed_permission_names_at_least_its_resource() -> None:
    """Better than the bare code of the broker."""
    failure = request_failure(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), "it")
    assert "it needs a permission on the consumer group" in failure.message


def test_positions_that_cannot_be_written_name_their_group(caplog: pytest.LogCaptureFixture) -> None:
    """The worker continues without lag tools, so the log is the only place that tells what to grant."""
    with caplog.at_level(logging.WARNING, "pipeline.kafka"):
        _mirrored("shop.main", KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), [])
    assert "it needs Read on consumer group shop.main" in caplog.text


@pytest.mark.parametrize("code", [KafkaError._AUTHENTICATION, KafkaError._SSL])
def test_a_refused_login_names_the_settings(code: int) -> None:
    """It looks like an unreachable broker to the client."""
    error = KafkaError(code)
    assert is_login(error)
    assert "sasl.*" in (login_failure(error, "it").hint or "")


def test_an_error_of_the_client_has_no_secrets() -> None:
    """The client repeats the values of properties in some of its errors, here of a mistyped one."""
    settings = KafkaSettings("127.0.0.1:1", {"sasl.password": "s3cret", "security.protocol": "s3cret"})
    with pytest.raises(ConfigError) as caught:
        open_client(Producer, admin(settings))
    assert "s3cret" not in str(caught.value)
    assert "***" in str(caught.value)
    assert caught.value.__cause__ is None
