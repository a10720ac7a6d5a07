"""Checks that a built site loads nothing from other hosts.

The site must work without a network, and must not tell a third party who reads it. Links that a reader clicks may
lead anywhere; scripts, styles, fonts, pictures and frames must come from the site itself.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

__all__ = ["problems"]

_LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
_CLICKED_RELATIONS = frozenset({"canonical", "next", "prev", "alternate"})
_CSS_ADDRESS = re.compile(r"""(?:url\(|@import\s)\s*["']?((?:https?:)?//[^"')\s]+)""")


def problems(site: Path) -> list[str]:
    """One line for each thing that a page or a style sheet of `site` loads from another host."""
    found = []
    for page in sorted(site.rglob("*.html")):
        parser = _Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        found += [f"{page.relative_to(site)}: loads {address}" for address in parser.foreign]
    for sheet in sorted(site.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        found += [f"{sheet.relative_to(site)}: loads {address}" for address in _CSS_ADDRESS.findall(text)]
    return found


class _Loads(HTMLParser):
    """Collects what a browser fetches from other hosts while it shows the page."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        addresses = [given.get(_LOADED.get(tag, ""), "")]
        addresses += [entry.strip().split(" ")[0] for entry in given.get("srcset", "").split(",")]
        addresses += _CSS_ADDRESS.findall(given.get("style", ""))
        if tag == "link" and not set(given.get("rel", "").split()) & _CLICKED_RELATIONS:
            addresses.append(given.get("href", ""))
        self.foreign += [address for address in addresses if re.match(r"(https?:)?//", address)]
        if "mermaid" in given.get("class", "").split():
            self.foreign.append(
                "the mermaid script, which the theme takes from a CDN; draw the diagram as text or SVG"
            )
