"""Runs podman on this machine with separate settings, and installs it if it is missing, or reports why it cannot.

Only Debian with root is supported. The podman settings of the machine are neither read nor changed.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.debian import UnavailableError, install_packages, must

__all__ = ["CommandError", "Engine", "find_engine"]

# iptables: netavark runs it for every network, but Debian's package only suggests it.
_PACKAGES = ("podman", "runc", "netavark", "iptables", "aardvark-dns", "catatonit", "debootstrap")
_BUILD_S = 600.0
_MOST_FILES = 65_536
_SHOWN_CHARACTERS = 2_000


class CommandError(subprocess.SubprocessError):
    """A podman command failed. `output`: its complete output."""

    def __init__(self, command: str, output: str) -> None:
        super().__init__(f"podman {command}: {output[-_SHOWN_CHARACTERS:].strip()}")
        self.output = output


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs podman."""

    config: Path

    @property
    def environ(self) -> dict[str, str]:
        """The environment of podman, and of programs that start it."""
        # podman would run health checks by timers of systemd, which a container has not. The test runs them itself.
        return {**os.environ, "CONTAINERS_CONF": str(self.config), "DISABLE_HC_SYSTEMD": "true"}

    @staticmethod
    def command(*arguments: str) -> list[str]:
        """The command line."""
        return [_path("podman"), *arguments]

    def run(self, *arguments: str, timeout_s: float = 180.0) -> str:
        """Run a podman command. Returns its standard output. Raises CommandError or TimeoutExpired."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise CommandError(" ".join(arguments), done.stdout + done.stderr)
        return done.stdout

    def build(self, image: str, base: str, context: Path, *options: str) -> None:
        """Build `image` from the Dockerfile in `context`. Raises CommandError, or TimeoutExpired.

        Without layers, only the image of a build is kept: layers would take hundreds of MB for every change. A killed
        build leaves its working container, which is removed here.
        """
        before = self._working()
        try:
            arguments = ("--layers=false", f"--build-arg=BASE_IMAGE={base}", f"--tag={image}", *options)
            self.run("build", *arguments, str(context), timeout_s=_BUILD_S)
        except BaseException:
            for left in self._working() - before:
                self.run("rm", "--force", left)
            raise

    def _working(self) -> set[str]:
        name = "--filter=name=exactly-once-pipeline-test"
        return set(self.run("ps", "--all", "--external", "--quiet", name).split())

    def ids(self, kind: str, *filters: str) -> list[str]:
        """The ids (for volumes, the names) of the containers, networks or volumes that match all filters."""
        command = ["ps", "--all"] if kind == "container" else [kind, "ls"]
        return self.run(*command, "--quiet", *(f"--filter={f}" for f in filters)).split()

    def inspect(self, container: str) -> Any:
        """What podman knows of a container: Config, HostConfig, State and others."""
        return json.loads(self.run("inspect", "--type=container", container))[0]

    def state(self, container: str) -> Any:
        """The state of a container's process: Status, ExitCode and others."""
        return self.inspect(container)["State"]

    def is_healthy(self, container: str) -> bool:
        """Run the health check of a container once. Returns whether the container is healthy afterwards."""
        with suppress(CommandError):
            self.run("healthcheck", "run", container)
        return bool(self.state(container)["Health"]["Status"] == "healthy")

    def logs(self, container: str) -> str:
        """The complete output of a container, from both streams."""
        done = subprocess.run(
            self.command("logs", container),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.stdout


def find_engine(scratch: Path) -> Engine:
    """Return an engine that works, with its settings in `scratch`. Raises UnavailableError."""
    install_packages(_PACKAGES)
    # Every network needs it, also that of a build. Without it, netavark's message does not name the cause.
    must([_path("iptables"), "--table=nat", "--list"], timeout_s=30, what="the kernel has no iptables here")
    config = scratch / "containers.conf"
    config.write_text(_settings(), encoding="utf-8")
    engine = Engine(config)
    try:
        engine.run("info")
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"podman does not run here: {error}") from error
    return engine


def _settings() -> str:
    # A container cannot have a higher limit on open files than this process.
    files = min(_MOST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return "\n".join(
        (
            "[containers]",
            f'default_ulimits = ["nofile={files}:{files}", "nproc=4096:4096"]',
            "[engine]",
            'runtime = "runc"',
            'cgroup_manager = "cgroupfs"',  # without systemd, too
            'events_logger = "file"',
            "[network]",
            'network_backend = "netavark"',
            "",
        )
    )


def _path(command: str) -> str:
    return shutil.which(command) or command
