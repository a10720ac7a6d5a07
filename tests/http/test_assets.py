"""The files of the page: what a browser may load, keep and run."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

import pytest

import pipeline.http
from pipeline.http.ui import PAGE_POLICY
from tests.support.http.asked import Asked
from tests.support.runtime.sums import Sums

FILES = sorted((Path(pipeline.http.__file__).parent / "page").iterdir())


@pytest.fixture
def asked() -> Asked:
    sums = Sums()
    return Asked(sums.driver, sums.app, "sums")


def assets_in(page: bytes) -> list[str]:
    return re.findall(r'(?:href|src)="(assets/[^"]+)"', page.decode())


def test_the_page_names_files_that_exist(asked: Asked) -> None:
    """Also the modules that its modules import: a missing one would leave an empty page."""
    status, headers, page = asked.ask("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    places = assets_in(page)
    assert {place.rpartition("/")[2] for place in places} == {"main.js", "page.css", "icon.svg"}
    directory = places[0].rpartition("/")[0]
    seen, left = set(), {"main.js"}
    while left:
        name = left.pop()
        seen.add(name)
        status, headers, module = asked.ask(f"/{directory}/{name}")
        assert (status, headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
        left |= set(re.findall(r'from "\./([a-z]+\.js)"', module.decode())) - seen
    assert seen == {path.name for path in FILES if path.suffix == ".js"}


def test_files_are_kept_and_the_page_is_validated(asked: Asked) -> None:
    """After an upgrade, no browser may mix the files of two releases."""
    _, headers, page = asked.ask("/")
    assert headers["Cache-Control"] == "no-cache"
    assert asked.ask("/", HTTP_IF_NONE_MATCH=headers["ETag"])[0] == HTTPStatus.NOT_MODIFIED
    assert asked.ask("/", HTTP_IF_NONE_MATCH='"other"')[2] == page
    [place, *_] = assets_in(page)
    assert "immutable" in asked.ask(f"/{place}")[1]["Cache-Control"]
    assert asked.ask("/assets/0123/main.js")[0] == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("name", ["../assets.py", "..%2fassets.py", "", "index.html", "missing.js"])
def test_no_other_file_is_served(asked: Asked, name: str) -> None:
    """The directory is part of a package with code."""
    directory = assets_in(asked.ask("/")[2])[0].rpartition("/")[0]
    assert asked.ask(f"/{directory}/{name}")[0] == HTTPStatus.NOT_FOUND
    assert asked.ask(f"/runbooks/{name}")[0] == HTTPStatus.NOT_FOUND


def test_a_runbook_is_plain_text(asked: Asked) -> None:
    """The page links the ones that its hints name."""
    status, headers, body = asked.ask("/runbooks/poison-record.md")
    assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert body.startswith(b"# ")
    for path in ("/runbooks/poison-record/", "/runbooks/poison-record"):
        assert asked.ask(path)[2] == body, "an alert's runbook_url has this form"


def test_the_policy_refuses_what_the_page_does_not_need(asked: Asked) -> None:
    """A mistake in a module must not run the script in a record's key."""
    assert asked.ask("/")[1]["Content-Security-Policy"] == PAGE_POLICY
    assert "default-src 'none'" in PAGE_POLICY
    assert "unsafe" not in PAGE_POLICY
    assert "frame-ancestors 'none'" in PAGE_POLICY


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_parses_text_or_loads_from_elsewhere(path: Path) -> None:
    """Keys, values and names are chosen by the programs that write to an input."""
    text = path.read_text(encoding="utf-8")
    parsing = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    assert not re.search(parsing, text)
    assert not re.search(r"(?:src|href|url\(|import|from)\W{1,4}(?:https?:)?//", text)
    if path.suffix == ".html":
        assert not re.search(r"<script(?![^>]*src=)|<style| style=| on[a-z]+=", text)
