"""A headless Chromium driven through the DevTools protocol: enough to draw on a page and read it back."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--window-size=900,900",
)


def find_browser() -> str | None:
    """Path of a Chromium-like browser (the variable CHROMIUM goes first), or None."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page. Use as a context manager."""

    def __init__(self, folder: Path):
        import websocket  # comes with JupyterLab's server

        self.log = open(folder / "chromium.log", "wb")
        self.process = subprocess.Popen(
            [find_browser(), *FLAGS, f"--user-data-dir={folder}", "about:blank"], stdout=self.log, stderr=self.log
        )
        try:
            port = self._port(folder / "DevToolsActivePort")
            pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=20))
            address = next(p["webSocketDebuggerUrl"] for p in pages if p["type"] == "page")
            self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        except BaseException:
            self.process.kill()
            raise
        self.ids, self.errors = itertools.count(1), []
        self.call("Runtime.enable")
        self.call("Page.enable")

    def _port(self, path: Path) -> int:
        for _ in range(600):
            if self.process.poll() is not None:
                raise RuntimeError(f"the browser ended ({self.process.returncode}): see {self.log.name}")
            if path.exists() and "\n" in (text := path.read_text()):
                return int(text.split("\n")[0])
            time.sleep(0.1)
        raise TimeoutError("the browser did not open its DevTools port within a minute")

    def call(self, method: str, **params) -> dict:
        """Send a command, return its result; uncaught exceptions of the page gather in ``errors``."""
        number = next(self.ids)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"])
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def run(self, script: str):
        """The value of a JavaScript expression (promises are awaited)."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script[:200]}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 20):
        """Wait until an expression is truthy; returns its value."""
        for _ in range(int(seconds * 20)):
            if value := self.run(script):
                return value
            time.sleep(0.05)
        raise TimeoutError(f"never true: {script}")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def mouse(self, kind: str, x: float, y: float, **more) -> None:
        buttons = {} if kind == "mouseReleased" else {"buttons": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1, **{**buttons, **more})

    def drag(self, points: list[tuple], **more) -> None:
        """Press at the first point (x, y[, force]), move through the rest, release."""

        def extra(point):
            return {"force": point[2], **more} if len(point) > 2 else more

        self.mouse("mousePressed", *points[0][:2], **extra(points[0]))
        for point in points[1:]:
            self.mouse("mouseMoved", *point[:2], **extra(point))
        self.mouse("mouseReleased", *points[-1][:2], **more)

    def touch(self, points: list[tuple[float, float]]) -> None:
        """One finger along the points."""
        for i, (x, y) in enumerate(points):
            self.call(
                "Input.dispatchTouchEvent",
                type="touchStart" if i == 0 else "touchMove",
                touchPoints=[{"x": x, "y": y, "id": 1}],
            )
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def key(self, key: str, code: str = "", modifiers: int = 0, text: str = "") -> None:
        """modifiers: 1 alt, 2 control, 4 meta, 8 shift."""
        virtual = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, " ": 32, "Delete": 46}
        number = virtual.get(key, ord(key.upper()) if len(key) == 1 else 0)
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=code or key,
                modifiers=modifiers,
                windowsVirtualKeyCode=number,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_) -> None:
        try:
            self.socket.close()
        finally:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
            self.log.close()
