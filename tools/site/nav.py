"""Completes the navigation of `mkdocs.yml`.

A line `- how-to/*` stands for the pages of that folder that the navigation does not name elsewhere, in the order of
their file names. So a new page is in the site without a change of the configuration.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["expanded"]

_REST = re.compile(r"^( *)- ([\w/-]+)/\*$", re.MULTILINE)


def expanded(config: str, pages: Path) -> str:
    """The text of the configuration, with each `FOLDER/*` replaced by the remaining pages of `pages`/FOLDER.

    Raises:
        SystemExit: A folder has no pages, so its line is a mistake.
    """

    def entries(match: re.Match[str]) -> str:
        indent, folder = match.groups()
        found = [path.relative_to(pages).as_posix() for path in sorted((pages / folder).glob("*.md"))]
        remaining = [page for page in found if not re.search(rf"[ ]{re.escape(page)}$", config, re.MULTILINE)]
        if not found:
            raise SystemExit(f"mkdocs.yml: {folder}/* does not match a page")
        return "\n".join(f"{indent}- {page}" for page in remaining)

    return _REST.sub(entries, config)
