"""docs/how-to/security.md from its first to its last command, on a broker that its certificates and settings start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pages import ROOT
from tests.support.secure.certificates import Certificates
from tests.support.secure.kafka import secure_kafka
from tests.support.secure.tools import install_tools
from tests.support.walkthrough import Page, page_of, read_page

pytestmark = [pytest.mark.kafka, pytest.mark.secured]

HOST = "localhost"
PAGE = ROOT / "docs" / "how-to" / "security.md"
PASSWORD = "admin-secret"  # noqa: S105 - of the page


def test_the_commands_of_the_security_page_do_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader configures a production cluster with these lines; one that is wrong costs a day."""
    text = PAGE.read_text(encoding="utf-8").replace("kafka-1.example.com", HOST)
    first, rest = text.split("## Brokers\n", 1)
    directory = tmp_path / "app"
    directory.mkdir()
    page_of(first).run(directory, "")
    made = Certificates(directory / "ca.pem", directory / "kafka.pem", directory / "kafka.key")
    tools = tmp_path / "bin"
    install_tools(tools)
    with secure_kafka(tmp_path, made, HOST) as kafka:
        kafka.user("admin", PASSWORD)
        page = page_of(rest.replace(f"{HOST}:9093", kafka.servers))
        delays = read_page(ROOT / "README.md").files["delays.py"]
        path = f"export PATH={tools}:$PATH\nunset PIPELINE_KAFKA\n"
        whole = Page({"delays.py": delays, **page.files}, path + page.script, page.shown)
        whole.save(directory)
        said = whole.run(directory, "")
    assert "4 of 4 tasks live" in said
