"""Stands between a client and an S3 server: counts what is asked for, and cuts, spoils or holds answers."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Gate(ThreadingHTTPServer):
    """``gets`` has the object names (bucket first) of every GET, in order; ``ranges`` its Range headers."""

    daemon_threads = True

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(server).netloc
        self.gets: list[str] = []
        self.ranges: list[str | None] = []
        self.cut = self.flip = self.refuse = 0  # how many of the next answers are cut half way, spoilt, or 503
        self.pass_first: int | None = None  # how many objects are let through; the others wait for ``open``
        self.full = threading.Event()  # set when the first one has to wait
        self.open = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gate

    def do_GET(self) -> None:
        name = unquote(self.path.partition("?")[0]).strip("/")
        gate = self.server
        is_object = self.command == "GET" and "/" in name and "list-type" not in self.path
        cut = flip = refuse = False
        if is_object:
            with gate.lock:
                gate.gets.append(name)
                gate.ranges.append(self.headers.get("Range"))
                wait = gate.pass_first is not None and len(gate.gets) > gate.pass_first
                cut, flip, refuse = gate.cut > 0, gate.flip > 0, gate.refuse > 0
                gate.cut, gate.flip, gate.refuse = gate.cut - cut, gate.flip - flip, gate.refuse - refuse
            if wait:
                gate.full.set()
                gate.open.wait(60)
        upstream = http.client.HTTPConnection(gate.upstream, timeout=30)
        upstream.request(self.command, self.path, headers=dict(self.headers))
        answer = upstream.getresponse()
        body = answer.read()
        upstream.close()
        self.send_response(503 if refuse else answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("transfer-encoding", "connection", "server", "date"):
                self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if flip:
            body = bytes([body[0] ^ 1]) + body[1:]
        try:
            self.wfile.write(body[: len(body) // 2] if cut else body)
        except (BrokenPipeError, ConnectionResetError):  # the client was killed
            self.close_connection = True
        if cut:
            self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def gate_before(server: str) -> Iterator[Gate]:
    with Gate(server) as gate:
        thread = threading.Thread(target=gate.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield gate
        gate.open.set()
        gate.shutdown()
        thread.join()
