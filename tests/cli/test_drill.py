"""`pipeline drill` without a Kafka: what it lists, refuses, restores and exports."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec

from pipeline.drills.intent import IntentFile, RemovePath, StartWorker
from pipeline.drills.reports import Reports
from pipeline.drills.workers import Process
from pipeline.ports import SystemClock
from tests.cli.conftest import Run
from tests.support.drills.reports import broken_report, held_report

ALLOWED = '[drills]\nallow = ["shop"]\n'


def test_all_drills_are_listed(pipeline: Run) -> None:
    """An operator chooses from the list."""
    shown = pipeline("drill", "list", code=0).stdout
    assert "kill-worker" in shown
    named = {each["name"] for each in json.loads(pipeline("drill", "list", "--json", code=0).stdout)}
    assert {"freeze-worker", "lose-disk", "replay-from-checkpoint", "shadow-replay"} <= named
    assert len(named) == 16


def test_an_app_must_be_named_in_the_settings(pipeline: Run, tmp_path: Path) -> None:
    """Drills are off by default, and the error shows how to allow them."""
    said = pipeline("drill", "plan", "kill-worker", code=1).stderr
    assert "drills.allow names no app" in said
    said = pipeline("drill", "plan", "kill-workers", code=1).stderr
    assert "there is no drill kill-workers; did you mean 'kill-worker'?" in said  # first: more is wrong
    (tmp_path / "pipeline.toml").write_text('[drills]\nallow = ["a", "b"]\n')
    assert "drills.allow names several apps: a, b" in pipeline("drill", "undo", code=1).stderr


def test_a_condition_is_checked_before_kafka_is_asked(pipeline: Run, tmp_path: Path) -> None:
    """A typing error must not cost a connection."""
    (tmp_path / "pipeline.toml").write_text(ALLOWED)
    said = pipeline("drill", "run", "kill-worker", "--abort-if", "lag", "--yes", code=1).stderr
    assert "the abort condition 'lag' cannot be understood" in said


def test_what_cannot_be_restored_has_its_exit_code(pipeline: Run, tmp_path: Path) -> None:
    """A script must not continue with an app that a drill has left broken."""
    (tmp_path / "pipeline.toml").write_text(ALLOWED)
    file = IntentFile(tmp_path / ".pipeline" / "drills", "shop")
    intent = file.new("kill-worker-1", "kill-worker", "shop", "kafka:9092", SystemClock())
    file.begin(intent)
    left = tmp_path / "left"
    left.touch()
    file.add(RemovePath(str(left)))
    file.add(StartWorker("a", str(tmp_path / "s" / "shop"), ["/bin/false"], "/", {}, str(tmp_path / "log")))
    assert "runs, as process" in pipeline("drill", "undo", code=1).stderr  # this process is the driller
    stored = json.loads(file.path.read_bytes())
    stored["driller"]["started"] = 1
    file.path.write_text(json.dumps(stored))
    assert Process(os.getpid(), 1).alive is False
    said = pipeline("drill", "undo", code=7).stderr
    assert "start worker a: worker a ended at its start" in said
    assert f"delete {left}: deleted" in said
    assert not left.exists()
    assert file.path.exists()
    stored["steps"] = stored["steps"][:1]
    file.path.write_text(json.dumps(stored))
    assert "everything is restored" in pipeline("drill", "undo", code=0).stderr
    assert "nothing to restore" in pipeline("drill", "undo", code=0).stderr


def test_an_abort_needs_a_drill_that_runs(pipeline: Run, tmp_path: Path) -> None:
    """The error leads to undo if the driller was killed."""
    (tmp_path / "pipeline.toml").write_text(ALLOWED)
    assert "no drill of app shop runs" in pipeline("drill", "abort", code=1).stderr
    file = IntentFile(tmp_path / ".pipeline" / "drills", "shop")
    intent = file.new("kill-worker-1", "kill-worker", "shop", "kafka:9092", SystemClock())
    file.begin(msgspec.structs.replace(intent, driller=Process(os.getpid(), 1)))
    said = pipeline("drill", "abort", code=1).stderr
    assert "the process of kill-worker-1 has ended" in said
    assert "pipeline drill undo --app shop" in said


def test_a_proxy_needs_a_kafka_without_tls(pipeline: Run, tmp_path: Path) -> None:
    """It could not read requests, and each worker behind it would fail."""
    (tmp_path / "pipeline.toml").write_text('[kafka]\n"security.protocol" = "SASL_SSL"\n')
    said = pipeline("drill", "proxy", code=1).stderr
    assert "the proxy cannot read encrypted requests" in said


def test_an_unknown_container_engine_is_refused(pipeline: Run, tmp_path: Path) -> None:
    """Without an engine, the drill would find no worker in a container."""
    (tmp_path / "pipeline.toml").write_text(ALLOWED)
    said = pipeline("drill", "plan", "kill-worker", "--containers", "lxc", code=1).stderr
    assert "there is no container engine 'lxc'" in said
    assert "--containers podman or --containers docker" in said


def test_reports_are_shown_compared_and_exported(pipeline: Run, tmp_path: Path) -> None:
    """The report is what remains of a drill."""
    reports = Reports(tmp_path / ".pipeline" / "drills")
    first, _ = reports.save(held_report())
    second, _ = reports.save(broken_report())
    assert "70.0 s" in pipeline("drill", "report", "list", code=0).stdout
    shown = pipeline("drill", "report", "show", code=0).stdout
    assert "kill-worker on app orders" in shown
    assert "DEVIATED" in shown
    assert "NOT each once; chain BROKEN" in shown
    assert "since the last run: verdict held -> deviated" in shown
    diff = pipeline("drill", "report", "diff", first.identity.id, second.identity.id, code=0).stdout
    assert "recovery_s" in diff
    pipeline("drill", "report", "export", first.identity.id, "--to", "page.html", code=0)
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert "Report" in json.loads(pipeline("drill", "report", "schema", code=0).stdout)["$defs"]


def test_a_page_that_cannot_be_written_is_an_error(pipeline: Run, tmp_path: Path) -> None:
    """A mistyped path must not end the command with a traceback."""
    Reports(tmp_path / ".pipeline" / "drills").save(held_report())
    said = pipeline("drill", "report", "export", "--to", "missing/page.html", code=1).stderr
    assert "cannot write missing/page.html: No such file or directory" in said
    assert "--to" in said


def test_a_suite_is_read_before_anything_is_done(pipeline: Run, tmp_path: Path) -> None:
    """A suite with a typing error must not run half."""
    (tmp_path / "pipeline.toml").write_text(ALLOWED)
    for text, problem in (
        ('[[drill]]\nname = "kill-worker"\nworkers = "a"\n', "is not a suite of drills"),
        ("drill = []\n", "has no [[drill]]"),
        ("nothing", "is not a suite of drills"),
        ('[[drill]]\nname = "kill-worker"\n[[drill]]\nname = "kill"\n', "there is no drill kill"),
        ('[[drill]]\nname = "kill-worker"\ntask = "main/x"\n', "'main/x' is not a task"),
        ('[[drill]]\nname = "kill-worker"\nabort_if = "lag"\n', "cannot be understood"),
    ):
        (tmp_path / "suite.toml").write_text(text)
        assert problem in pipeline("drill", "suite", "suite.toml", "--yes", code=1).stderr
    said = pipeline("drill", "suite", "missing.toml", "--yes", code=1).stderr
    assert "missing.toml cannot be read: No such file or directory" in said
    assert "give the path" in said
