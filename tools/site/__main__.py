"""The two steps of `make docs` around the site generator.

python -m tools.site prepare DIRECTORY
python -m tools.site check DIRECTORY
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tools.site.check import problems
from tools.site.links import repository_links_replaced, site_path
from tools.site.nav import expanded
from tools.site.reference import generated_pages

_ROOT = Path(__file__).parents[2]


def main(step: str, directory: Path) -> None:
    """Run one step. `directory` receives the configuration, the pages, and later the site."""
    if step == "prepare":
        _prepare(directory)
    elif step == "check":
        _check(directory / "site")
    else:
        raise SystemExit(__doc__)


def _prepare(directory: Path) -> None:
    """Write all pages below `directory`/pages, and the configuration with the complete navigation."""
    shutil.rmtree(directory, ignore_errors=True)
    pages = directory / "pages"
    for source in _sources():
        place = site_path(source.relative_to(_ROOT))
        if place is None:
            raise SystemExit(f"{source} does not have a place in the site")
        target = pages / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            text = source.read_text(encoding="utf-8")
            target.write_text(repository_links_replaced(text, source, _ROOT), encoding="utf-8")
        else:
            shutil.copyfile(source, target)
    for name, text in generated_pages(pages).items():
        target = pages / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    config = (_ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (directory / "mkdocs.yml").write_text(expanded(config, pages), encoding="utf-8")


def _sources() -> list[Path]:
    """Every document of the repository that has a page, and the files that pages show."""
    found = [*_ROOT.glob("*.md"), _ROOT / "examples" / "README.md", *(_ROOT / "runbooks").glob("*.md")]
    return sorted([*found, *(path for path in (_ROOT / "docs").rglob("*") if path.is_file())])


def _check(site: Path) -> None:
    found = problems(site)
    for problem in found:
        print(problem, file=sys.stderr)  # noqa: T201 - a command's output
    if found:
        raise SystemExit(f"the site at {site} has {len(found)} problems")
    count = sum(1 for _ in site.rglob("*.html"))
    print(f"{count} pages in {site}; they load nothing from other hosts")  # noqa: T201 - a command's output


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
