"""The address of a peer in a setting: `host_and_port`."""

from __future__ import annotations

from ipaddress import ip_address

from pipeline.errors import ConfigError

__all__ = ["host_and_port"]


def host_and_port(text: str) -> tuple[str, int]:
    """The IP address and the port of `HOST` or `HOST:PORT`; an IPv6 address with a port has brackets.

    Port 0: none is given. An empty text has neither.

    Raises:
        ConfigError: It is neither, or `HOST` is not an IP address.
    """
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    whole = f"[{host}]:{port}" if text.startswith("[") else f"{host}:{port}" if port else host
    good = whole == text and (not port or (port.isdecimal() and 0 < int(port) < 65_536))
    if text and not (good and _is_ip(host)):
        raise ConfigError(
            f"worker.peer_address is {text!r}; it must be an IP address, or an IP address and a port",
            hint="for example 192.0.2.7, 192.0.2.7:7946 or [2001:db8::7]:7946",
        )
    return host, int(port or 0)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
