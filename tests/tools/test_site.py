"""The documentation site: links, navigation, generated pages, and the checks that `make docs` fails by."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
import pipeline.testing
from pipeline.cli.main import COMMANDS
from tools.site.check import problems
from tools.site.links import repository_links_replaced
from tools.site.log_events import log_events
from tools.site.nav import expanded
from tools.site.reference import generated_pages

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "errors.md"


def test_broken_links_and_anchors_fail_the_build(tmp_path: Path) -> None:
    """A reader of a published site cannot repair a link; only the build can refuse it."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(config.split("\nnav:\n")[0], encoding="utf-8")
    (tmp_path / "pages" / "assets").mkdir(parents=True)
    (tmp_path / "pages" / "assets" / "site.css").touch()
    page = tmp_path / "pages" / "index.md"
    page.write_text("# Home\n\n[home](#home)\n", encoding="utf-8")
    assert _build(tmp_path).returncode == 0
    page.write_text("# Home\n\n[gone](gone.md) [no such heading](#elsewhere)\n", encoding="utf-8")
    build = _build(tmp_path)
    assert build.returncode == 1
    assert "'gone.md'" in build.stderr
    assert "'#elsewhere'" in build.stderr


def _build(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--config-file", str(directory / "mkdocs.yml")],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_links_follow_documents_to_their_place_in_the_site() -> None:
    """Documents are read in the repository, too, so their links are the repository's paths."""
    text = "[poison](../../runbooks/poison-record.md#what) [all](../../runbooks/) [home](../../README.md) [a](#b)"
    assert repository_links_replaced(text, PAGE, ROOT) == (
        "[poison](../runbooks/poison-record.md#what) [all](../runbooks/index.md) [home](../index.md) [a](#b)"
    )


def test_links_to_source_files_become_text() -> None:
    """The site has no pages of source files, and a link into nothing fails the build."""
    text = "[`App`](../../pipeline/__init__.py), and\n```sh\n[x](../../LICENSE)\n```"
    replaced = "`App`, and\n```sh\n[x](../../LICENSE)\n```"
    assert repository_links_replaced(text, PAGE, ROOT) == replaced


def test_links_to_missing_files_are_refused() -> None:
    """Otherwise a removed source file would leave its name as text, without an error."""
    with pytest.raises(SystemExit, match=r"gone\.py leads to nothing"):
        repository_links_replaced("[gone](../../pipeline/gone.py)", PAGE, ROOT)


def test_navigation_has_pages_that_it_does_not_name(tmp_path: Path) -> None:
    """A page that was added without a change of the configuration must not be missing."""
    for name in ("b.md", "a.md", "first.md"):
        (tmp_path / "how-to").mkdir(exist_ok=True)
        (tmp_path / "how-to" / name).touch()
    config = "nav:\n  - how-to/first.md\n  - how-to/*\n"
    assert expanded(config, tmp_path) == "nav:\n  - how-to/first.md\n  - how-to/a.md\n  - how-to/b.md\n"
    complete = config.replace("*", "a.md") + "  - how-to/b.md\n"
    assert expanded(f"{complete}  - how-to/*\n", tmp_path) == f"{complete}\n"
    with pytest.raises(SystemExit, match="concepts/"):
        expanded("  - concepts/*\n", tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "loaded"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>', "https://cdn.example/x.js"),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/f.css">', "//fonts.example/f.css"),
        ("a.html", '<link rel="preconnect" href="https://fonts.example">', "https://fonts.example"),
        ("a.html", '<img srcset="b.png 1x, https://p.example/b.png 2x">', "https://p.example/b.png"),
        ("a.html", '<p style="background: url(http://p.example/c.png)">', "http://p.example/c.png"),
        ("a.css", '@import "https://fonts.example/f.css";', "https://fonts.example/f.css"),
        ("a.css", "src: url('https://fonts.example/f.woff2')", "https://fonts.example/f.woff2"),
        ("a.html", '<pre class="mermaid">graph</pre>', "mermaid"),
    ],
)
def test_what_a_page_loads_from_other_hosts_is_found(
    tmp_path: Path, file: str, text: str, loaded: str
) -> None:
    """The site works without a network, and no other host learns who reads it."""
    (tmp_path / file).write_text(text, encoding="utf-8")
    (problem,) = problems(tmp_path)
    assert loaded in problem


def test_links_that_a_reader_clicks_may_lead_anywhere(tmp_path: Path) -> None:
    """Sources are cited by their addresses."""
    text = '<link rel="canonical" href="https://docs.example/"><a href="https://kafka.example">K</a>'
    (tmp_path / "a.html").write_text(f'{text}<img src="assets/p.svg">', encoding="utf-8")
    (tmp_path / "a.css").write_text("a { background: url(data:image/svg+xml,x) }", encoding="utf-8")
    assert problems(tmp_path) == []


def test_every_command_and_public_name_has_its_section(tmp_path: Path) -> None:
    """The reference is generated; what it leaves out would be undocumented."""
    pages = generated_pages(tmp_path)
    commands = pages["reference/commands.md"]
    assert [name for name in COMMANDS if f"\n## pipeline {name}\n" not in commands] == []
    assert "\n### pipeline topics plan\n" in commands
    api = [line for page in pages.values() for line in page.splitlines() if line.startswith("::: ")]
    exported = [f"::: pipeline.{name}" for name in pipeline.__all__]
    assert sorted(line for line in api if not line.startswith("::: pipeline.testing.")) == sorted(exported)
    assert "::: pipeline.testing.TestDriver" in api


def test_log_events_are_found_in_the_source() -> None:
    """Alerts are written from this list, also on events whose name is chosen at run time."""
    found = {event.name: event for event in log_events(ROOT / "pipeline")}
    assert found["task_failed"].levels == {"error"}
    assert {"app", "group", "task", "partitions", "error", "message", "hint"} <= found["task_failed"].fields
    assert {"kafka_unreachable", "database_unreachable", "worker_not_restarted"} <= found.keys()


def test_a_log_event_without_a_readable_name_is_refused(tmp_path: Path) -> None:
    """It would be missing in the reference without a word."""
    (tmp_path / "module.py").write_text("self._log.info(compute())\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"module\.py:1"):
        log_events(tmp_path)
