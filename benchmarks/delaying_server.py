"""A bucket that answers late: serves the files of a folder to S3 clients, each request after a fixed delay.

As a process of its own, so that what it computes takes no time from whoever is measured:

    with DelayingServer(folder, delay_s=0.05) as server: ...  # server.url is an endpoint, `cache` its bucket
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

BUCKET = "cache"
_LOG = "/-/log"  # the (begin, end) of every request since the last time this was asked for, in seconds
_RANGE = re.compile(r"bytes=(\d+)-(\d+)", re.IGNORECASE)


class DelayingServer:
    """The server's process; `with` ends it."""

    def __init__(self, folder: Path, delay_s: float) -> None:
        command = [sys.executable, __file__, str(folder), str(delay_s)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def requests(self) -> list[tuple[float, float]]:
        """When each request came and was answered, since the last call."""
        with urllib.request.urlopen(self.url + _LOG) as answer:
            return [tuple(entry) for entry in json.load(answer)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._process.stdout.close()


def round_trips(requests: list[tuple[float, float]]) -> int:
    """The most requests of which each began only after the one before it was answered."""
    count, end = 0, 0.0
    for begun, ended in sorted(requests, key=lambda entry: entry[1]):
        if begun >= end:
            count, end = count + 1, ended
    return count


class _Bucket:
    def __init__(self, folder: Path, delay_s: float) -> None:
        self._folder, self._delay_s = folder, delay_s
        self._log: list[tuple[float, float]] = []

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, path, _ = head.split("\r\n", 1)[0].split(" ")
                begun = time.monotonic()
                if path == _LOG:
                    status, extra, body = "200 OK", "", json.dumps(self._log).encode()
                    self._log = []
                else:
                    await asyncio.sleep(self._delay_s)
                    status, extra, body = self._answer(path, head)
                    self._log.append((begun, time.monotonic()))
                content = b"" if method == "HEAD" else body
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode())
                writer.write(content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, path: str, head: str) -> tuple[str, str, bytes]:
        file = self._folder / path.split("?")[0].removeprefix(f"/{BUCKET}/")
        if not file.is_file():
            return "404 Not Found", "", b"<Error><Code>NoSuchKey</Code></Error>"
        data = file.read_bytes()
        asked = _RANGE.search(head)
        if asked is None:
            return "200 OK", "", data
        start, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        if start >= len(data):
            return "416 Range Not Satisfiable", "", b"<Error><Code>InvalidRange</Code></Error>"
        place = f"Content-Range: bytes {start}-{last}/{len(data)}\r\n"
        return "206 Partial Content", place, data[start : last + 1]


async def _serve(folder: Path, delay_s: float) -> None:
    server = await asyncio.start_server(_Bucket(folder, delay_s).connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), float(sys.argv[2])))
