"""The page of a report in headless Chromium, which apt installs if need be (make test-browser)."""

from __future__ import annotations

import re
import subprocess
from html import escape
from pathlib import Path

import pytest

from pipeline.drills.page import page_of
from pipeline.drills.report import Report
from tests.support.debian import UnavailableError, give_up, install_packages
from tests.support.drills.reports import broken_report, held_report

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

# The page in a frame of the width of a phone, which a window cannot have, and what the browser has made of it.
_FRAME = """<!doctype html><iframe style="width:{width}px;height:2000px;border:0" srcdoc="{page}"></iframe>
<script>
window.onload = () => {{
  const inside = document.querySelector("iframe").contentDocument;
  const body = inside.documentElement;
  document.documentElement.dataset.wide = body.scrollWidth - {width};
  document.documentElement.dataset.bars = inside.querySelectorAll(".track i").length;
  document.documentElement.dataset.font = inside.defaultView.getComputedStyle(inside.body).fontSize;
}};
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    """The command of Chromium, installed if it was not. Without it tests are skipped; on CI they fail."""
    try:
        install_packages(["chromium"])
    except UnavailableError as error:
        give_up(error)
    return "chromium"


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("report", [held_report(), broken_report()], ids=lambda report: report.verdict)
def test_the_page_fits_its_window_without_errors(
    report: Report, width: int, browser: str, tmp_path: Path
) -> None:
    """A page that must be scrolled sideways is not read on a phone."""
    file = tmp_path / "frame.html"
    file.write_text(_FRAME.format(width=width, page=escape(page_of(report))), encoding="utf-8")
    shown = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--window-size=1400,2100",
            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    )  # fmt: skip
    found = dict(
        re.findall(r'data-(wide|bars|font)="([^"]*)"', shown.stdout.partition(">")[2].partition("<head")[0])
    )
    found = found or dict(re.findall(r'data-(wide|bars|font)="([^"]*)"', shown.stdout))
    assert found.get("font") == "15px", shown.stderr  # the style sheet is in use
    assert int(found["wide"]) <= 0
    assert int(found["bars"]) == 5
    assert "CONSOLE" not in shown.stderr
