"""A Kafka without topics for each page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.broker import LocalKafka


@pytest.fixture
def own_kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka without topics: several pages have the same app, and their outputs begin with an empty topic."""
    given = str(request.config.getoption("--kafka"))
    if given and given != "container":
        yield given
        return
    with LocalKafka(tmp_path_factory.mktemp("kafka")) as own:
        yield own.bootstrap_servers
