"""Settings of a Faust application as those of a worker, where ours are not set."""

from __future__ import annotations

import ssl
from itertools import count as numbers
from pathlib import Path
from typing import Any

import faust
import pytest
from typer.testing import CliRunner

from pipeline.cli.main import assemble
from pipeline.config import Settings
from pipeline.config.loading import load_settings_over
from pipeline.errors import ConfigError
from pipeline.faust.connection import fallback_of

_numbers = numbers()
PASSWORD = "s3cret"  # noqa: S105


def loaded(app: Any, tmp_path: Path, toml: str = "", **environ: str) -> Settings:
    """The settings of a worker of the app, with a settings file and variables."""
    file = tmp_path / "pipeline.toml"
    file.write_text(toml)
    return load_settings_over(fallback_of(app), file=file, environ=environ)


def new_app(**options: Any) -> Any:
    return faust.App(f"connection-{next(_numbers)}", **options)


def with_page(**options: Any) -> Any:
    app = new_app(**options)

    @app.page("/")
    async def index(view: Any, _request: Any) -> Any:
        return view.text("")

    return app


def test_the_brokers_of_the_app_are_used_unless_ours_are_set(tmp_path: Path) -> None:
    """An app that runs against its own cluster must not connect to another one."""
    app = new_app(broker="kafka://one:9192;two")
    assert loaded(app, tmp_path).kafka.bootstrap_servers == "one:9192,two:9092"
    chosen = loaded(app, tmp_path, PIPELINE_KAFKA="127.0.0.1:9092")
    assert chosen.kafka.bootstrap_servers == "127.0.0.1:9092"
    assert loaded(new_app(), tmp_path).kafka.bootstrap_servers == "127.0.0.1:9092"


def test_a_broker_that_is_not_kafka_is_refused(tmp_path: Path) -> None:
    """It would be taken for the default broker."""
    with pytest.raises(ConfigError, match="aerospike://here"):
        loaded(new_app(broker="aerospike://here"), tmp_path)


def test_a_login_is_used_unless_ours_is_set(tmp_path: Path) -> None:
    """A mixture of both could send a password to the wrong place."""
    login = faust.SASLCredentials(username="ann", password=PASSWORD, mechanism="SCRAM-SHA-256")
    app = new_app(broker_credentials=login)
    assert loaded(app, tmp_path).kafka.properties == {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "ann",
        "sasl.password": PASSWORD,
    }
    own = '[kafka]\n"security.protocol" = "SSL"\n'
    assert loaded(app, tmp_path, own).kafka.properties == {"security.protocol": "SSL"}


def test_the_checks_of_an_ssl_context_are_kept(tmp_path: Path) -> None:
    """A connection must not check less than before, and not more."""
    context = ssl.create_default_context()
    found = loaded(new_app(broker_credentials=faust.SSLCredentials(context)), tmp_path).kafka.properties
    assert found["security.protocol"] == "SSL"
    assert found.get("ssl.ca.pem", "").count("BEGIN CERTIFICATE") == len(context.get_ca_certs())
    assert "enable.ssl.certificate.verification" not in found
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    login = faust.SASLCredentials(username="ann", password=PASSWORD, ssl_context=context)
    found = loaded(new_app(broker_credentials=login), tmp_path).kafka.properties
    assert found["security.protocol"] == "SASL_SSL"
    assert found["enable.ssl.certificate.verification"] == "false"
    assert found["ssl.endpoint.identification.algorithm"] == "none"


def test_other_credentials_are_refused_unless_ours_are_set(tmp_path: Path) -> None:
    """A worker that connects without them would be refused by Kafka for an unknown reason."""
    app = new_app(broker_credentials=faust.GSSAPICredentials())
    with pytest.raises(ConfigError, match="GSSAPICredentials"):
        loaded(app, tmp_path)
    own = '[kafka]\n"security.protocol" = "SSL"\n'
    assert loaded(app, tmp_path, own).kafka.properties == {"security.protocol": "SSL"}


def test_the_port_of_an_app_with_pages_is_used_unless_ours_is_set(tmp_path: Path) -> None:
    """Pages without a port would be dropped silently."""
    app = with_page(web_port=6070)
    assert loaded(app, tmp_path).http.port == 6070
    assert loaded(app, tmp_path).http.host == "127.0.0.1"
    assert loaded(app, tmp_path, PIPELINE_HTTP_PORT="8080").http.port == 8080
    assert loaded(with_page(web_bind="127.0.0.9"), tmp_path).http.host == "127.0.0.9"
    assert loaded(new_app(web_port=6070), tmp_path).http.port == 0


def test_the_move_connects_to_the_brokers_of_the_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positions that it takes over are in the cluster of the application, and in no other one."""
    (tmp_path / "elsewhere.py").write_text(
        "import faust\n"
        "app = faust.App('elsewhere', broker='kafka://127.0.0.1:1')\n"
        "@app.agent(app.topic('orders'))\n"
        "async def read(stream):\n"
        "    async for _ in stream:\n"
        "        pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("PIPELINE_KAFKA", raising=False)
    monkeypatch.setenv("PIPELINE_KAFKA_STARTUP_WAIT_S", "0")
    # It would write the log of all later tests to the standard error of this one.
    monkeypatch.setattr("pipeline.cli.faust_migrate.configure_logs", lambda _level: None)
    done = CliRunner().invoke(assemble("faust"), ["faust", "migrate", "elsewhere:app", "--dry-run"])
    assert done.exit_code != 0
    assert "127.0.0.1:1 " in f"{done.output}{done.exception}"
