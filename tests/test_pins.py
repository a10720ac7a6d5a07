"""What containers and CI install, and the images that they start from, are pinned to exact files and tags."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
SINGLE = [
    ROOT / "examples/flights/requirements.txt",
    ROOT / "tests/containers/requirements.txt",
    ROOT / "tests/containers/store/requirements.txt",
    ROOT / "tests/helm/requirements.txt",
    ROOT / "tests/helm/requirements-go.txt",
]
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?: ;.*?)?(?:\s|$)(.*)", re.DOTALL)

each_file = pytest.mark.parametrize("file", [*LOCKS, *SINGLE], ids=lambda path: str(path.relative_to(ROOT)))


def _name(text: str) -> str:
    return re.sub(r"[._-]+", "-", text).lower()


def _pins(file: Path) -> dict[str, tuple[str, str]]:
    """The version and the rest of each requirement, by name."""
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    found = [_PIN.match(line) for line in text.splitlines() if line and not line.startswith("#")]
    assert all(found), file
    return {_name(pin[1]): (pin[2], pin[3]) for pin in found if pin}


@each_file
def test_every_requirement_is_one_version_with_hashes(file: Path) -> None:
    """A registry that is tampered with must not reach CI or an image."""
    pins = _pins(file)
    assert pins
    assert [name for name, (_, rest) in pins.items() if "--hash=sha256:" not in rest] == []


@each_file
def test_locks_agree_with_the_constraints(file: Path) -> None:
    """`make lock` writes all of them; one that was edited by hand would test another version than users get."""
    constraints = _pins(ROOT / "constraints.txt")
    assert {
        name: version
        for name, (version, _) in _pins(file).items()
        if name in constraints and version != constraints[name][0]
    } == {}


@pytest.mark.parametrize("file", [ROOT / "constraints.txt", *LOCKS, *SINGLE], ids=lambda path: path.name)
def test_locks_name_no_registry(file: Path) -> None:
    """Where packages come from is the business of each machine's own configuration."""
    text = file.read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_every_declared_dependency_is_locked() -> None:
    """One that was added without `make lock` fails in the image, and late."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime = {_name(re.split(r"[<>=\[;]", text)[0]) for text in project["dependencies"]}
    extras = project["optional-dependencies"].values()
    every = runtime | {_name(re.split(r"[<>=\[;]", text)[0]) for extra in extras for text in extra}
    assert runtime <= _pins(ROOT / "requirements/runtime.txt").keys()
    assert every - {project["name"]} <= _pins(ROOT / "requirements/dev.txt").keys()
    assert every - {project["name"]} <= _pins(ROOT / "constraints.txt").keys()


def test_the_image_has_the_extras_that_its_documents_name() -> None:
    """The image has no pip: what it lacks cannot be added."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [text for extra in ("otel", "postgres") for text in project["optional-dependencies"][extra]]
    names = {_name(re.split(r"[<>=\[;]", text)[0]) for text in named}
    assert names <= _pins(ROOT / "requirements/runtime.txt").keys()


@pytest.mark.parametrize("file", ["Dockerfile", "Makefile", ".ci/run", "tests/containers/store/Dockerfile"])
def test_installs_check_hashes_or_take_no_dependencies(file: str) -> None:
    """The project itself has no hash; so it must bring nothing along."""
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"&&|;", "\n", text)
    installs = re.compile(r"\bpip install|PIP_INSTALL\) ")
    commands = [line for line in text.splitlines() if installs.search(line) and ":=" not in line]
    wrong = [
        line.strip()
        for line in commands
        if "--require-hashes" not in line
        and not re.search(r"--no-deps (--no-build-isolation -e \.|dist/)", line)
    ]
    assert wrong == []


def test_images_have_exact_tags() -> None:
    """`3.13-slim` is another image each month."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    bases = re.findall(r"^ARG BASE_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    defaults = re.findall(r"\$\{(?!PIPELINE_)\w+_IMAGE:-(\S+?)\}", compose)
    assert len(bases) == 1
    assert len(defaults) == 6
    assert len(re.findall(r"^ +image:", compose, re.MULTILINE)) == 6  # each of the others, and ours
    assert [
        image for image in bases + defaults if not re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z-]+)?$", image)
    ] == []
    assert bases[0] in defaults
    froms = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert set(froms) == {"${BASE_IMAGE}", "runtime"}
    documented = (ROOT / "docs/how-to/containers.md").read_text(encoding="utf-8")
    assert [image for image in defaults if f"`{image}`" not in documented] == []
