"""A container engine without containers: an executable `podman` that keeps its containers in a JSON file.

It answers the commands that `pipeline.drills.containers` uses as podman 4.3 does. `tests/containers` runs the same
contract on the real podman.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["FakeEngine"]

_SCRIPT = """#!{python}
import io, json, os, subprocess, sys, tarfile
root = {root!r}
file = os.path.join(root, "containers.json")
containers = json.load(open(file))
command, *arguments = sys.argv[1:]

def fail(text):
    sys.stderr.write("Error: " + text + "\\n")
    sys.exit(125)

def one(name):
    found = [each for each in containers if name in (each["Id"], each["Name"])]
    return found[0] if found else fail(f'no such container "{{name}}"')

def where(container, path):
    return os.path.join(root, container["Id"]) + path

state = one(arguments[-1])["State"] if command in ("kill", "pause", "unpause", "start") else {{}}
if command == "ps":
    print("\\n".join(each["Id"] for each in containers if each["State"]["Running"]))
elif command == "inspect":
    print(json.dumps([one(name) for name in arguments[2:]]))
elif command == "kill":
    if not state["Running"] or state["Paused"]:
        fail("can only kill running containers")
    state["Running"] = False
elif command == "pause":
    if not state["Running"]:
        fail("is not running, can't pause")
    state["Paused"] = True
elif command == "unpause":
    if not state["Paused"]:
        fail("is not paused, can't unpause")
    state["Paused"] = False
elif command == "start":
    state.update(Running=True, StartedAt=state["StartedAt"] + "+")
elif command == "cp":
    name, path = arguments[0].split(":")
    if not os.path.exists(where(one(name), path)):
        fail(f'"{{path}}" could not be found on container')
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as files:
        files.add(where(one(name), path), os.path.basename(path))
elif command == "run":
    container = one(arguments[arguments.index("--volumes-from") + 1])
    script, source, target = arguments[-3:]
    subprocess.run([sys.executable, "-c", script, where(container, source), where(container, target)], check=True)
else:
    fail(f"unknown command {{command}}")
json.dump(containers, open(file, "w"))
"""


class FakeEngine:
    """Writes `podman` into `directory`, which the test puts first in PATH."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / "containers"
        self._root.mkdir()
        self._containers: list[dict[str, object]] = []
        program = directory / "podman"
        program.write_text(_SCRIPT.format(python=sys.executable, root=str(self._root)))
        program.chmod(0o755)
        self._save()

    def add(
        self,
        name: str,
        words: list[str],
        *,
        environment: Mapping[str, str] | None = None,
        mounts: tuple[str, ...] = ("/state",),
    ) -> Path:
        """Add a running container. Returns the directory of its files."""
        identity = f"{len(self._containers):064x}"
        self._containers.append(
            {
                "Id": identity,
                "Name": name,
                "Image": "1" * 64,
                "State": {"Running": True, "Paused": False, "StartedAt": "2026-01-01T00:00:00Z"},
                "Config": {
                    "Entrypoint": ["pipeline"],
                    "Cmd": words,
                    "Env": [f"{key}={value}" for key, value in (environment or {}).items()],
                    "WorkingDir": "/app",
                    "User": "10001:10001",
                },
                "Mounts": [{"Type": "volume", "Destination": each} for each in mounts],
            }
        )
        self._save()
        files = self._root / identity
        files.mkdir()
        return files

    def _save(self) -> None:
        (self._root / "containers.json").write_text(json.dumps(self._containers))
