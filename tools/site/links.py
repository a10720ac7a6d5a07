"""Where each document of the repository is in the site, and its links rewritten to match.

Documents link to each other by their paths in the repository, so that they can be read there. The site has another
layout: `docs/` is its root, and documents of the repository's root and the gallery of examples become pages. A link to
a file that is not a page, such as a source file, becomes plain text.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path

__all__ = ["repository_links_replaced", "site_path"]

_OTHER_DOCUMENTS = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "concepts/architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}
_FENCED = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def site_path(path: Path) -> Path | None:
    """The place in the site of a file, both relative to their roots; None if the site does not have the file.

    A directory's page is its `index.md`.
    """
    if path.as_posix() in _OTHER_DOCUMENTS:
        return Path(_OTHER_DOCUMENTS[path.as_posix()])
    place = path if path.suffix else path / "index.md"
    if path.parts[:1] == ("docs",):
        return Path(*place.parts[1:])
    return place if path.parts[:1] == ("runbooks",) else None


def repository_links_replaced(text: str, source: Path, root: Path) -> str:
    """The Markdown `text` of the file `source`, with links that are right in the site.

    Raises:
        SystemExit: A link leads to a file that does not exist.
    """
    own = site_path(source.relative_to(root))

    def replaced(match: re.Match[str]) -> str:
        label, target = match.groups()
        name, hash_mark, anchor = target.partition("#")
        if not name or "://" in name or name.startswith("mailto:"):
            return match[0]
        linked = Path(os.path.normpath(source.parent / name))
        if not linked.exists() or not linked.is_relative_to(root):
            raise SystemExit(f"{source}: the link to {target} leads to nothing in the repository")
        place = site_path(linked.relative_to(root))
        if place is None or own is None:
            return label
        return f"[{label}]({os.path.relpath(place, own.parent)}{hash_mark}{anchor})"

    parts = _FENCED.split(text)
    return "".join(part if at % 2 else _LINK.sub(replaced, part) for at, part in enumerate(parts))
