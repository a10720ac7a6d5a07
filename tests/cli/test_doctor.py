"""`pipeline doctor` as a command: what it prints without a Kafka, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.cli.conftest import Run

NOWHERE = "127.0.0.1:1"


def test_settings_that_cannot_be_read_are_a_problem(pipeline: Run, tmp_path: Path) -> None:
    """The command that is to find mistakes must not stumble over the first one."""
    (tmp_path / "pipeline.toml").write_text("[worker]\nstate_dri = 'x'\n")
    done = pipeline("doctor", code=1)
    assert done.stdout.startswith("problem      settings: pipeline.toml: [worker] has no setting 'state_dri'")
    assert done.stdout.endswith("1 problem, 0 warnings\n")
    assert done.stderr == ""


def test_without_a_broker_the_other_checks_are_made(pipeline: Run, tmp_path: Path) -> None:
    """A full disk must be found although Kafka is down, too."""
    (tmp_path / "shop.py").write_text("from pipeline import App\napp = App('shop')\n")
    store = tmp_path / "checkpoints"
    store.mkdir()
    done = pipeline(
        "doctor",
        "shop:app",
        "--kafka",
        NOWHERE,
        "--json",
        code=1,
        PIPELINE_CHECKPOINT_STORE=f"file://{store}",
    )
    document = msgspec.json.decode(done.stdout)
    assert document["ok"] is False
    levels = {each["check"]: each["level"] for each in document["checks"]}
    assert levels == {
        "settings": "ok",
        "disk": levels["disk"],
        "broker": "problem",
        "topics": "not checked",
        "tasks": "not checked",
        "permissions": "not checked",
        "partitioner": "not checked",
        "clock": "not checked",
        "open files": "not checked",
        "checkpoint store": "ok",
    }
    assert levels["disk"] in {"ok", "warning"}  # the test's directory may be in memory


def test_an_app_that_cannot_be_imported_is_a_problem(pipeline: Run, tmp_path: Path) -> None:
    """No traceback, and the machine is checked all the same."""
    done = pipeline("doctor", "nothing:app", "--kafka", NOWHERE, code=1)
    assert "problem      app: module nothing does not exist" in done.stdout
    assert "broker: no Kafka at 127.0.0.1:1 (connection refused)" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_client_settings_that_are_refused_are_a_problem_without_secrets(
    pipeline: Run, tmp_path: Path
) -> None:
    """The output of this command is pasted into tickets."""
    (tmp_path / "pipeline.toml").write_text(
        '[kafka]\nsecurity.protocol = "SASL_SSL"\nsasl.mechanism = "SCRAM-SHA-512"\nsasl.username = "shop"\n'
        'sasl.password = "correct-horse"\nssl.key.pem = "correct-horse"\n'
    )
    done = pipeline("doctor", "--kafka", NOWHERE, code=1)
    assert "broker: the Kafka client refuses its settings" in done.stdout
    assert "correct-horse" not in done.stdout + done.stderr
