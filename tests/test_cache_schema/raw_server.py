"""An HTTP server on this machine that answers as a test says, however wrong that is."""

import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, Mapping[str, str], Iterable[bytes]]


class RawServer(ThreadingHTTPServer):
    """Answers on 127.0.0.1 until it is closed.

    Args:
        answer: (status, headers, pieces of the body) from method, path and headers of a request. Without a
            Content-Length the connection is closed after the body.
        certificate: file with key and certificate, to speak TLS.

    Attributes:
        seen: (method, path, headers) of every request.
    """

    daemon_threads = True

    def __init__(
        self, answer: Callable[[str, str, Mapping[str, str]], Answer], certificate: str | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self._scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self._scheme = "https"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, host: str = "127.0.0.1") -> str:
        """Where it answers."""
        return f"{self._scheme}://{host}:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RawServer

    def _handle(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers))
        status, extra, body = self.server.answer(self.command, self.path, headers)
        self.send_response(status)
        for name, value in extra.items():
            self.send_header(name, value)
        self.close_connection = "Content-Length" not in extra
        self.end_headers()
        if self.command != "HEAD":
            for piece in body:
                self.wfile.write(piece)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle

    def log_message(self, *args: object) -> None:
        """Not on the screen."""
