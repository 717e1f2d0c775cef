"""A headless Chromium for tests of pages, spoken to by WebDriver over HTTP: no package is needed for that."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, Self

DRIVER = shutil.which("chromedriver")
REASON = "no chromedriver: apt-get install chromium chromium-driver"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
)


class Browser:
    """One window. Close it by leaving the `with` block.

    Args:
        profile: an empty folder that the browser may write to.
    """

    def __init__(self, profile: Path, width: int = 1280, height: int = 1700) -> None:
        self._driver = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            self._url = f"http://127.0.0.1:{self._port()}/session"
            flags = [*_FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}"]
            asked = {"goog:chromeOptions": {"args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}
            session = self._ask("", {"capabilities": {"alwaysMatch": asked}})
        except BaseException:
            self._end()
            raise
        self._url += f"/{session['sessionId']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("", method="DELETE")
        finally:
            self._end()

    def open(self, page: Path) -> None:
        """Load a file, and wait until it is there."""
        self.messages()  # of an earlier page
        self._ask("/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *args: object) -> Any:
        """What the body of a function returns; `arguments` are the args."""
        return self._ask("/execute/sync", {"script": script, "args": list(args)})

    def set(self, element: str, value: object) -> None:
        """Move a control by its id, as a hand would: with the events of it."""
        self.run(
            "const e = document.getElementById(arguments[0]);"
            "if (e.type === 'checkbox') e.checked = arguments[1];"
            "else if (e.tagName === 'SELECT') e.selectedIndex = arguments[1]; else e.value = arguments[1];"
            "for (const name of ['input', 'change']) e.dispatchEvent(new Event(name, { bubbles: true }));",
            element,
            value,
        )

    def press(self, element: str, key: str) -> None:
        """One key on an element that has the focus."""
        found = self.run("return document.getElementById(arguments[0])", element)
        self._ask(f"/element/{next(iter(found.values()))}/value", {"text": key})

    def text(self, element: str) -> str:
        """What an element says, by its id."""
        return self.run("return document.getElementById(arguments[0]).textContent", element)

    def shows(self, element: str) -> bool:
        """Whether an element takes any room, by its id."""
        return self.run("return document.getElementById(arguments[0]).getClientRects().length > 0", element)

    def texts_that_are_cut(self) -> list[str]:
        """Labels of charts that reach beyond the chart."""
        return self.run(
            "return [...document.querySelectorAll('svg.chart text')].filter((text) => {"
            "const [box, whole] = [text.getBBox(), text.ownerSVGElement.viewBox.baseVal];"
            "return box.x < 0 || box.x + box.width > whole.width + 1; }).map((text) => text.textContent);"
        )

    def messages(self) -> list[str]:
        """What the console was told since it was last asked."""
        return [entry["message"] for entry in self._ask("/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        """The window as a PNG."""
        path.write_bytes(base64.b64decode(self._ask("/screenshot", method="GET")))

    def _port(self) -> int:
        for line in self._driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                return int(found.group(1))
        raise RuntimeError(f"chromedriver ended with {self._driver.wait()}")

    def _ask(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait()
        self._driver.stdout.close()
