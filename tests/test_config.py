"""Settings: one order of precedence, checked once, with errors that name the place."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import (
    OWNED_PROPERTIES,
    HttpSettings,
    KafkaSettings,
    ProducerSettings,
    Settings,
    WorkerSettings,
    load_settings,
)
from pipeline.errors import ConfigError

FILE = """
[kafka]
"bootstrap.servers" = "file:9092"
"security.protocol" = "SASL_SSL"
"sasl.password" = "hunter2"

[worker]
commit_interval_ms = 300
worker_id = "from-file"
"""
COUNT = "it must be a whole number above 0"
TIME = "it must be a number above 0"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path, FILE)


def write(directory: Path, text: str) -> Path:
    path = directory / "pipeline.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(path: Path, **overrides: object) -> Settings:
    return load_settings(overrides, file=path, environ={})


def test_without_anything_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo and the tests run without a file."""
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ={}) == Settings()
    assert Settings().kafka.bootstrap_servers == "127.0.0.1:9092"


def test_flags_go_over_variables_over_the_file_over_defaults(file: Path) -> None:
    """The nearer to the command, the stronger."""
    environ = {"PIPELINE_COMMIT_INTERVAL_MS": "200", "PIPELINE_KAFKA": "environ:9092"}
    flags = {"commit_interval_ms": 100, "bootstrap_servers": "flag:9092", "worker_id": None}
    assert load_settings(file=file, environ={}).worker.commit_interval_ms == 300
    assert load_settings(file=file, environ=environ).worker.commit_interval_ms == 200
    assert load_settings(flags, file=file, environ=environ).worker.commit_interval_ms == 100
    servers = [
        load_settings(flags, file=file, environ=environ).kafka.bootstrap_servers,
        load_settings(file=file, environ=environ).kafka.bootstrap_servers,
        load_settings(file=file, environ={}).kafka.bootstrap_servers,
    ]
    assert servers == ["flag:9092", "environ:9092", "file:9092"]
    assert load_settings(flags, file=file, environ=environ).worker.worker_id == "from-file"


def test_a_file_in_the_working_directory_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pipeline.toml` beside the program needs no flag."""
    monkeypatch.chdir(file.parent)
    assert load_settings(environ={}).worker.worker_id == "from-file"


def test_properties_are_passed_to_the_client(file: Path) -> None:
    """TLS, SASL, OAuth: everything that the guarantees do not own."""
    assert load(file).kafka.properties == {"security.protocol": "SASL_SSL", "sasl.password": "hunter2"}


def test_dotted_names_need_no_quotes(tmp_path: Path) -> None:
    """TOML turns dotted names into sections; `bootstrap.servers = ...` must not be ignored."""
    path = write(
        tmp_path,
        '[kafka]\nbootstrap.servers = "file:9092"\nsecurity.protocol = "SSL"\nssl.ca.location = "/ca"\n'
        "log.connection.close = false\n",
    )
    assert load(path).kafka == KafkaSettings(
        "file:9092", {"security.protocol": "SSL", "ssl.ca.location": "/ca", "log.connection.close": "false"}
    )


def test_values_from_variables_get_their_type(tmp_path: Path) -> None:
    """The environment holds text only."""
    environ = {
        "PIPELINE_STATE_DIR": "/var/lib/state",
        "PIPELINE_CACHE_BYTES": "7",
        "PIPELINE_MIRROR_INTERVAL_S": "0.5",
        "PIPELINE_START": "latest",
    }
    worker = load_settings(file=write(tmp_path, ""), environ=environ).worker
    assert (worker.state_dir, worker.cache_bytes) == (Path("/var/lib/state"), 7)
    assert (worker.mirror_interval_s, worker.start) == (0.5, "latest")


def test_a_variable_with_several_names_separates_them_by_commas(tmp_path: Path) -> None:
    """A container has no settings file, and must be able to say which groups it runs."""
    environ = {"PIPELINE_GROUPS": "main, report,", "PIPELINE_DRILLS_ALLOW": "shop"}
    (tmp_path / "pipeline.toml").write_text('[worker]\ngroups = ["main"]\n')
    found = load_settings(file=tmp_path / "pipeline.toml", environ=environ)
    assert found.worker.groups == ("main", "report")
    assert found.drills.allow == ("shop",)
    assert load_settings(file=tmp_path / "pipeline.toml", environ={}).worker.groups == ("main",)
    assert load_settings(file=tmp_path / "pipeline.toml", environ={"PIPELINE_GROUPS": ""}).worker.groups == ()


def test_secrets_are_not_shown(file: Path) -> None:
    """Settings are logged and printed by tracebacks."""
    settings = load(file)
    assert settings.kafka.properties["sasl.password"] == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.kafka)


@pytest.mark.parametrize("name", sorted(OWNED_PROPERTIES))
def test_a_property_that_the_guarantees_rest_on_is_refused(tmp_path: Path, name: str) -> None:
    """By name and with the reason: losing exactly-once by a setting must not be possible."""
    for spelling in (f'"{name}"', name):
        path = write(tmp_path, f"[kafka]\n{spelling} = 1\n")
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert f"{path}: [kafka] {name} cannot be set: " in caught.value.message
        assert OWNED_PROPERTIES[name] in caught.value.message
        assert caught.value.hint == "remove it"


@pytest.mark.parametrize(
    "alias", ["request.required.acks", "delivery.timeout.ms", "message.send.max.retries", "retries"]
)
def test_other_spellings_of_an_owned_property_are_refused(tmp_path: Path, alias: str) -> None:
    """The client knows some properties by two names."""
    with pytest.raises(ConfigError, match=re.escape(f"[kafka] {alias} cannot be set")):
        load(write(tmp_path, f'[kafka]\n"{alias}" = 1\n'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[worker\n", "is not valid TOML"),
        ("[workers]\nx = 1\n", "unknown section [workers]; did you mean 'worker'?"),
        ("worker = 5\n", "worker must be a section, [worker]"),
        ("[worker]\ncommit_intervall_ms = 5\n", "'commit_intervall_ms'; did you mean 'commit_interval_ms'?"),
        ('[worker]\ncommit_interval_ms = "soon"\n', f"worker.commit_interval_ms is 'soon'; {COUNT}"),
        ("[worker]\ncommit_interval_ms = true\n", f"worker.commit_interval_ms is True; {COUNT}"),
        ("[worker]\ncommit_interval_ms = 0\n", f"worker.commit_interval_ms is 0; {COUNT}"),
        ("[worker]\nmax_poll_records = -1\n", f"worker.max_poll_records is -1; {COUNT}"),
        ("[worker]\nmirror_interval_s = 0\n", f"worker.mirror_interval_s is 0; {TIME}"),
        ("[worker]\ncheck_interval_s = nan\n", f"worker.check_interval_s is nan; {TIME}"),
        ("[worker]\nstop_timeout_s = -1\n", f"worker.stop_timeout_s is -1; {TIME}"),
        ("[worker]\npoll_timeout_ms = -1\n", "poll_timeout_ms is -1; it must be a whole number, 0 or more"),
        ("[worker]\nreplication_factor = -1\n", "replication_factor is -1; it must be a whole number, 0 or"),
        ('[worker]\nstart = "middle"\n', "worker.start is 'middle'; it must be 'earliest' or 'latest'"),
        (
            "[worker]\ncommit_interval_ms = 20000\n",
            "worker.commit_interval_ms must be below worker.transaction_timeout_ms",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    """At start, with section and name; never as a worker that behaves oddly."""
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert message in caught.value.message
    assert caught.value.hint, "the next step"


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    """A mistyped --config must not mean the defaults."""
    with pytest.raises(ConfigError, match=r"cannot read the settings file .*absent\.toml"):
        load(tmp_path / "absent.toml")


def test_an_unknown_setting_lists_the_known_ones(tmp_path: Path) -> None:
    """The correct spelling is in the answer."""
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, "[worker]\ninterval = 5\n"))
    assert "commit_interval_ms" in (caught.value.hint or "")


def test_relations_are_checked_however_settings_are_built() -> None:
    """`app.run` and tests build them without a file."""
    with pytest.raises(ConfigError, match="must be below"):
        WorkerSettings(commit_interval_ms=500, transaction_timeout_ms=500)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (WorkerSettings, {"weight": 0}, f"worker.weight is 0; {COUNT}"),
        (WorkerSettings, {"weight": 1.5}, f"worker.weight is 1.5; {COUNT}"),
        (WorkerSettings, {"start": "middle"}, "worker.start is 'middle'; it must be 'earliest' or 'latest'"),
        (ProducerSettings, {"max_bytes": "1"}, f"producer.max_bytes is '1'; {COUNT}, without quotes"),
        (KafkaSettings, {"startup_wait_s": -1}, "kafka.startup_wait_s is -1; it must be a number, 0 or more"),
    ],
)
def test_settings_of_a_program_are_checked(
    kind: Callable[..., object], values: dict[str, object], message: str
) -> None:
    """`app.run` takes settings that no file and no variable gave, and the type checker may not have run."""
    with pytest.raises(ConfigError) as caught:
        kind(**values)
    assert caught.value.message == message


def test_settings_cannot_be_changed() -> None:
    """Components keep their part; a later change would reach some of them only, unchecked."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().worker.weight = 0  # type: ignore[misc]


def test_whitespace_around_the_number_of_a_variable_is_ignored(tmp_path: Path) -> None:
    """A variable that comes from a file often ends with a line break."""
    environ = {"PIPELINE_WEIGHT": " 2\n", "PIPELINE_JOIN_DELAY_S": "0.5\n"}
    worker = load_settings(file=write(tmp_path, ""), environ=environ).worker
    assert (worker.weight, worker.join_delay_s) == (2, 0.5)


def test_a_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TOML has no shell that would do it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(write(tmp_path, '[worker]\nstate_dir = "~/state"\n')).worker.state_dir == tmp_path / "state"


def test_a_wrong_setting_is_told_with_the_place_that_set_it(tmp_path: Path) -> None:
    """A file, a variable and a flag may each set it, and the file may be any."""
    path = tmp_path / "p6.toml"
    path.write_text("[worker]\nstart = 'first'\n")
    with pytest.raises(ConfigError, match=r"worker\.start is 'first'") as caught:
        load(path)
    assert caught.value.hint == f"start is set by [worker] in {path}"
    path.write_text("[worker]\ncommit_interval_ms = 30000\n")
    with pytest.raises(ConfigError, match="must be below") as caught:
        load_settings(file=path, environ={"PIPELINE_TRANSACTION_TIMEOUT_MS": "1000"})
    assert caught.value.hint == (
        f"commit_interval_ms is set by [worker] in {path};"
        " transaction_timeout_ms is set by PIPELINE_TRANSACTION_TIMEOUT_MS"
    )
    with pytest.raises(ConfigError, match=COUNT) as caught:
        load_settings(file=path, environ={"PIPELINE_CACHE_BYTES": "many"})
    assert caught.value.hint == "cache_bytes is set by PIPELINE_CACHE_BYTES"
    with pytest.raises(ConfigError, match=COUNT) as caught:
        load(path, commit_interval_ms=0)
    assert caught.value.hint == "commit_interval_ms is set by --commit-interval-ms"


def test_a_replaced_setting_is_refused_with_the_new_one(tmp_path: Path) -> None:
    """It would otherwise be ignored: its value counted something else."""
    path = tmp_path / "pipeline.toml"
    path.write_text("[worker]\ncache_entries = 5000\n")
    with pytest.raises(ConfigError, match=r"\[worker\] has cache_entries, which was replaced") as caught:
        load(path)
    assert "set cache_bytes" in str(caught.value.hint)
    path.write_text("")
    with pytest.raises(ConfigError, match="PIPELINE_CACHE_ENTRIES was replaced") as caught:
        load_settings(file=path, environ={"PIPELINE_CACHE_ENTRIES": "5000"})
    assert "set cache_bytes" in str(caught.value.hint)


def test_the_limit_of_a_journal_leaves_room_for_a_checkpoint() -> None:
    """A task whose intake stops before its checkpoint is due would stop for every checkpoint."""
    with pytest.raises(ConfigError, match="checkpoint_journal_limit_bytes must be above"):
        WorkerSettings(checkpoint_journal_bytes=1_000, checkpoint_journal_limit_bytes=1_000)
    WorkerSettings(checkpoint_journal_bytes=1_000, checkpoint_journal_limit_bytes=0)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("PIPELINE_COMIT_INTERVAL_MS", "; did you mean 'PIPELINE_COMMIT_INTERVAL_MS'?"),
        ("PIPELINE_KAFKA_STARTUP_WAIT", "; did you mean 'PIPELINE_KAFKA_STARTUP_WAIT_S'?"),
        ("PIPELINE_PRODUCER_MAX_BYTE", "; did you mean 'PIPELINE_PRODUCER_MAX_BYTES'?"),
        ("PIPELINE_X", ""),
    ],
)
def test_a_misspelt_variable_ends_the_start(tmp_path: Path, variable: str, message: str) -> None:
    """The default would stay in force without a word."""
    with pytest.raises(ConfigError, match=re.escape(f"there is no setting '{variable}'{message}")) as caught:
        load_settings(file=write(tmp_path, ""), environ={variable: "5"})
    assert f"unset {variable}" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "variable",
    [
        *("PIPELINE_APP", "PIPELINE_CACHE_DIR", "PIPELINE_IMAGE", "CI_PIPELINE_ID"),
        # of a Kubernetes service with the name `pipeline`, and of one with the name `pipeline-kafka`
        *("PIPELINE_PORT", "PIPELINE_SERVICE_HOST", "PIPELINE_SERVICE_PORT_HTTP", "PIPELINE_PORT_80_TCP"),
        *("PIPELINE_KAFKA_SSL_SERVICE_HOST", "PIPELINE_KAFKA_SSL_PORT_9093_TCP"),
        *("PIPELINE_KAFKA_PORT_9092_TCP_ADDR", "PIPELINE_KAFKA_SERVICE_PORT", "PIPELINE_KAFKA_PORT"),
    ],
)
def test_variables_that_other_programs_read_are_left_alone(tmp_path: Path, variable: str) -> None:
    """A pod has variables for each service beside it, and a shell has those of other commands."""
    assert load_settings(file=write(tmp_path, ""), environ={variable: "tcp://10.0.0.1:80"}) == Settings()


def test_a_quoted_number_is_refused(tmp_path: Path) -> None:
    """It is a text, and the documents say that a value of the wrong kind ends the start."""
    for section, name, accepted in (
        ("worker", "commit_interval_ms", "a whole number above 0"),
        ("producer", "linger_ms", "a whole number, 0 or more"),
        ("kafka", "startup_wait_s", "a number, 0 or more"),
    ):
        path = write(tmp_path, f'[{section}]\n{name} = "20"\n')
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.message == f"{section}.{name} is '20'; it must be {accepted}, without quotes"
        assert caught.value.hint == f"{name} is set by [{section}] in {path}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("commit_interval_ms = 0.5", "worker.commit_interval_ms is 0.5; it must be a whole number"),
        ("worker_id = 7", "worker.worker_id is 7; it must be a text"),
        ("state_dir = 7", "worker.state_dir is 7; it must be a text"),
        ("join_delay_s = nan", "worker.join_delay_s is nan; it must be a number, 0 or more"),
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """A guess at what was meant would be right most of the time."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(write(tmp_path, f"[worker]\n{text}\n"))


def test_how_long_a_start_waits_is_set_beside_the_servers(tmp_path: Path) -> None:
    """It is ours, and not a property of the Kafka client."""
    path = write(tmp_path, '[kafka]\nbootstrap.servers = "file:9092"\nstartup_wait_s = 90\n')
    assert load(path).kafka == KafkaSettings("file:9092", {}, 90.0)
    environ = {"PIPELINE_KAFKA_STARTUP_WAIT_S": "2.5"}
    assert load_settings(file=path, environ=environ).kafka.startup_wait_s == 2.5
    for wrong in ("soon", "-1", "nan"):
        with pytest.raises(ConfigError, match=r"kafka\.startup_wait_s") as caught:
            load_settings(file=path, environ={"PIPELINE_KAFKA_STARTUP_WAIT_S": wrong})
        assert caught.value.hint == "startup_wait_s is set by PIPELINE_KAFKA_STARTUP_WAIT_S"


def test_the_http_port_is_set_by_flags_variables_and_the_file(tmp_path: Path) -> None:
    """The token has no flag: other users can read the arguments of a process."""
    file = write(tmp_path, '[http]\nhost = "::1"\nport = 1\ntoken = "secret"\n')
    environ = {"PIPELINE_HTTP_PORT": "2", "PIPELINE_HTTP_HOST": "0.0.0.0"}  # noqa: S104
    assert load_settings(file=file, environ={}).http == HttpSettings("::1", 1, "secret")
    assert load_settings(file=file, environ=environ).http == HttpSettings("0.0.0.0", 2, "secret")  # noqa: S104
    flags = {"http_port": 3, "http_host": "127.0.0.2"}
    assert load_settings(flags, file=file, environ=environ).http == HttpSettings("127.0.0.2", 3, "secret")
    assert "secret" not in repr(load_settings(file=file, environ={}))


@pytest.mark.parametrize("port", [-1, 65_536, "80"])
def test_a_wrong_http_port_is_refused(tmp_path: Path, port: object) -> None:
    """The error names the setting and its place."""
    file = write(tmp_path, f"[http]\nport = {port!r}\n")
    with pytest.raises(ConfigError, match=r"http\.port is .* it must be a port up to 65535, or 0") as raised:
        load(file)
    assert "port is set by [http]" in str(raised.value)
    with pytest.raises(ConfigError, match=r"http\.host is empty"):
        HttpSettings(host="")


def test_the_variable_of_a_kubernetes_service_is_not_a_port(tmp_path: Path) -> None:
    """Kubernetes sets it in all pods beside a service named pipeline-http."""
    environ = {"PIPELINE_HTTP_PORT": "tcp://10.0.0.1:80", "PIPELINE_HTTP_PORT_80_TCP_ADDR": "10.0.0.1"}
    file = write(tmp_path, "[http]\nport = 8080\n")
    assert load_settings(file=file, environ=environ).http.port == 8080
    with pytest.raises(ConfigError, match=r"http\.port"):
        load_settings(file=file, environ={"PIPELINE_HTTP_PORT": "10.0.0.1:80"})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("10.0.0.1", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_loopback_addresses_are_known(host: str, loopback: bool) -> None:
    """Elsewhere, the status needs a token."""
    assert HttpSettings(host=host).loopback is loopback


def test_properties_of_connections_can_be_variables(tmp_path: Path) -> None:
    """So that a password comes from a secret of the platform, and not from a file in an image."""
    path = write(tmp_path, '[kafka]\nsasl.username = "file"\nsasl.password = "file"\nclient.rack = "a"\n')
    environ = {
        "PIPELINE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "PIPELINE_KAFKA_SASL_PASSWORD": "from-a-secret",
        "PIPELINE_KAFKA_SSL_CA_LOCATION": "/ca.pem",
    }
    kafka = load_settings(file=path, environ=environ).kafka
    assert kafka.properties == {
        "sasl.username": "file",
        "sasl.password": "from-a-secret",
        "client.rack": "a",
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": "/ca.pem",
    }
    assert "from-a-secret" not in repr(kafka)


def test_other_properties_are_not_taken_from_variables(tmp_path: Path) -> None:
    """A misspelled variable must remain an error; only names of connections cannot be told from it."""
    with pytest.raises(ConfigError, match="there is no setting 'PIPELINE_KAFKA_ACKS'"):
        load_settings(file=write(tmp_path, ""), environ={"PIPELINE_KAFKA_ACKS": "1"})
