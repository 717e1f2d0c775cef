"""An HTTP server on this machine that passes requests on to another one, and fails them on a schedule."""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_S = 0.2


class FaultyProxy(ThreadingHTTPServer):
    """Answers on 127.0.0.1.

    Attributes:
        fault: what to do to a request, from its method and path: "pass", a status such as "500", or "slow";
            "cut" sends half of the body that was announced, "lost" does what was asked for and answers 500,
            "flip" changes a bit of the body.
        counts: how often each was done.
    """

    daemon_threads = True

    def __init__(self, backend_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend_port = backend_port
        self.counts: Counter[str] = Counter()
        self.fault: Callable[[str, str], str] = lambda method, path: "pass"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}"


def seeded_faults(seed: int) -> Callable[[str, str], str]:
    """A schedule that fails about a quarter of all requests."""
    rng = random.Random(seed)
    lock = threading.Lock()

    def fault(method: str, path: str) -> str:
        with lock:
            return rng.choices(("pass", "500", "slow", "cut"), (75, 15, 5, 5))[0]

    return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement
    server: FaultyProxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = self.server.fault(self.command, self.path)
        self.server.counts[fault] += 1
        if fault.isdecimal():
            self._answer(int(fault), [], b"" if self.command == "HEAD" else b"<Error>injected</Error>")
            return
        if fault == "slow":
            time.sleep(SLOW_S)
        backend = http.client.HTTPConnection("127.0.0.1", self.server.backend_port)
        backend.request(self.command, self.path, body, dict(self.headers))
        answer = backend.getresponse()
        content = answer.read()
        headers = [
            (k, v)
            for k, v in answer.getheaders()
            if k.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server")
        ]
        length = answer.getheader("content-length") if self.command == "HEAD" else None
        backend.close()
        if fault == "lost":
            self._answer(500, [], b"<Error>injected</Error>")
            return
        if fault == "flip" and content:
            content = content[:-1] + bytes([content[-1] ^ 1])
        cut = fault == "cut" and len(content) > 1
        self._answer(answer.status, headers, content, length, cut=cut)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        length: str | None = None,
        *,
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    def log_message(self, *args: object) -> None:
        """Not on the screen."""
