"""Programs in documents: finds the code blocks of a page and imports them as modules."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

__all__ = ["ROOT", "blocks", "blocks_in", "import_program", "sections"]

ROOT = Path(__file__).parents[2]
_SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of a language, without their indentation in the page."""
    return blocks_in(document.read_text(encoding="utf-8"), language)


def blocks_in(text: str, language: str) -> list[str]:
    """Like `blocks`, for a text."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [
        re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
        for indent, name, body in found
        if name == language
    ]


def sections(text: str) -> dict[str, str]:
    """The texts of the sections of a page, by their headings."""
    return dict(_SECTION.findall(text))


def import_program(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import `directory/NAME.py` as the module `name`, until the end of the test."""
    spec = spec_from_file_location(name, directory / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module
