"""The files of the page: `page_routes`. They are read once, at the start.

The files have a directory that is named by their content, so browsers may keep them forever. The page itself is asked
for again each time. It has no inline script or style, and loads nothing from other hosts.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from http import HTTPStatus
from pathlib import Path

from pipeline.http.application import Answer, Request, Route, failed
from pipeline.installation import runbooks_dir

__all__ = ["PAGE_POLICY", "page_routes"]

_FILES = Path(__file__).with_name("page")
_INDEX = "index.html"
_PLACE = b"ASSETS/"  # in the page, before the name of a file
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_routes() -> Mapping[str, Route]:
    """The page, its files, and the runbooks that it links. None of them is about an app, so none needs a token."""
    files = {path.name: path.read_bytes() for path in sorted(_FILES.iterdir()) if path.suffix in _TYPES}
    digest = blake2b(digest_size=8)
    for name, content in files.items():
        digest.update(name.encode() + content)
    place = f"assets/{digest.hexdigest()}/"
    index = (_FILES / _INDEX).read_bytes().replace(_PLACE, place.encode())
    etag = f'"{blake2b(index, digest_size=8).hexdigest()}"'
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": PAGE_POLICY,
        "ETag": etag,
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }

    def page(request: Request) -> Answer:
        if etag in request.if_none_match:
            return Answer(b"", "text/html; charset=utf-8", HTTPStatus.NOT_MODIFIED, headers)
        return Answer(index, "text/html; charset=utf-8", HTTPStatus.OK, headers)

    def asset(request: Request) -> Answer:
        name = request.path.removeprefix(f"/{place}")
        if name not in files:
            return failed(HTTPStatus.NOT_FOUND, "there is no such file", "reload the page")
        kept = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Answer(files[name], _TYPES[Path(name).suffix], HTTPStatus.OK, kept)

    return {
        "/": Route(page, open=True),
        "/assets/": Route(asset, open=True),
        "/runbooks/": Route(_runbook, open=True),
    }


def _runbook(request: Request) -> Answer:
    pages = {path.name: path for path in runbooks_dir().glob("*.md")}
    page = pages.get(request.path.removeprefix("/runbooks/"))
    if page is None:
        return failed(HTTPStatus.NOT_FOUND, "there is no such runbook", "list all runbooks: pipeline runbook")
    return Answer(page.read_bytes(), "text/plain; charset=utf-8")
