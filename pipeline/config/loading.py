"""Reads the settings: from options, `PIPELINE_*` variables, `pipeline.toml` and defaults, in this order.

The section [otel] also reads the standard variables of OpenTelemetry, which come after those of ours.

`load_settings` is called once, at the edge of a process. Its errors name the place of a wrong value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config.client_properties import (
    CONNECTION_PROPERTIES,
    KAFKA_VARIABLE,
    connection_properties,
    is_connection_variable,
    refuse_owned,
)
from pipeline.config.settings import (
    DEFAULT_BOOTSTRAP_SERVERS,
    NO_SIGNAL,
    Amount,
    DrillSettings,
    HttpSettings,
    KafkaSettings,
    OtelSettings,
    ProducerSettings,
    Settings,
    WorkerSettings,
)
from pipeline.config.sources import (
    PREFIX,
    REPLACED,
    checked,
    is_service_link,
    kinds_of,
    parsed,
    properties_in,
    read_toml,
    refuse_unknown_variables,
    section_of,
)
from pipeline.core.suggestions import did_you_mean
from pipeline.errors import ConfigError

__all__ = ["Fallback", "load_settings", "load_settings_over"]

SettingsT = TypeVar("SettingsT", WorkerSettings, ProducerSettings, HttpSettings, OtelSettings, DrillSettings)

# The sections of settings of ours: their class, and what their environment variables begin with.
_SECTIONS: Mapping[
    str, tuple[type[WorkerSettings | ProducerSettings | HttpSettings | OtelSettings | DrillSettings], str]
] = {
    "worker": (WorkerSettings, PREFIX),
    "producer": (ProducerSettings, f"{PREFIX}PRODUCER_"),
    "http": (HttpSettings, f"{PREFIX}HTTP_"),
    "otel": (OtelSettings, f"{PREFIX}OTEL_"),
    "drills": (DrillSettings, f"{PREFIX}DRILLS_"),
}
_HTTP_FLAGS = {"http_host": "host", "http_port": "port"}
_STARTUP_WAIT = "startup_wait_s"
# The variables of OpenTelemetry that are settings of ours, too. A variable PIPELINE_OTEL_* overrides them.
_OTLP = "OTEL_EXPORTER_OTLP_"
_OTLP_ENDPOINTS = ("endpoint", "metrics_endpoint", "traces_endpoint")
_SDK_DISABLED = "OTEL_SDK_DISABLED"
_PROTOCOL = "http/protobuf"
_KAFKA_WAIT = f"{KAFKA_VARIABLE}_{_STARTUP_WAIT.upper()}"


@dataclass(frozen=True, slots=True)
class Fallback:
    """What an app of another library says about settings of ours. Each other source overrides it.

    `properties`: of the Kafka client's connections. They are used only if no other source sets one of these.
    `unusable`: why the connections that the app describes cannot be made. 0 and '' mean that the app does not say it.
    """

    bootstrap_servers: str = ""
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    unusable: str = ""
    http_host: str = ""
    http_port: int = 0


def load_settings(
    overrides: Mapping[str, object] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings: `overrides` first, then variables `PIPELINE_*`, then `pipeline.toml`, then the defaults.

    Args:
        overrides: Values of worker settings by name, `bootstrap_servers`, `http_host` and `http_port`. None means not
            set.
        file: The settings file. Default: `pipeline.toml` in the working directory, if it exists.
        environ: The environment variables. Default: those of the process.

    Returns:
        The settings.

    Raises:
        ConfigError: A setting is unknown or its value is not allowed, or `file` cannot be read.

    Example:
        ```python
        app.run(load_settings({"worker_id": "orders-1"}))
        ```
    """
    return load_settings_over(Fallback(), overrides, file=file, environ=environ)


def load_settings_over(
    fallback: Fallback,
    overrides: Mapping[str, object] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """As `load_settings`, with values that an app gives, which come after all other sources."""
    environ = os.environ if environ is None else environ
    refuse_unknown_variables(environ, _variables(environ))
    path = file if file is not None else Path("pipeline.toml")
    document = read_toml(path, required=file is not None)
    sections = ("kafka", *_SECTIONS)
    for name in sorted(document.keys() - set(sections)):
        raise ConfigError(
            f"{path}: unknown section [{name}]{did_you_mean(name, sections)}",
            hint=f"the sections are {', '.join(f'[{each}]' for each in sections)}",
        )
    flags = {k: v for k, v in (overrides or {}).items() if v is not None}
    servers = flags.pop("bootstrap_servers", None)
    kafka = _kafka(str(servers) if servers else None, document, environ, path, fallback)
    worker, worker_sources = _found("worker", document, environ, path)
    producer, producer_sources = _found("producer", document, environ, path)
    http, http_sources = _found("http", document, environ, path)
    for setting, given in (("host", fallback.http_host), ("port", fallback.http_port)):
        if given and setting not in http:
            http[setting], http_sources[setting] = given, "the app"
    otel, otel_sources = _found("otel", document, environ, path)
    _read_standard_variables(otel, otel_sources, environ)
    drills, drill_sources = _found("drills", document, environ, path)
    for name, value in flags.items():
        values, sources = (http, http_sources) if name in _HTTP_FLAGS else (worker, worker_sources)
        setting = _HTTP_FLAGS.get(name, name)
        values[setting], sources[setting] = value, f"--{name.replace('_', '-')}"
    return Settings(
        kafka=kafka,
        worker=_built(WorkerSettings, "worker", worker, worker_sources),
        producer=_built(ProducerSettings, "producer", producer, producer_sources),
        http=_built(HttpSettings, "http", http, http_sources),
        otel=_built(OtelSettings, "otel", otel, otel_sources),
        drills=_built(DrillSettings, "drills", drills, drill_sources),
    )


def _kafka(
    servers: str | None,
    document: Mapping[str, object],
    environ: Mapping[str, str],
    path: Path,
    fallback: Fallback,
) -> KafkaSettings:
    """The section [kafka], most of which goes to the client as it is. `servers`: those of the flag."""
    section = dict(section_of(document, "kafka", path))
    wait, place = section.pop(_STARTUP_WAIT, None), f"[kafka] in {path}"
    properties = dict(properties_in(section))
    in_file = properties.pop("bootstrap.servers", None)
    refuse_owned(properties, f"{path}: [kafka] ")
    properties |= connection_properties(environ)
    if not any(name.startswith(CONNECTION_PROPERTIES) for name in properties):
        if fallback.unusable:
            raise ConfigError(
                fallback.unusable,
                hint="set security.protocol and what it needs in [kafka] of pipeline.toml, or as PIPELINE_KAFKA_*",
            )
        properties = {**fallback.properties, **properties}
    name, kind = f"kafka.{_STARTUP_WAIT}", Amount
    try:
        if _KAFKA_WAIT in environ:
            place = _KAFKA_WAIT
            wait = parsed(kind, name, environ[_KAFKA_WAIT])
        wait_s: float | None = checked(kind, name, wait) if wait is not None else None
        return KafkaSettings(
            servers
            or environ.get(KAFKA_VARIABLE)
            or in_file
            or fallback.bootstrap_servers
            or DEFAULT_BOOTSTRAP_SERVERS,
            properties,
            wait_s,
        )
    except ConfigError as error:
        raise ConfigError(error.message, hint=f"{_STARTUP_WAIT} is set by {place}") from error


def _variables(environ: Mapping[str, str]) -> Iterator[str]:
    """The names of all variables that are settings. Those of connections are checked by the Kafka client."""
    yield KAFKA_VARIABLE
    yield _KAFKA_WAIT
    yield from filter(is_connection_variable, environ)
    for kind, prefix in _SECTIONS.values():
        for setting in fields(kind):
            yield f"{prefix}{setting.name.upper()}"


def _found(
    section: str, document: Mapping[str, object], environ: Mapping[str, str], path: Path
) -> tuple[dict[str, object], dict[str, str]]:
    """What the file and the environment say of a section, and where each value was found."""
    kind, prefix = _SECTIONS[section]
    values: dict[str, object] = dict(section_of(document, section, path))
    known = kinds_of(kind)
    for name in values:
        if name in REPLACED:
            raise ConfigError(
                f"{path}: [{section}] has {name}, which was replaced",
                hint=f"remove it. If needed, {REPLACED[name]}",
            )
        if name not in known:
            raise ConfigError(
                f"{path}: [{section}] has no setting {name!r}{did_you_mean(name, known)}",
                hint=f"known: {', '.join(known)}",
            )
    sources = dict.fromkeys(values, f"[{section}] in {path}")
    for name, kind_of_value in known.items():
        variable = f"{prefix}{name.upper()}"
        if variable in environ and not is_service_link(variable, environ[variable]):
            try:
                values[name] = parsed(kind_of_value, f"{section}.{name}", environ[variable])
            except ConfigError as error:
                raise ConfigError(error.message, hint=f"{name} is set by {variable}") from error
            sources[name] = variable
    return values, sources


def _read_standard_variables(
    values: dict[str, object], sources: dict[str, str], environ: Mapping[str, str]
) -> None:
    """Add the variables of OpenTelemetry to what `_found` has found for the section [otel]. Empty ones are not set.

    Raises ConfigError for a protocol that this package does not have.
    """
    standard = {name: f"{_OTLP}{name.upper()}" for name in _OTLP_ENDPOINTS}
    found = {
        name: (variable, environ[variable]) for name, variable in standard.items() if environ.get(variable)
    }
    for signal in ("metrics", "traces"):
        exporter = f"OTEL_{signal.upper()}_EXPORTER"
        if environ.get(exporter) == NO_SIGNAL:
            found[f"{signal}_endpoint"] = exporter, NO_SIGNAL
    if environ.get(_SDK_DISABLED, "").lower() == "true":
        found = dict.fromkeys(_OTLP_ENDPOINTS, (_SDK_DISABLED, ""))
    for name, (variable, value) in found.items():
        if variable == _SDK_DISABLED or f"{PREFIX}OTEL_{name.upper()}" not in environ:
            values[name], sources[name] = value, variable
    protocol = environ.get(f"{_OTLP}PROTOCOL", _PROTOCOL)
    if any(values.get(name) for name in _OTLP_ENDPOINTS) and protocol != _PROTOCOL:
        raise ConfigError(
            f"{_OTLP}PROTOCOL is {protocol!r}; only {_PROTOCOL} is supported",
            hint=f"unset it, and set {_OTLP}ENDPOINT to the collector's port for OTLP/HTTP, usually 4318",
        )


def _built(
    kind: type[SettingsT], section: str, values: Mapping[str, object], sources: Mapping[str, str]
) -> SettingsT:
    """The settings. `sources` says where each value was found, which is where a wrong one must be corrected."""
    kinds = kinds_of(kind)
    try:
        chosen: dict[str, Any] = {
            name: checked(kinds[name], f"{section}.{name}", value) for name, value in values.items()
        }
        return kind(**chosen)
    except ConfigError as error:
        places = [
            f"{name} is set by {place}"
            for name, place in sources.items()
            if f"{section}.{name} " in error.message + " "
        ]
        raise ConfigError(error.message, hint="; ".join(places) or error.hint) from error
