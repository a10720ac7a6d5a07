"""podman's socket for clients of Docker, such as testcontainers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.containers.engine import CommandError, Engine
from tests.support.containers.results import wait_until

__all__ = ["serving"]

_START_S = 120.0
_END_S = 60.0


@contextmanager
def serving(engine: Engine, scratch: Path) -> Iterator[dict[str, str]]:
    """Run `podman system service` during the block. Yields the environment variables for testcontainers."""
    socket = scratch / "podman.sock"
    log = scratch / "service.log"
    with log.open("wb") as output:
        service = subprocess.Popen(
            engine.command("system", "service", "--time=0", f"unix://{socket}"),
            env=engine.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: _answers(engine, socket, service, log), _START_S, "podman's service")
        yield {
            **engine.environ,
            "DOCKER_HOST": f"unix://{socket}",
            "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
            # Its cleaner is an image from a registry, and the fixture removes its own container.
            "TESTCONTAINERS_RYUK_DISABLED": "true",
        }
    finally:
        service.terminate()
        try:
            service.wait(_END_S)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait(_END_S)


def _answers(engine: Engine, socket: Path, service: subprocess.Popen[bytes], log: Path) -> bool:
    assert service.poll() is None, log.read_text(errors="replace")
    try:
        engine.run("--url", f"unix://{socket}", "version")
    except CommandError:
        return False
    return True
