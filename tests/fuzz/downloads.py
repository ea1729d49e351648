"""Broken downloads. The promise: the right file under its final name, or one sentence and no file under that name; and
a second try at an honest server succeeds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from local_server import local_server

from s2flib.weights import download as module

from .common import FOREIGN, Rng, ensure, outcome, pick, promise, stream

# download()'s constants, small enough that a hanging server is given up within a second
LIMITS = {"TIMEOUT": 0.25, "PATIENCE": 0.4, "TRIES": 3, "LARGEST": 1 << 20}
TRICKLE = 40.0  # seconds for which a server trickles
LONGEST = 20.0  # seconds after which a download counts as hanging; the longest take two


@dataclass
class Server:
    body: bytes
    other: bytes  # the same file after a change on the server
    script: list[dict] = field(default_factory=list)  # see local_server.Handler
    pinned: bool = True  # its SHA-256 is known
    urls: int = 1

    @property
    def what(self) -> str:
        steps = "; ".join(str(step.get("what", "honest")) for step in self.script)
        return f"{len(self.body)} bytes, {'' if self.pinned else 'not '}pinned, {self.urls} URLs: {steps}"


def case(seed: int) -> Server:
    rng = stream("downloads", seed)
    body = b"PK\x03\x04" + rng.bytes(int(pick(rng, (1, 400, 5000, 60_000, 400_000))))
    server = Server(body, body[:4] + rng.bytes(len(body) - 4), pinned=bool(rng.random() < 0.6))
    server.urls = int(pick(rng, (1, 1, 2)))
    server.script = [_step(rng, server) for _ in range(int(rng.integers(1, 5)))]
    if rng.random() < 0.5:
        server.script.append({"etag": '"v1"'})
    return server


def _step(rng: Rng, server: Server) -> dict:
    """What the server does at one request. Its answer is described in "what"."""
    body, size = server.body, len(server.body)
    at = int(rng.integers(size + 1))
    etag = pick(rng, (None, '"v1"', '"v1"', '"v2"', 'W/"v1"', '"é"', '"a\tb"'))
    calm = {"etag": etag} if etag else {}
    how = pick(
        rng,
        ("short", "short", "other", "status", "page", "foreign", "no length", "length", "range", "raw", "redirect")
        + ("ignored", "shifted", "trickle", "stall", "endless", "encoded", "header"),
    )
    if how == "short":
        return calm | {"cut": at, "what": f"breaks off after {at} bytes, {etag}"}
    if how == "other":
        cut = {"cut": at} if rng.random() < 0.5 else {}
        return calm | cut | {"body": server.other, "what": f"the changed file, {etag}, {cut}"}
    if how == "status":
        code = int(pick(rng, (204, 400, 403, 404, 408, 416, 425, 429, 500, 502, 503, 504)))
        return {"status": code, "what": f"HTTP {code}"}
    if how == "page":
        kind = pick(rng, ("text/html; charset=utf-8", "application/octet-stream"))
        page = FOREIGN["a page"] + bytes(int(rng.integers(2)) * size)
        ignore = bool(rng.integers(2))
        return {"body": page, "type": kind, "ignore_range": ignore, "what": "a web page"}
    if how == "foreign" and server.pinned:
        what = pick(rng, FOREIGN)
        return {"body": FOREIGN[what], "what": what}
    if how == "no length" and server.pinned:
        return calm | {"no_length": True, "cut": pick(rng, (at, size)), "what": f"no length, {at} bytes"}
    if how == "length":
        length = pick(
            rng, ("many", "-5", "1e6", "12, 12", "", "9" * 5000, str(size + 1), str(max(0, size - 1)), "0", "²")
        )
        if not server.pinned and length.isdecimal() and int(length[:9]) < size:
            length = "many"  # a shorter file that is whole by all that is known
        return {"headers": {"Content-Length": length}, "what": f"Content-Length {length[:9]!r}"}
    if how == "range":
        spans = (f"bytes {at}-{size - 1}/{size}", f"bytes 0-{size - 1}/{size}", f"bytes 0-{at}/{at + 1}", "bytes */9")
        span = pick(rng, (*spans, f"bytes {at}-{size - 1}/*", "bytes 0-9/*", "bytes x", "bytes 0-" + "9" * 5000 + "/*"))
        headers = {"Content-Range": span, "Content-Length": str(size - at), **({"ETag": etag} if etag else {})}
        if not server.pinned and span in (spans[2], spans[1]):
            headers["Content-Range"] = spans[0]
        return {"code": 206, "headers": headers, "from": at, "what": f"206 {span[:30]!r}, {etag}"}
    if how == "raw":
        answers = (b"", b"\n", rng.bytes(300), b"HTTP/1.1 \r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n")
        long = b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000 + b"\r\n\r\n"
        many = b"HTTP/1.1 200 OK\r\n" + b"A: a\r\n" * 300 + b"\r\n"
        chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunked = (chunks + b"zz\r\n", chunks + b"5\r\nPK", chunks + b"-5\r\nPK\x03\x04a\r\n", chunks + b"f" * 70_000)
        slow = b"HTTP/1.1 200 OK\r\nETag: a\r\n"
        if rng.random() < 0.2:
            return {"raw": slow, "pause": 0.1, "what": "its headers trickle"}
        informal = b"HTTP/1.1 100 Continue\r\n\r\n" * int(rng.integers(1, 200))
        answer = pick(rng, (*answers, long, many, *chunked, informal))
        return {"raw": answer, "what": f"the bytes {answer[:40]!r}"}
    if how == "redirect":
        target = pick(rng, ("/file", "http://[::1", "http://127.0.0.1:99999/", "file:///etc/hostname", "ftp://127.0.0.1:1/",
                            "http://127.0.0.1:1/", "//", "", "http://é/", "a\tb", "javascript:1"))  # fmt: skip
        return {"code": 302, "headers": {"Location": target, "Content-Length": "0"}, "what": f"redirects to {target!r}"}
    if how == "ignored":
        return calm | {"ignore_range": True, "what": f"ignores ranges, {etag}"}
    if how == "shifted":
        return calm | {"shift": int(pick(rng, (-1, 1, 7))), "what": f"another range, {etag}"}
    if how in ("trickle", "stall"):
        pause, piece = (0.02, int(pick(rng, (1, 3)))) if how == "trickle" else (1.0, 1 + at)
        return calm | {"pause": pause, "piece": piece, "what": f"{piece} bytes each {pause} s, {etag}"}
    if how == "endless" and server.pinned:
        return {"body": body * (1 + (3 << 20) // size), "no_length": True, "what": "sends without end"}
    if how == "encoded":
        headers = {"Content-Length": str(size), "Content-Encoding": "gzip", "ETag": '"v1"'}
        return {"headers": headers, "body": b"\x1f\x8b" + body[2:], "what": "packed, although it was not asked to"}
    odd = pick(rng, ('"a\r\n b"', '"' + "x" * 9000 + '"', "\x00", "é" * 9, '"v1', ""))
    cut = size if rng.random() < 0.3 else at
    headers = {"Content-Length": str(size), "ETag": odd}
    return {"headers": headers, "body": body[:cut], "what": f"breaks off after {cut} bytes, ETag {odd[:9]!r}"}


@promise("download", lambda seed: case(seed).what)
def check(seed: int, folder: Path) -> None:
    server, path = case(seed), folder / "weights.pt"
    sha256 = hashlib.sha256(server.body).hexdigest() if server.pinned else None
    with contextlib.ExitStack() as stack:
        for name, value in LIMITS.items():
            stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(contextlib.redirect_stderr(stack.enter_context(open(os.devnull, "w"))))  # progress bars
        httpd = stack.enter_context(local_server(server.body))
        httpd.script, httpd.patience = [*server.script], TRICKLE
        urls, began = [f"{httpd.url}{k}" for k in range(server.urls)], time.monotonic()
        done, _ = outcome(lambda: module.download(urls, path, sha256, wait=0), path)
        took = time.monotonic() - began
        ensure(took < LONGEST, f"it took {took:.1f} s")
        _is_right(path, server, bool(done))
        # the unpinned file may have been changed for good
        body = server.body if server.pinned or not done else path.read_bytes()
        httpd.script = [{"etag": '"v3"'}]
        done, error = outcome(lambda: module.download(urls, path, sha256, wait=0), path)
        ensure(done, f"the second, honest try failed: {error}")
        ensure(path.read_bytes() == body, "the second, honest try left another file")
        left = {p.name for p in folder.iterdir()} - {path.name, f"{path.name}.lock"}
        ensure(not left, f"it left {left}")


def _is_right(path: Path, server: Server, done: bool) -> None:
    ensure(path.exists() == done, f"it returned {'' if done else 'with an error '}but the file is {path.exists()}")
    if done:
        data, whole = path.read_bytes(), (server.body,) if server.pinned else (server.body, server.other)
        ensure(data in whole, f"another file of {len(data)} bytes, beginning with {data[:12]!r}, has the final name")
