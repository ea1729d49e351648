"""Downloads of single large files: resumed, verified, and renamed to the final name only when complete.

Hand-written, because torch.hub does not resume, and huggingface_hub downloads only from its own hub.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from s2flib.errors import WeightsError, printable
from s2flib.files import sha256_of
from s2flib.weights.sniff import foreign_kind

CHUNK = 1 << 20
TRIES = 5  # per URL; each resumes where the last one stopped
TIMEOUT = 30.0  # seconds without a byte
PATIENCE, SLOWEST = 60.0, 2000.0  # after so many seconds, a slower rate (bytes per second) counts as broken off
LARGEST = 2**34  # bytes of a file whose size is not announced
NUMBER = "[0-9]{1,18}"  # in headers
SPAN = rf"bytes ({NUMBER})-({NUMBER})/({NUMBER}|\*)"
VALIDATOR = "[ -~]{1,1000}"  # an ETag or a date that can be stored, and sent back


class _NextAddress(Exception):
    """The URL does not work; the message says why."""


def download(urls: Sequence[str], path: str | Path, sha256: str | None = None, wait: float = 1.0) -> Path:
    """Download ``path`` from the first of ``urls`` that works, and return it.

    urls:    the same file at several URLs, tried in order
    sha256:  the file's hash; None accepts any file that is complete and not a web page
    wait:    seconds before the second try, doubled before each further one

    The data is written to ``<path>.part``, which survives an interruption and is resumed by an HTTP Range request (only
    when the server confirms by ETag or Last-Modified that the file is unchanged, or when ``sha256`` can verify it). A
    web page in place of the file, which drives send when their quota is exceeded, is detected. Only a complete,
    verified file is renamed to ``path``. If several processes ask at once, one downloads and the others wait. An
    existing ``path`` is returned unchanged. Raises WeightsError.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            return path if path.exists() else _download_locked(urls, path, sha256, wait)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WeightsError(
                f"the disk filled up while downloading {path.name}: free some space and run the same "
                f"command again; it resumes from {path.name}.part."
            ) from e
        raise WeightsError(
            f"cannot write {path} ({e.strerror or e}): make {path.parent} writable or set S2F_CACHE to another folder."
        ) from e


def _download_locked(urls: Sequence[str], path: Path, sha256: str | None, wait: float) -> Path:
    part, why = Path(f"{path}.part"), []
    for url in urls:
        try:
            _fetch(url, part, sha256, wait, path.name)
        except _NextAddress as e:
            why.append(f"{url}: {e}")
            continue
        os.replace(part, path)
        _validator(part).unlink(missing_ok=True)
        return path
    raise WeightsError(
        f"could not download {path.name} ({'; '.join(why)}): try again later, or download it "
        f"in a browser and save it as {path}."
    )


def _fetch(url: str, part: Path, sha256: str | None, wait: float, label: str) -> None:
    """Complete ``part`` and verify it, or raise _NextAddress."""
    reason = "no answer"
    for attempt in range(TRIES):
        if attempt:
            time.sleep(wait * 2 ** (attempt - 1))
        try:
            if not _transfer(url, part, sha256 is not None, label):
                reason = f"the connection broke off {TRIES} times; the part downloaded so far is kept"
                continue
        except urllib.error.HTTPError as e:
            reason = printable(f"HTTP {e.code} {e.reason}")
            if e.code not in (408, 425, 429) and e.code < 500:
                raise _NextAddress(reason) from e
            continue
        except urllib.error.URLError as e:
            reason = printable(f"no connection, {e.reason}")
            if isinstance(e.reason, socket.gaierror):  # offline: retrying does not help
                raise _NextAddress(reason) from e
            continue
        except (TimeoutError, ConnectionError, HTTPException, ssl.SSLError) as e:
            reason = printable(f"{type(e).__name__} {e}")
            continue
        except (ValueError, OverflowError) as e:  # urllib and http.client on malformed addresses, ports and headers
            raise _NextAddress(f"its address or answer is malformed ({printable(e)})") from e
        if sha256 is None or sha256_of(part) == sha256:
            with open(part, "rb") as f:
                os.fsync(f.fileno())
            return
        _discard(part)  # never resume from incorrect data
        reason = "its SHA-256 is not the pinned one"
        if attempt:  # a new download was also wrong
            raise _NextAddress(reason)
    raise _NextAddress(reason)


def _transfer(url: str, part: Path, verified: bool, label: str) -> bool:
    """One request, resuming ``part`` where possible. True when the file is complete."""
    have = part.stat().st_size if part.exists() else 0
    validator = _read_validator(part)
    headers = {"User-Agent": "s2flib", "Accept-Encoding": "identity"}
    if have and (validator or verified):
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    else:
        have = 0
    try:
        opener = urllib.request.build_opener(_HTTPHandler, _HTTPSHandler)
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as e:
        if e.code != 416:
            raise
        # no bytes after those we have: the file is complete, or it has changed
        total = re.fullmatch(rf"bytes \*/({NUMBER})", e.headers.get("Content-Range", ""))
        if total and int(total[1]) == have:
            return True
        _discard(part)
        return False
    with response:
        start = 0
        length = response.headers.get("Content-Length")
        if length is not None and not re.fullmatch(NUMBER, length.strip()):
            raise _NextAddress(f"it sent a malformed Content-Length ({length[:40]!r})")
        coding = response.headers.get("Content-Encoding", "identity")
        if coding != "identity":
            raise _NextAddress(f"it sent the file packed ({coding[:40]!r}), although that was not asked for")
        if response.status == 206:
            # a part is only continued by the same file, from where it ends, to the file's announced end
            span = re.fullmatch(SPAN, response.headers.get("Content-Range", "").strip())
            start, last, whole = (int(span[1]), int(span[2]), span[3]) if span else (-1, -1, "*")
            etag = response.headers.get("ETag", "")
            other = bool(validator.startswith('"') and etag.startswith('"') and etag != validator)
            wrong = int(whole) != last + 1 if whole != "*" else not verified
            wrong = wrong or length is not None and last + 1 - start != int(length)
            if start != have or other or wrong:
                _discard(part)
                return False
        total = start + int(length) if length else None
        first, began = b"", time.monotonic()
        while len(first) < 512 and time.monotonic() - began <= PATIENCE and (block := _read(response)):
            first += block  # enough to recognise a web page
        if start == 0 and (response.headers.get_content_type() == "text/html" or foreign_kind(first) == "a web page"):
            raise _NextAddress(
                "it sent a web page instead of the file, which usually means that its daily download quota is exceeded"
            )
        if total is None and not verified:
            raise _NextAddress("it does not send the file's size, so an incomplete download could not be detected")
        etag = response.headers.get("ETag", "")
        strong = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
        strong = strong if re.fullmatch(VALIDATOR, strong) else ""
        with open(part, "r+b" if start else "wb") as f:
            f.seek(start)
            f.truncate()
            # after truncating: it must never describe another file's data
            _validator(part).write_text(strong, encoding="ascii")
            got = start
            with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=label, file=sys.stderr) as bar:
                block = first
                while block:
                    f.write(block)
                    got += len(block)
                    bar.update(len(block))
                    if got > (LARGEST if total is None else total):
                        raise _NextAddress("it sent more than it announced")
                    seconds = time.monotonic() - began
                    if seconds > PATIENCE and (got - start) / seconds < SLOWEST:
                        return False  # tried again; the part is kept
                    block = _read(response)
        return got > 0 and (total is None or got == total)


def _read(response: HTTPResponse) -> bytes:
    """What has arrived, at most CHUNK bytes; b"" at the end. (read() would wait for the last byte of a trickle.)"""
    try:
        return response.read1(CHUNK)
    except (TimeoutError, ConnectionError, ssl.SSLError):
        raise
    except OSError as e:  # the network is down: no error of the disk
        raise ConnectionError(str(e)) from e


class _LimitedHTTP(HTTPConnection):
    """An answer whose headers have not arrived after PATIENCE seconds is cut off."""

    def getresponse(self):
        timer = threading.Timer(PATIENCE, self._cut)
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()
        finally:
            timer.cancel()

    def _cut(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class _LimitedHTTPS(_LimitedHTTP, HTTPSConnection):
    pass


class _HTTPHandler(urllib.request.HTTPHandler):
    def do_open(self, http_class, req, **options):
        return super().do_open(_LimitedHTTP, req, **options)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def do_open(self, http_class, req, **options):
        return super().do_open(_LimitedHTTPS, req, **options)


def _validator(part: Path) -> Path:
    """The file that stores the ETag (or Last-Modified) of ``part``."""
    return Path(f"{part}.etag")


def _read_validator(part: Path) -> str:
    """The stored ETag (or Last-Modified); "" if there is none or it is damaged."""
    path = _validator(part)
    text = path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
    return text if re.fullmatch(VALIDATOR, text) else ""


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)
