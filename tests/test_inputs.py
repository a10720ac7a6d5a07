"""How tests send their inputs."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent
TRANSACTIONAL = {  # their producers keep the order because they are transactional
    "broker/test_local.py",
    "broker/test_stop_during_commits.py",
    "broker/test_upgrades.py",
    "checker/test_record_logs.py",
    "contracts/test_short_counts.py",  # a type only
    "kafka/test_denied.py",  # sends nothing
}


def test_no_input_is_sent_by_a_producer_that_may_change_the_order() -> None:
    """A retried first batch arrives after later ones: a test that expects running sums then fails, once in a while."""
    imports = {
        file.relative_to(TESTS).as_posix()
        for file in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and node.module == "confluent_kafka"
        and any(name.name == "Producer" for name in node.names)
    }
    assert imports == {*TRANSACTIONAL, "support/kafka/producing.py"}
