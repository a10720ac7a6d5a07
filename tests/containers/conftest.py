"""The compose file, started for a test and removed after it. Without an engine tests are skipped; on CI they fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.broker.ports import choose_ports
from tests.support.containers.engine import Engine, find_engine
from tests.support.containers.images import Images, build_images
from tests.support.containers.project import Ports, Project, sweep
from tests.support.debian import UnavailableError, give_up


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """podman, installed if it was not."""
    try:
        engine = find_engine(tmp_path_factory.mktemp("engine"))
    except UnavailableError as error:
        give_up(error)
    sweep(engine)
    return engine


@pytest.fixture(scope="session")
def images(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The images, built if they were not. On a new machine that takes minutes, which count for the first test."""
    try:
        return build_images(engine, tmp_path_factory.mktemp("images"))
    except UnavailableError as error:
        give_up(error)


@pytest.fixture
def ports() -> Ports:
    """Free ports for the services that this machine can reach."""
    kafka, prometheus, ui = choose_ports(3)
    return Ports(kafka, prometheus, ui)


@pytest.fixture
def project(engine: Engine, images: Images, ports: Ports) -> Iterator[Project]:
    """The compose file; nothing of it is left afterwards."""
    try:
        project = Project(engine, images, ports)
    except UnavailableError as error:
        give_up(error)
    try:
        yield project
    finally:
        project.remove()
