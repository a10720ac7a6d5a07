"""The chart, rendered by Helm. Where Helm cannot be built, its tests are skipped; on CI they fail."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.support.debian import UnavailableError, give_up
from tests.support.helm.chart import Chart
from tests.support.helm.program import find_helm


@pytest.fixture(scope="session")
def chart() -> Chart:
    """The chart. On a new machine, Helm is built first, which counts for the first test."""
    try:
        return Chart(find_helm())
    except UnavailableError as error:
        give_up(error)


@pytest.fixture(scope="session")
def validator() -> None:
    if find_spec("kubernetes_validate") is None:
        give_up("kubernetes-validate is missing: run `make test-helm`, which installs it")
