"""Broken on purpose: permissions, secrets and logins."""

from __future__ import annotations

import pytest

import pipeline.config.client_properties
import pipeline.core.permissions
import pipeline.doctor.cluster
import pipeline.doctor.findings
import pipeline.doctor.permissions
import pipeline.kafka.clients
import pipeline.kafka.errors
import pipeline.ops.acls
import pipeline.runtime.dead_letter_topics
import pipeline.transactions.engine
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "an internal topic has no row in the permissions",
        pipeline.core.permissions,
        "lambda use: [workers_topic(use.app)],",
        "lambda use: [],",
        "tests/core/test_permissions.py",
    ),
    Broken(
        "a worker may delete records although nothing is truncated",
        pipeline.core.permissions,
        "(use) if use.truncates else ()",
        "(use)",
        "tests/core/test_permissions.py only_with_a_checkpoint_store",
    ),
    Broken(
        "the output of a stage that another stage reads is not written",
        pipeline.ops.acls._written,
        "any(name not in group.inputs for group in handlers)",
        "all(name not in group.inputs for group in handlers)",
        "tests/ops/test_acls.py",
    ),
    Broken(
        "an error of the client repeats a secret",
        pipeline.kafka.clients._without_secrets,
        'text = text.replace(str(value), "***")',
        "pass",
        "tests/kafka/test_denied.py secrets",
    ),
    Broken(
        "a missing permission is retried like an unreachable broker",
        pipeline.kafka.errors.request_failure,
        "    if code in _DENIED:\n        return denied(error, what, needs)\n    if code in _REFUSED:\n",
        "    if code in _REFUSED - _DENIED.keys():\n",
        "tests/kafka/test_denied.py named_and_not_retried",
    ),
    Broken(
        "a variable of a Kubernetes service becomes a property of the client",
        pipeline.config.client_properties.is_connection_variable,
        " and not names_a_service(variable)",
        "",
        "tests/test_config.py left_alone",
    ),
    Broken(
        "dead-letter topics that may not be described look missing",
        pipeline.runtime.dead_letter_topics.dead_letter_topics,
        "if wants_letters(group) or name in listed",
        "if name in listed",
        "tests/runtime/test_dead_letter_topics.py",
    ),
    Broken(
        "keys that CRC32 placed pass as right",
        pipeline.doctor.cluster._sample,
        "right += murmur2 == partition",
        "right += partition in {murmur2, zlib.crc32(key) % info.partitions}",
        "tests/doctor/test_cluster.py crc32",
    ),
    Broken(
        "what brokers do not tell counts as allowed",
        pipeline.doctor.permissions._compared,
        "return None if allowed is None else",
        "return () if allowed is None else",
        "tests/doctor/test_permissions.py do_not_tell",
    ),
    Broken(
        "a transactional id is not tried by a fence",
        pipeline.transactions.engine.try_fence,
        "engine.fence()",
        "pass",
        "tests/transactions/test_engine.py tried_fence",
    ),
    Broken(
        "the client of a tried fence is left open",
        pipeline.transactions.engine.try_fence,
        "with closing(TransactionEngine(transactional_id, producers, SystemClock(), no_commits_ms)) as engine:",
        "if engine := TransactionEngine(transactional_id, producers, SystemClock(), no_commits_ms):",
        "tests/transactions/test_engine.py tried_fence",
    ),
    Broken(
        "a check that fails ends the diagnosis",
        pipeline.doctor.findings.run_check,
        "except Exception as error:",
        "except KeyError as error:",
        "tests/doctor/test_machine.py without_traceback",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """A test that passes with the rule broken does not test it."""
    copied.assert_noticed(broken)
