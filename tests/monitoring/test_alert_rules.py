"""What every alert must have, read from the rules without Prometheus."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from typer.main import get_command

from pipeline.cli.main import assemble
from pipeline.http.families import FAMILIES, Kind
from tests.support.monitoring.rules import Alert, alerts, expressions, recorded, rule_tests
from tests.support.pages import ROOT

each_alert = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)

# What an operator's own rules may say about an app.
EXPECTED = {"pipeline_expected_workers", "pipeline_expected_restore_seconds"}


@each_alert
def test_an_alert_has_a_severity_and_a_next_command(alert: Alert) -> None:
    """A person who is woken by it must know how urgent it is and what to type first."""
    assert re.fullmatch(r"Pipeline[A-Z][A-Za-z]+", alert.name)
    assert alert.severity in {"critical", "warning"}
    assert set(alert.annotations) == {"summary", "description", "runbook_url"}
    assert not alert.annotations["summary"].endswith(".")
    description = alert.annotations["description"]
    assert re.search(r"Next: .*`.+`", description, re.DOTALL), description


@each_alert
def test_the_commands_of_an_alert_exist(alert: Alert) -> None:
    """A command that is not there costs time when there is none."""
    for command in re.findall(r"`pipeline ([^`]+)`", alert.annotations["description"]):
        text = re.sub(r"\{\{.*?\}\}", "NAME", command)
        found = get_command(assemble())
        words = text.split()
        while hasattr(found, "commands"):
            found = found.commands[words.pop(0)]
        options = {option for parameter in found.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, command


@each_alert
def test_an_alert_names_a_runbook_that_names_the_alert(alert: Alert) -> None:
    """The page must tell a reader at once that it is the right one."""
    page = ROOT / "runbooks" / f"{alert.runbook}.md"
    assert alert.runbook
    assert page.exists()
    symptom = page.read_text(encoding="utf-8").split("## Symptom", 1)[1].split("\n## ", 1)[0]
    assert f"`{alert.name}`" in symptom


@each_alert
def test_an_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not(alert: Alert) -> None:
    """The second is just below the threshold: without it, a rule that always fires would pass."""
    counts = Counter(rule_tests())
    assert counts[alert.name, True] >= 1
    assert counts[alert.name, False] >= 1


def test_the_rules_read_only_metrics_that_exist() -> None:
    """A query of a name that was changed returns nothing, and so its alert never fires."""
    families = {family.name for family in FAMILIES}
    histograms = [family.name for family in FAMILIES if family.kind is Kind.HISTOGRAM]
    known = families | {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}
    named = set(re.findall(r"(?<![:\w])pipeline_\w+(?![:\w])", " ".join(expressions())))
    assert named <= known | EXPECTED
    assert named >= EXPECTED
    used = set(re.findall(r"\w+:pipeline_\w+:\w+", " ".join(expressions())))
    assert used == set(recorded())


def test_every_alert_is_documented_with_its_time() -> None:
    """An operator decides from the table which alerts wake a person."""
    page = (ROOT / "docs" / "how-to" / "monitor.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(Pipeline\w+)` \| (\w+) \| (.*?) \| (.*?) \| (.*?) \|", page, re.MULTILINE)
    documented = {(name, severity, waits) for name, severity, _, waits, _ in rows}
    assert documented == {(alert.name, alert.severity, alert.waits or "at once") for alert in alerts()}
