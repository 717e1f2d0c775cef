"""A bucket on this machine, whose objects are files, and a server that may fail or lie about it.

Enough of S3 for one store: GET with ranges, HEAD, PUT with If-None-Match, DELETE and listings.
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "chaos"
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
}


class FolderBucket(ThreadingHTTPServer):
    """Answers on 127.0.0.1, and says so to this process and its children.

    Attributes:
        folder: where the objects lie, below the name of the bucket.
        fault: what to do to a request, from its method and key; see `FAULTS`.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.fault: Callable[[str, str], str] = lambda method, key: ""
        self.lock = threading.Lock()
        (folder / BUCKET).mkdir(parents=True)
        os.environ |= _ENVIRONMENT | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_address[1]}"}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients are killed here."""


FAULTS = ("500", "503", "lost", "cut", "slow", "flipped", "shorter", "gone", "403", "partial listing", "html")
PASSING = ("500", "503", "lost", "cut", "slow")


def schedule(fault: str, share: float, seed: int, *, times: int | None = None) -> Callable[[str, str], str]:
    """That fault for a share of the requests; at most `times` in all."""
    rng, lock, left = random.Random(seed), threading.Lock(), [times]

    def chosen(method: str, key: str) -> str:
        with lock:
            if left[0] == 0 or rng.random() >= share:
                return ""
            if left[0] is not None:
                left[0] -= 1
            return fault

    return chosen


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FolderBucket

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        address = urlsplit(self.path)
        key = unquote(address.path).lstrip("/")
        fault = self.server.fault(self.command, key)
        if fault in ("500", "503", "403"):
            self._answer(int(fault), b"<Error>injected</Error>")
        elif fault == "html":
            self._answer(200, b"<html>log in first</html>")
        elif fault == "gone":
            self._answer(404)
        else:
            if fault == "slow":
                time.sleep(0.02)
            status, content, headers = self._done(key, parse_qs(address.query), body, fault)
            if fault == "lost":
                self._answer(500, b"<Error>injected</Error>")
            else:
                self._answer(status, *_spoiled(content, fault), headers)

    do_GET = do_PUT = do_HEAD = do_DELETE = _handle

    def _done(
        self, key: str, query: dict[str, list[str]], body: bytes, fault: str
    ) -> tuple[int, bytes, dict[str, str]]:
        path = self.server.folder / key
        if "list-type" in query:
            return 200, self._listing(query, partial=fault == "partial listing"), {}
        if self.command == "PUT":
            return (self._put(path, body), b"", {})
        if self.command == "DELETE":
            path.unlink(missing_ok=True)
            return 204, b"", {}
        try:
            data = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return 404, b"", {}
        wanted = self.headers.get("range")
        if wanted is None:
            return 200, data, {}
        first, last = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
        headers = {"Content-Range": f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"}
        return 206, data[first : last + 1], headers

    def _put(self, path: Path, body: bytes) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.server.folder, delete=False) as file:
            file.write(body)
        with self.server.lock:  # an object is there whole or not at all
            if self.headers.get("if-none-match") and path.exists():
                os.unlink(file.name)
                return 412
            os.replace(file.name, path)
        return 200

    def _listing(self, query: dict[str, list[str]], *, partial: bool) -> bytes:
        prefix = query["prefix"][0]
        root = self.server.folder / BUCKET
        keys = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
        keys = [key for key in keys if key.startswith(prefix)]
        if partial:
            keys = keys[len(keys) // 2 :]
        if "delimiter" not in query:
            items = [f"<Contents><Key>{escape(key)}</Key></Contents>" for key in keys]
        else:
            names = {key[len(prefix) :].partition("/")[::2] for key in keys}
            files = sorted({name for name, rest in names if not rest})
            folders = sorted({name for name, rest in names if rest})
            items = [f"<Contents><Key>{escape(prefix + name)}</Key></Contents>" for name in files]
            items += [
                f"<CommonPrefixes><Prefix>{escape(prefix + n)}/</Prefix></CommonPrefixes>" for n in folders
            ]
        return f"<ListBucketResult>{''.join(items)}</ListBucketResult>".encode()

    def _answer(
        self,
        status: int,
        content: bytes = b"",
        announced: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if announced is None else announced))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.close_connection = self.close_connection or announced not in (None, len(content))

    def log_message(self, *args: object) -> None:
        """Not on the screen."""


def _spoiled(content: bytes, fault: str) -> tuple[bytes, int | None]:
    """What is sent of a body, and how long it is said to be."""
    if fault == "cut" and len(content) > 1:
        return content[: len(content) // 2], len(content)
    if fault == "shorter" and content:
        return content[:-1], None
    if fault == "flipped" and content:
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :], None
    return content, None
