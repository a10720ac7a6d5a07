"""Drives headless Chromium through the DevTools protocol over two pipes, without any library.

For tests, apt installs Chromium if it is missing (`open_browser`). Without it, they are skipped; on CI they fail.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.debian import UnavailableError, give_up, install_packages

__all__ = ["Page", "open_browser", "started_browser"]

DEADLINE_S = 60.0
_POLL_S = 0.1
_OPTIONS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-pipe",
        "--mute-audio",
        "--no-first-run",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars"),
)


class Page:
    """One tab. Every wait has a deadline.

    `console`: the errors, warnings and exceptions of the page, and the requests that its policy has refused.
    """

    def __init__(self, sent: int, received: int) -> None:
        self._sent = sent
        self._received = received
        self._buffer = b""
        self._messages: deque[dict[str, Any]] = deque()
        self._number = 0
        self._session = ""
        self.console: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._number += 1
        request: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._sent, json.dumps(request).encode() + b"\0")
        deadline = time.monotonic() + DEADLINE_S
        while True:
            message = self._next(deadline, method)
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self._take(message)

    def window(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Set the size of the window, and the colour scheme that the reader prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression, which may be a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true, and return its value."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            # Before the page is there, parts of the expression are missing.
            found = self.value(f"(() => {{ try {{ return ({expression}); }} catch {{ return null; }} }})()")
            if found:
                return found
            if time.monotonic() > deadline:
                shown = self.value("document.body.innerText")
                raise AssertionError(f"never true: {expression}\nconsole: {self.console}\n{shown}")
            time.sleep(_POLL_S)

    def text(self, selector: str) -> str:
        """The text of an element as the reader sees it."""
        return str(self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        """Click an element, which must be there."""
        assert self.value(f"(document.querySelector({json.dumps(selector)})?.click(), true)")

    def press(self, key: str) -> None:
        """Press and release a key, such as ArrowRight, Enter or Tab."""
        codes = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38}
        about: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        if key == "Enter":
            about["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def overflow(self) -> int:
        """How many pixels the page is wider than its window."""
        return int(self.value("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def screenshot(self, path: Path, *, until: str = "", margin: int = 16) -> None:
        """Write a picture of the whole page, or of its part until `margin` pixels below an element."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        high = size["height"]
        if until:
            bottom = f"document.querySelector({json.dumps(until)}).getBoundingClientRect().bottom + scrollY"
            high = min(high, round(self.value(bottom)) + margin)
        clip = {"x": 0, "y": 0, "width": size["width"], "height": high, "scale": 1}
        taken = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _next(self, deadline: float, what: str) -> dict[str, Any]:
        while not self._messages:
            ready, _, _ = select.select([self._received], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"Chromium did not answer {what} in {DEADLINE_S:.0f} s"
            data = os.read(self._received, 1 << 20)
            assert data, f"Chromium has ended during {what}"
            *whole, self._buffer = (self._buffer + data).split(b"\0")
            self._messages.extend(json.loads(each) for each in whole)
        return self._messages.popleft()

    def _take(self, message: dict[str, Any]) -> None:
        """Keep what belongs on the console of the developer."""
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                self.console.append(
                    " ".join(str(each.get("value", each.get("description"))) for each in params["args"])
                )
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.console.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                entry = params["entry"]
                self.console.append(f"{entry['text']} {entry.get('url', '')}")


@contextmanager
def open_browser(directory: Path) -> Iterator[Page]:
    """A new browser with one tab for a test, and its profile in a directory."""
    try:
        install_packages(["chromium"])
    except UnavailableError as error:
        give_up(error)
    with started_browser(directory) as page:
        yield page


@contextmanager
def started_browser(directory: Path) -> Iterator[Page]:
    """Like `open_browser`, with Chromium installed."""
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()

    def as_descriptors() -> None:
        # Chromium reads commands from 3 and writes answers to 4. First out of the way, because each may have either.
        reads, writes = os.dup(theirs_in), os.dup(theirs_out)
        while min(reads, writes) <= 4:
            reads, writes = os.dup(reads), os.dup(writes)
        os.dup2(reads, 3)
        os.dup2(writes, 4)

    process = subprocess.Popen(
        [shutil.which("chromium") or "chromium", *_OPTIONS, f"--user-data-dir={directory / 'profile'}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=as_descriptors,  # noqa: PLW1509 - no other thread has a lock
        close_fds=False,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours_in)
        os.close(ours_out)
