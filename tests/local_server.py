"""A file server on loopback that misbehaves by a script, in every way real ones do."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers by ``server.script``, a list of steps, one per request; the last one repeats. A step may have

    body, etag, type, status (an error's); cut: bytes after which the connection breaks; no_length, ignore_range; shift:
    of the range it claims to send; headers, code, from: an answer written out by the test; raw: its very bytes; pause:
    seconds between the pieces of the body, of ``piece`` bytes, for at most ``server.patience`` seconds.
    """

    server: Server

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        with server.guard:
            server.seen.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
            step = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        body, etag, cut = step.get("body", server.body), step.get("etag"), step.get("cut")
        if "raw" in step:
            self.send_body(step["raw"], step)
            self.close_connection = True
            return None
        if "status" in step:
            return self.send_error(step["status"])
        if "headers" in step:  # an answer written out by the test
            self.send_response(step.get("code", 200))
            for name, value in step["headers"].items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[step.get("from", 0) :])
            self.close_connection = True
            return None
        start, asked = 0, self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if asked and not step.get("ignore_range") and (condition is None or condition == etag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            self.send_response(206)
            shown = start + step.get("shift", 0)
            self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Type", step.get("type", "application/octet-stream"))
        if not step.get("no_length"):
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.send_body(body[start:] if cut is None else body[start : start + cut], step)
        self.wfile.flush()
        self.close_connection = True
        return None

    def send_body(self, body: bytes, step: dict) -> None:
        if "pause" not in step:
            self.wfile.write(body)
            return
        ends, piece = time.monotonic() + self.server.patience, step.get("piece", 1)
        for at in range(0, len(body), piece):
            self.wfile.write(body[at : at + piece])
            self.server.pieces += 1
            if time.monotonic() > ends or self.server.over.wait(step["pause"]):
                break


class Server(ThreadingHTTPServer):
    """``script``: steps of :class:`Handler`; ``seen``: (path, Range, If-Range) of each request; ``body``: the file."""

    daemon_threads = True

    def __init__(self, body: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.seen, self.script, self.guard = body, [], [{}], threading.Lock()
        self.patience, self.over, self.pieces = 10.0, threading.Event(), 0  # pieces: sent with pauses
        self.url = f"http://127.0.0.1:{self.server_port}/file"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the client has hung up


@contextlib.contextmanager
def local_server(body: bytes) -> Iterator[Server]:
    """A running :class:`Server` of this file."""
    server = Server(body)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
