"""A real browser for tests: Chromium without a window, driven through its own protocol over two pipes.

Keys are pressed as a person presses them, downloads land in a folder, and every address that is asked for is noted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_WAIT = 60.0  # seconds until a hang is an error; nothing here measures time
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Browser:
    """One page. `asked` holds every address that was asked for, `errors` what its script complained about."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._left, self._number, self._session = to, back, b"", 0, ""
        self.asked: list[str] = []
        self.errors: list[str] = []

    def attach(self, downloads: Path) -> None:
        page = next(target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page")
        found = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        behaviour = {"behavior": "allow", "downloadPath": str(downloads), "eventsEnabled": True}
        self.call("Browser.setDownloadBehavior", **behaviour)
        self._session = found["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            block = os.read(self._back, 1 << 20)
            assert block, "the browser is gone"
            self._left += block
        line, self._left = self._left.split(b"\0", 1)
        said: dict[str, Any] = json.loads(line)
        params = said.get("params", {})
        match said.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"][:200])  # data: holds all of itself
            case "Runtime.exceptionThrown":
                self.errors.append(params["exceptionDetails"]["text"])
            case "Log.entryAdded":
                self.errors.append(params["entry"]["text"])
        return said

    def open(self, page: Path) -> None:
        self.call("Page.navigate", url=page.as_uri())
        self.until("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression is worth in the page, as JSON."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        end = time.monotonic() + _WAIT
        while not self.value(expression):
            assert time.monotonic() < end, f"never came true: {expression}"
            time.sleep(0.02)

    def press(self, key: str, *, modifiers: int = 0, repeat: bool = False) -> None:
        """Press and release a key, as a person does. `modifiers`: 1 alt, 2 ctrl, 4 meta."""
        common = {"key": key, "modifiers": modifiers}
        if modifiers:
            self.call("Input.dispatchKeyEvent", type="rawKeyDown", **common)
        else:
            self.call("Input.dispatchKeyEvent", type="keyDown", text=key, autoRepeat=repeat, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        element = f"const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
        middle = "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2];"
        place = self.value(f"(() => {{ {element} {middle} }})()")
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1, buttons=1
            )


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile and downloads lie in `folder`; skips the test where there is none."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser on this machine; install one of {', '.join(_NAMES)}")
    (folder / "profile").mkdir(parents=True)
    (folder / "downloads").mkdir()
    read_commands, to = os.pipe()
    back, write_answers = os.pipe()
    options = "--headless=new --remote-debugging-pipe --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage"
    options += " --disable-background-networking --disable-component-update --window-size=1400,1000"
    command = f'exec "$0" {options} --user-data-dir="$1" about:blank 3<&{read_commands} 4>&{write_answers}'
    process = subprocess.Popen(
        ["/bin/bash", "-c", command, program, str(folder / "profile")],
        pass_fds=(read_commands, write_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )
    os.close(read_commands)
    os.close(write_answers)
    seen = Browser(to, back)
    try:
        seen.attach(folder / "downloads")
        yield seen
    finally:
        os.close(to)
        os.close(back)
        process.terminate()
        process.wait(_WAIT)
