"""A headless Chromium, driven by the W3C WebDriver protocol; Debian has both."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1100,1400",
)  # fmt: skip
_AXE = files("axe_core_python").joinpath("axe.min.js")
_AUDIT = """
const done = arguments[arguments.length - 1];
axe.run().then(({violations}) => done(violations
  .filter(({impact}) => impact === "serious" || impact === "critical")
  .flatMap(({id, nodes}) => nodes.map((node) => `${id}: ${node.html} ${node.failureSummary}`))));
"""
_KEYS = {
    "Tab": "\ue004", "Enter": "\ue007", "ArrowLeft": "\ue012", "ArrowUp": "\ue013",
    "ArrowRight": "\ue014", "ArrowDown": "\ue015",
}  # fmt: skip
"""Keys in the form of WebDriver: https://www.w3.org/TR/webdriver2/#keyboard-actions"""


def why_no_browser() -> str:
    """Why there is none here; empty where there is one."""
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"needs Debian's {' and '.join(lacking)}" if lacking else ""


@dataclass(frozen=True)
class Browser:
    """One window.

    Attributes:
        session: URL of the session.
        http: To its driver.
    """

    session: str
    http: httpx.Client

    def open(self, url: str) -> None:
        """Load a page; complaints of the one before are forgotten."""
        self.complaints()
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: JsonValue) -> JsonValue:
        """Run JavaScript in the page; answers what it returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def later(self, script: str, *arguments: JsonValue) -> JsonValue:
        """Run JavaScript; answers what it gives to its last argument, a function."""
        return self._ask("POST", "/execute/async", {"script": script, "args": list(arguments)})

    def all(self, selector: str) -> list[str]:
        """Elements by CSS."""
        found = self._ask("POST", "/elements", {"using": "css selector", "value": selector})
        assert isinstance(found, list)
        return [str(each[_ELEMENT]) for each in found if isinstance(each, dict)]

    def one(self, selector: str) -> str:
        """The one element of a selector."""
        found = self.all(selector)
        assert len(found) == 1, (selector, len(found))
        return found[0]

    def text(self, selector: str) -> str:
        """What one element shows."""
        return str(self._ask("GET", f"/element/{self.one(selector)}/text"))

    def type(self, selector: str, text: str) -> None:
        """Type into a field, or choose a file for it."""
        self._ask("POST", f"/element/{self.one(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        """Click on an element."""
        self._ask("POST", f"/element/{self.one(selector)}/click", {})

    def download(self, selector: str, path: Path) -> None:
        """Click on a link, and wait until its file is there under the name that the link has."""
        path.parent.mkdir(exist_ok=True)
        where: dict[str, JsonValue] = {"behavior": "allow", "downloadPath": str(path.parent)}
        self._chrome("Browser.setDownloadBehavior", where)
        self.click(selector)
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline, [*path.parent.iterdir()]
            time.sleep(0.05)

    def until(self, script: str, *, within_s: float = 60) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + within_s
        while not self.run(f"return {script}"):
            assert time.monotonic() < deadline, script
            time.sleep(0.05)

    def picture(self, path: Path) -> None:
        """Take a picture of the window."""
        path.write_bytes(base64.b64decode(str(self._ask("GET", "/screenshot"))))

    def shape(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """Give the window a size and a colour scheme; a narrow one is that of a phone."""
        device: dict[str, JsonValue] = {
            "width": width,
            "height": height,
            "deviceScaleFactor": 1,
            "mobile": width < 600,
        }
        self._chrome("Emulation.setDeviceMetricsOverride", device)
        scheme: JsonValue = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._chrome("Emulation.setEmulatedMedia", {"features": [scheme]})

    def press(self, *keys: str) -> None:
        """Press keys one after another, where the focus is; `Tab`, `Enter`, `ArrowLeft`, `+`."""
        actions: list[JsonValue] = [
            {"type": kind, "value": _KEYS.get(key, key)}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        board: JsonValue = {"type": "key", "id": "k", "actions": actions}
        self._ask("POST", "/actions", {"actions": [board]})

    def point(self, selector: str, x: float, y: float, *, press: bool = False) -> None:
        """Move the pointer to a place of an element, given from its middle; and press it there."""
        self.run(
            "document.querySelector(arguments[0])"
            ".scrollIntoView({block: 'center', behavior: 'instant'})",
            selector,
        )
        origin: JsonValue = {_ELEMENT: self.one(selector)}
        move: JsonValue = {"type": "pointerMove", "origin": origin, "x": round(x), "y": round(y)}
        actions: list[JsonValue] = [move]
        if press:
            actions += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        mouse: JsonValue = {"type": "pointer", "id": "m", "actions": actions}
        self._ask("POST", "/actions", {"actions": [mouse]})

    def audit(self) -> list[str]:
        """The serious and critical findings of axe in the page: rule and element."""
        self.run(_AXE.read_text(encoding="utf-8"))
        found = self.later(_AUDIT)
        assert isinstance(found, list)
        return [str(each) for each in found]

    def _chrome(self, command: str, parameters: dict[str, JsonValue]) -> JsonValue:
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def complaints(self) -> list[str]:
        """What the console was told of: errors of scripts, refusals of the page's policy."""
        told = self._ask("POST", "/se/log", {"type": "browser"})
        assert isinstance(told, list)
        return [str(each["message"]) for each in told if isinstance(each, dict)]

    def _ask(self, method: str, path: str, body: dict[str, JsonValue] | None = None) -> JsonValue:
        answer = self.http.request(method, self.session + path, json=body)
        value: JsonValue = answer.json()["value"]
        assert answer.status_code == 200, value
        return value


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser; it is gone at the end."""
    with (
        tempfile.TemporaryDirectory() as profile,
        subprocess.Popen(
            [shutil.which("chromedriver") or "chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as driver,
    ):
        try:
            yield from _session(_port_of(driver), profile)
        finally:
            driver.terminate()


def _port_of(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None
    for line in driver.stdout:
        if found := re.search(r"started successfully on port (\d+)", line):
            return found[1]
    raise AssertionError("chromedriver did not start")


def _session(port: str, profile: str) -> Iterator[Browser]:
    options = {"args": [*_ARGUMENTS, f"--user-data-dir={profile}"]}
    wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "WARNING"}}
    with httpx.Client(trust_env=False, timeout=60) as http:
        place = f"http://127.0.0.1:{port}/session"
        made = http.post(place, json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
        session = f"{place}/{made['sessionId']}"
        try:
            yield Browser(session, http)
        finally:
            http.delete(session)
