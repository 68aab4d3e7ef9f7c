"""A TCP proxy between a run and its object store that can be slow, away, broken or mean, and counts what it did.

passes     with ``delay_s`` per direction and connection's chunk, and at most ``bytes_per_s`` upwards
refuses    the port is closed
answers    every request gets this HTTP status and S3 error code
cuts       the connection is reset after some of a request's body went through
swallows   takes the connection and everything that comes, and never answers
"""

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

CHUNK = 16384
CUT_AFTER = 100_000


class Proxy:
    """Listens on ``url`` and forwards to ``target``; ``seen`` counts what each fault did to whom.

    ``sent`` has the bytes that each client has sent to the store through it, by the client's address.
    """

    def __init__(self, target: str, address: str = "127.0.0.1") -> None:
        parts = urlsplit(target)
        assert parts.hostname
        assert parts.port
        self._target = parts.hostname, parts.port
        self.mode = "passes"
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.error = (503, "SlowDown")
        self.seen: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((address, 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://{address}:{self.port}"
        self._closed = False
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def become(self, mode: str) -> None:
        """From now on do this to everybody; connections that are open feel it too."""
        self.mode = mode
        with self._lock:
            for connection in self._open:
                _reset(connection)
            self._open.clear()

    def close(self) -> None:
        """End everything."""
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.become("refuses")
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(client)
            thread = threading.Thread(target=self._serve, args=(client, self.mode), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, client: socket.socket, mode: str) -> None:
        with client, contextlib.suppress(OSError):
            if mode == "refuses":  # as good as a closed port for the client: reset before a byte
                self.seen[mode] += 1
                _reset(client)
            elif mode == "answers":
                self._answer(client)
            elif mode == "swallows":
                if client.recv(CHUNK):
                    self.seen[mode] += 1
                while client.recv(CHUNK):
                    pass
            else:
                self._forward(client, cut=mode == "cuts")

    def _answer(self, client: socket.socket) -> None:
        status, code = self.error
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        head = f"HTTP/1.1 {status} No\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        while client.recv(CHUNK):
            self.seen["answers"] += 1
            client.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
            client.shutdown(socket.SHUT_WR)

    def _forward(self, client: socket.socket, cut: bool) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            self.seen["unreachable"] += 1
            raise
        with server:
            with self._lock:
                self._open.add(server)
            back = threading.Thread(target=self._copy, args=(server, client, None), daemon=True)
            back.start()
            self._copy(client, server, CUT_AFTER if cut else None)
            back.join()

    def _copy(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            upwards = target.getpeername() == self._target
            while data := source.recv(CHUNK):
                if self.delay_s and not passed:
                    time.sleep(self.delay_s)
                if upwards and self.bytes_per_s:
                    time.sleep(len(data) / self.bytes_per_s)
                target.sendall(data)
                passed += len(data)
                if upwards:
                    self.sent[source.getpeername()[0]] += len(data)
                if limit and passed > limit:
                    self.seen["cuts"] += 1
                    _reset(source)
                    break
        for connection in (source, target):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
