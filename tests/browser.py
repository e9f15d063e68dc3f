"""Drives a real headless Chromium over its debugging pipe, with what Python has.

Two pipes, file descriptors 3 and 4, JSON texts that end in NUL.

Source: chromedevtools.github.io/devtools-protocol; devtools_pipe_handler.cc of Chromium.
"""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
WHY_NOT = "no chromium on this machine: apt-get install chromium"


class Browser:
    """One headless Chromium with one page; a context manager."""

    def __init__(self, profile: Path, *, width: int = 1200, height: int = 800) -> None:
        assert CHROMIUM is not None
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        arguments = (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--disable-background-networking", "--remote-debugging-pipe"),
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
        )
        # Chromium wants its pipes at 3 and 4, wherever ours are: the shell moves them.
        redirect = 'read=$1 write=$2; shift 2; eval "exec \\"\\$@\\" 3<&$read 4>&$write"'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", redirect, "-", str(to_read), str(to_write), CHROMIUM, *arguments],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self.requests: list[str] = []
        """Addresses that the page asked for."""
        self.complaints: list[str] = []
        """Errors and what the console said."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session = None
        try:
            self.call("Browser.close")
        except (OSError, AssertionError):
            self._process.kill()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **parameters: object) -> Any:  # noqa: ANN401 - JSON
        """Call a method of the protocol and return its result."""
        self._last += 1
        request: dict[str, object] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            request["sessionId"] = self._session
        os.write(self._write, json.dumps(request).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == self._last:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message)

    def _receive(self) -> Any:  # noqa: ANN401 - JSON
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 20)
            assert data, "chromium has gone"
            self._buffer += data
        text, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(text)

    def _note(self, message: dict[str, Any]) -> None:
        what, parameters = message.get("method"), message.get("params", {})
        if what == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif what == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif what == "Runtime.consoleAPICalled":
            self.complaints.append(str(parameters["args"]))
        elif what == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])

    def open(self, path: Path) -> float:
        """Open a file, wait until it has drawn itself, and return the seconds that it took."""
        began = time.monotonic()
        self.call("Page.navigate", url=path.as_uri())
        drawn = "document.documentElement.dataset.drawn !== undefined"
        while not (self.evaluate("document.readyState") == "complete" and self.evaluate(drawn)):
            assert time.monotonic() - began < 60, f"nothing was drawn: {self.complaints}"
            time.sleep(0.02)
        return time.monotonic() - began

    def evaluate(self, script: str) -> Any:  # noqa: ANN401 - JSON
        """Return the value of an expression in the page."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def click(self, x: int, y: int) -> None:
        """Click with the mouse."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
