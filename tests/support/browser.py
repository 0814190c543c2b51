"""A real browser, without a window: Chromium by its debugging protocol over a pipe.

Nothing is put into the page: its own policy, which forbids scripts, stays in force, and what it refuses is seen.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--remote-debugging-pipe", "--force-device-scale-factor=1"),
)

Raw = dict[str, Any]


def program() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class BrowserError(AssertionError):
    """The browser ended, did not answer, or says that something cannot be done."""


@dataclass
class Page:
    browser: Browser
    session: str
    requests: list[str] = field(default_factory=list)
    """URLs that the page asked for, its own one first."""
    complaints: list[str] = field(default_factory=list)
    """Of the console, of the policy, and exceptions."""

    def evaluate(self, expression: str) -> Any:
        told = self.browser.ask("Runtime.evaluate", self, expression=expression, returnByValue=True)
        if "exceptionDetails" in told:
            raise BrowserError(str(told["exceptionDetails"]))
        return told["result"].get("value")

    def show(self, *, width: int, height: int, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.ask("Emulation.setDeviceMetricsOverride", self, **size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.browser.ask("Emulation.setEmulatedMedia", self, features=scheme)

    def picture(self) -> bytes:
        """PNG of what is in view."""
        return base64.b64decode(self.browser.ask("Page.captureScreenshot", self, format="png")["data"])


class Browser:
    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        self._process, self._write, self._read = process, write, read
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._pages: dict[str, Page] = {}

    def open(self, path: Path) -> Page:
        """The page, loaded."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable", page)
        self.ask("Page.navigate", page, url=path.as_uri())
        deadline = time.monotonic() + SECONDS
        while page.evaluate("document.readyState + location.protocol") != "completefile:":
            if time.monotonic() > deadline:
                raise BrowserError(f"{path} is not loaded after {SECONDS} s")
        return page

    def ask(self, method: str, page: Page | None = None, /, **parameters: Any) -> Raw:
        number = next(self._numbers)
        message: Raw = {"id": number, "method": method, "params": parameters}
        if page is not None:
            message["sessionId"] = page.session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == number:
                if "error" in told:
                    raise BrowserError(f"{method}: {told['error']['message']}")
                return dict(told["result"])
            self._hear(told)

    def _next(self) -> Raw:
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            if not data:
                raise BrowserError(f"the browser ended or is silent (exit code {self._process.poll()})")
            self._buffer += data
        first, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(first))

    def _hear(self, event: Raw) -> None:
        page, told = self._pages.get(event.get("sessionId", "")), event.get("params", {})
        if page is None:
            return
        if event["method"] == "Network.requestWillBeSent":
            page.requests.append(told["request"]["url"])
        elif event["method"] == "Log.entryAdded":
            page.complaints.append(told["entry"]["text"])
        elif event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            page.complaints.append(json.dumps(told))


@contextmanager
def running(directory: Path) -> Iterator[Browser]:
    """`directory` takes its profile. Raises BrowserError where there is no browser."""
    found = program()
    if found is None:
        raise BrowserError(f"none of {', '.join(NAMES)} is on PATH")
    (its_read, write), (read, its_write) = os.pipe(), os.pipe()
    line = f'exec "$@" 3<&{its_read} 4>&{its_write}'
    words = ["bash", "-c", line, "browser", found, *OPTIONS, f"--user-data-dir={directory}", "about:blank"]
    process = subprocess.Popen(
        words, pass_fds=(its_read, its_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(its_read)
    os.close(its_write)
    browser = Browser(process, write, read)
    try:
        yield browser
    finally:
        os.write(write, b'{"id": 0, "method": "Browser.close"}\0')
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(write)
        os.close(read)
