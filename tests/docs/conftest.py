"""A Kafka without topics for the pages of a test file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.broker import LocalKafka


@pytest.fixture(scope="module")
def own_kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka without topics: pages give theirs plain names, which other tests may use, too."""
    given = str(request.config.getoption("--kafka"))
    if given and given != "container":
        yield given
        return
    with LocalKafka(tmp_path_factory.mktemp("kafka")) as own:
        yield own.bootstrap_servers
