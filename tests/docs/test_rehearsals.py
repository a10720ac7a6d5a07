"""The rehearsals of runbooks: their commands bring about the symptom that the page describes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.support.pages import ROOT
from tests.support.waiting import wait_until
from tests.support.walkthrough import Page, read_page

pytestmark = [pytest.mark.kafka, pytest.mark.kills]

SYMPTOMS = {
    "input-expired": "is outside of the partition's offsets",
    "journal-check-failed": "flight-delays.main.journal[0] is damaged at offset",
    "journal-lost": "but its journal topic is gone",
    "nothing-to-restore-from": "nothing to restore flight-delays/main/0 from: the journal begins at entry",
    "topic-recreated": "topic flights was deleted and created again",
}

# What every rehearsal begins with: the README's first program has processed its records and was stopped.
BEGIN = """
pipeline topics apply
cat > flights.csv <<'CSV'
carrier,dep_delay
AA,12
UA,-3
AA,NA
B6,47
AA,5
CSV
pipeline produce flights flights.csv --key carrier --null NA
pipeline worker delays:app & FIRST=$!
pipeline consume carrier-delays --follow --max 5
kill $FIRST
wait $FIRST
"""
TOPIC = "name: {}\npartitions: 4\nowner: me\nkey: a carrier, text\nvalue: an object\n"


@pytest.mark.parametrize("name", SYMPTOMS)
def test_a_rehearsal_brings_about_the_symptom(name: str, own_kafka: str, tmp_path: Path) -> None:
    """An operator who has rehearsed a failure recognises it at night."""
    _delete_everything(own_kafka)
    text = (ROOT / "runbooks" / f"{name}.md").read_text(encoding="utf-8")
    section = tmp_path / "rehearsal.md"
    section.write_text(text.split("\n## Rehearse\n", 1)[1], encoding="utf-8")
    rehearsal = read_page(section)
    files = {
        **rehearsal.files,
        "delays.py": read_page(ROOT / "README.md").files["delays.py"],
        "topics/flights.yaml": TOPIC.format("flights"),
        "topics/carrier-delays.yaml": TOPIC.format("carrier-delays"),
    }
    # The worker of a failed task runs on if its other tasks are live: Ctrl-C ends it, as the page says.
    script = re.sub(
        r"^(pipeline worker .*[^&\n])$",
        r"timeout --signal INT 25 \1 || true",
        rehearsal.script,
        flags=re.MULTILINE,
    )
    page = Page(files, BEGIN + script, [])
    page.save(tmp_path)
    output = page.run(tmp_path, own_kafka)
    assert SYMPTOMS[name] in output.split("wait ", 1)[1], output[-4_000:]


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
