"""The rehearsals of runbooks: from the symptom that the page describes to the end of its steps, with its commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.support.rehearsals import REHEARSALS
from tests.support.rehearsals.running import rehearse
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.kills, pytest.mark.timeout(400)]


@pytest.mark.parametrize("name", REHEARSALS)
def test_a_runbook_leads_from_its_symptom_to_its_end(name: str, own_kafka: str, tmp_path: Path) -> None:
    """An operator follows the page in an outage, when there is no time to find out what is wrong in it."""
    _delete_everything(own_kafka)
    rehearse(name, REHEARSALS[name], own_kafka, tmp_path)


def _delete_everything(kafka: str) -> None:
    """Remove what another rehearsal has left: all of them use the same app."""
    admin = AdminClient({"bootstrap.servers": kafka})
    for group in admin.list_consumer_groups().result().valid:
        admin.delete_consumer_groups([group.group_id])[group.group_id].result()
    for topic in _topics(admin):
        admin.delete_topics([topic])[topic].result()
    wait_until(lambda: not _topics(admin), lambda: f"topics that are left: {_topics(admin)}")


def _topics(admin: AdminClient) -> list[str]:
    return [topic for topic in admin.list_topics(timeout=10).topics if not topic.startswith("__")]
