"""The alert rules of deploy/prometheus/alerts.yml, read without Prometheus."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from tests.support.pages import ROOT

__all__ = ["ALERTS", "RULE_TESTS", "Alert", "alerts", "expressions", "recorded", "rule_tests"]

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
RULE_TESTS = ROOT / "tests" / "monitoring" / "alerts.yml"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `waits`: for how long its condition must hold; empty if it fires at once."""

    name: str
    expr: str
    waits: str
    severity: str
    annotations: Mapping[str, str]

    @property
    def runbook(self) -> str:
        """The name of its runbook; empty if its URL has another form."""
        found = re.fullmatch(
            r"\{\{ \$externalLabels\.pipeline_docs \}\}runbooks/([a-z-]+)/", self.annotations["runbook_url"]
        )
        return found[1] if found else ""


def alerts() -> list[Alert]:
    """All alerts."""
    return [
        Alert(
            rule["alert"],
            rule["expr"],
            rule.get("for", ""),
            rule["labels"]["severity"],
            rule["annotations"],
        )
        for rule in _rules()
        if "alert" in rule
    ]


def recorded() -> list[str]:
    """The names of the recorded series."""
    return [rule["record"] for rule in _rules() if "record" in rule]


def expressions() -> list[str]:
    """The expressions of all rules."""
    return [rule["expr"] for rule in _rules()]


def rule_tests() -> list[tuple[str, bool]]:
    """(alert, whether it is expected to fire) for each test of a rule."""
    found = _read(RULE_TESTS)
    return [
        (case["alertname"], bool(case["exp_alerts"]))
        for group in found["tests"]
        for case in group["alert_rule_test"]
    ]


def _rules() -> list[Any]:
    return [rule for group in _read(ALERTS)["groups"] for rule in group["rules"]]


def _read(path: Any) -> Any:
    return YAML(typ="safe").load(path)
