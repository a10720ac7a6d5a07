"""Settings of a Faust application that stand for settings of ours: `fallback_of`. Ours override them.

| of the application   | of the worker                                                              |
|----------------------|----------------------------------------------------------------------------|
| `broker`             | `kafka.bootstrap_servers`                                                  |
| `broker_credentials` | `security.protocol`, `sasl.*`, `ssl.*` of [kafka], if none of them is set  |
| `web_port`           | `http.port`, if the application has pages                                  |
| `web_bind`           | `http.host`, in the same case, unless it is Faust's default 0.0.0.0        |
"""

from __future__ import annotations

import ssl
from typing import Any

from faust.auth import SASLCredentials, SSLCredentials

from pipeline.config.loading import Fallback
from pipeline.errors import ConfigError
from pipeline.faust.pages import has_pages

__all__ = ["fallback_of"]

_SCHEMES = {"kafka", "aiokafka", "confluent"}
_DEFAULT_PORT = 9092
_DEFAULT_BROKERS = ["localhost:9092"]
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - compared, and not listened on


def fallback_of(app: Any) -> Fallback:
    """What the settings of an app say. Raises ConfigError for a broker that is not Kafka."""
    conf = app.conf
    servers = [_server(url) for url in conf.broker]
    properties, problem = _connection(conf)
    serves = conf.web_enabled and has_pages(app)
    return Fallback(
        bootstrap_servers="" if servers == _DEFAULT_BROKERS else ",".join(servers),
        properties=properties,
        unusable=problem,
        http_host=conf.web_bind if serves and conf.web_bind != _EVERY_ADDRESS else "",
        http_port=conf.web_port if serves else 0,
    )


def _server(url: Any) -> str:
    if url.scheme not in _SCHEMES:
        raise ConfigError(
            f"the broker {url.scheme}://{url.host} of the application is not Kafka",
            hint='use broker="kafka://HOST:PORT"',
        )
    return f"{url.host}:{url.port or _DEFAULT_PORT}"


def _connection(conf: Any) -> tuple[dict[str, str], str]:
    """The properties of the Kafka client, or why the credentials cannot be expressed by them."""
    credentials = conf.broker_credentials
    if credentials is None:
        context = conf.ssl_context
        return ({"security.protocol": "SSL", **_tls(context)}, "") if context is not None else ({}, "")
    if isinstance(credentials, SSLCredentials):
        return {"security.protocol": "SSL", **_tls(credentials.context)}, ""
    if isinstance(credentials, SASLCredentials):
        context = credentials.ssl_context
        return {
            "security.protocol": credentials.protocol.value,
            "sasl.mechanism": credentials.mechanism.value,
            "sasl.username": credentials.username or "",
            "sasl.password": credentials.password or "",
            **(_tls(context) if context is not None else {}),
        }, ""
    return (
        {},
        f"{type(credentials).__name__} of the application cannot be used by this Kafka client as they are",
    )


def _tls(context: ssl.SSLContext) -> dict[str, str]:
    """The certificates that an SSLContext trusts, and what it checks. It does not show a client certificate."""
    found = {}
    trusted = context.get_ca_certs(binary_form=True)
    if trusted:
        found["ssl.ca.pem"] = "".join(map(ssl.DER_cert_to_PEM_cert, trusted))
    if context.verify_mode == ssl.CERT_NONE:
        found["enable.ssl.certificate.verification"] = "false"
    if not context.check_hostname:
        found["ssl.endpoint.identification.algorithm"] = "none"
    return found
