"""The images of the containers test, without an image registry: a Debian, a substitute for Kafka's, the one under test.

The first two are kept between runs; their tag is a digest of their contents. The third is built with the Dockerfile of
the users.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.broker import BrokerError, cache_dir
from pipeline.broker.install import ensure_installed, java_version, own_java, shipped_lock
from tests.support.containers.engine import CommandError, Engine
from tests.support.debian import UnavailableError, must

__all__ = ["ROOT", "Images", "build_images"]

ROOT = Path(__file__).parents[3]
_RECIPE = ROOT / "tests" / "containers" / "kafka"
_DEBIAN = "bookworm"
_INCLUDE = "python3,python3-venv,ca-certificates"
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
_BASE_S = 600.0
# pip's messages without a network.
_NO_NETWORK = ("NewConnectionError", "ConnectTimeoutError", "name resolution")


@dataclass(frozen=True, slots=True)
class Images:
    """The names of the images."""

    base: str
    kafka: str
    flights: str


def build_images(engine: Engine, scratch: Path) -> Images:
    """Build missing images. Raises UnavailableError without a network, CommandError for an error in our files."""
    base = _base(engine, scratch)
    kafka = _kafka(engine, scratch, base)
    flights = "localhost/exactly-once-pipeline-test:flights"
    earlier = engine.run("images", "--quiet", flights).split()
    try:
        engine.build(flights, base, ROOT, "--target=flights")
    except CommandError as error:
        if any(sign in error.output for sign in _NO_NETWORK):
            raise UnavailableError("pip cannot reach its packages from inside a container") from error
        raise
    for image in earlier:
        with suppress(CommandError):  # a leftover container of another run may still use it
            engine.run("rmi", image)
    return Images(base, kafka, flights)


def _base(engine: Engine, scratch: Path) -> str:
    certificates = Path("/") / _CERTIFICATES
    name = _named("base", _DEBIAN.encode(), _INCLUDE.encode(), certificates.read_bytes())
    if _exists(engine, name):
        return name
    root = scratch / "base"
    command: list[str | Path] = ["debootstrap", "--variant=minbase", f"--include={_INCLUDE}", _DEBIAN, root]
    must(command, timeout_s=_BASE_S, what="debootstrap cannot make a base image")
    # This machine's certificates: a network that shows its own to pip here shows them in a container, too.
    shutil.copyfile(certificates, root / _CERTIFICATES)
    archive = scratch / "base.tar"
    must(["tar", "-C", root, "-cf", archive, "."], timeout_s=120, what="tar of the base image")
    engine.run("import", f"--change=ENV PIP_CERT=/{_CERTIFICATES}", str(archive), name, timeout_s=120)
    shutil.rmtree(root)
    archive.unlink()
    return name


def _kafka(engine: Engine, scratch: Path, base: str) -> str:
    lock = shipped_lock()
    recipe = [path.read_bytes() for path in sorted(_RECIPE.iterdir())]
    name = _named("kafka", base.encode(), lock.digest.encode(), java_version().encode(), *recipe)
    if _exists(engine, name):
        return name
    try:
        jars = ensure_installed(cache_dir(), lock)
    except BrokerError as error:
        raise UnavailableError(f"Kafka cannot be had: {error}") from error
    context = scratch / "kafka"
    shutil.copytree(_RECIPE, context)
    shutil.copytree(own_java().parent.parent, context / "java")
    (context / "libs").mkdir()
    for jar in jars:
        shutil.copyfile(jar, context / "libs" / jar.name)
    engine.build(name, base, context)
    shutil.rmtree(context)
    return name


def _named(what: str, *made_of: bytes) -> str:
    digest = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:12]
    return f"localhost/exactly-once-pipeline-test-{what}:{digest}"


def _exists(engine: Engine, image: str) -> bool:
    try:
        engine.run("image", "exists", image)
    except CommandError:
        return False
    return True
