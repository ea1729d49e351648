"""What the kinds share: random streams, damage to bytes, and the judgement of an error."""

from __future__ import annotations

import functools
import resource
import sys
import traceback
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from s2flib.errors import S2FError

Rng = np.random.Generator
Check = Callable[[int, Path], str | None]
MEMORY = 4 << 30  # bytes by which a case may raise the peak: the largest allowed picture (144 megapixels) needs less

# What arrives in place of a file when something went wrong on the way.
FOREIGN: dict[str, bytes] = {
    "nothing": b"",
    "a page": b"<!DOCTYPE html>\n<html><body>Quota exceeded</body></html>",
    "a page after a byte order mark": b"\xef\xbb\xbf\n<html><head></head></html>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
    "text": b"this is only a text\n" * 30,
    "JSON": b'{"error": {"code": 403}}',
    "a zip archive": b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>',
    "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "a pickle": b"\x80\x02}q\x00.",
    "zeros": bytes(3000),
    "one byte": b"\x89",
}


class Broken(Exception):
    """A promise was broken; the message says how."""


def stream(kind: str, seed: int) -> Rng:
    """The random numbers of a case."""
    return np.random.default_rng([seed, zlib.crc32(kind.encode())])


def pick(rng: Rng, options) -> Any:
    """One of several things, whatever their types."""
    options = list(options)
    return options[int(rng.integers(len(options)))]


def damaged(rng: Rng, data: bytes) -> tuple[str, bytes]:
    """(what was done, the bytes after it): cut, flipped, overwritten, or moved; sometimes twice."""
    done, blob = [], bytearray(data)
    for _ in range(1 + (rng.random() < 0.2)):
        if not blob:
            break
        # Headers are short, and most of the ways to go wrong are in them.
        reach = min(len(blob), int(pick(rng, (16, 64, 256, 1024)))) if rng.random() < 0.5 else len(blob)
        at, how = int(rng.integers(reach)), int(rng.integers(8))
        length = int(rng.integers(1, 1 + min(64, len(blob) - at)))
        if how == 0:
            del blob[int(rng.integers(len(blob))) :]
            done.append(f"cut to {len(blob)} bytes")
        elif how in (1, 2):
            places = rng.integers(0, reach, int(rng.integers(1, 12)))
            for place in places:
                blob[int(place)] ^= 1 << int(rng.integers(8))
            done.append(f"{len(places)} bits flipped before byte {reach}")
        elif how == 3:
            blob[at : at + length] = bytes(length) if rng.random() < 0.5 else b"\xff" * length
            done.append(f"{length} bytes overwritten at {at}")
        elif how == 4:
            blob[at : at + length] = rng.bytes(length)
            done.append(f"{length} random bytes at {at}")
        elif how == 5:
            blob[at:at] = rng.bytes(length)
            done.append(f"{length} bytes inserted at {at}")
        elif how == 6:
            del blob[at : at + length]
            done.append(f"{length} bytes removed at {at}")
        else:
            other = int(rng.integers(len(blob)))
            blob[at : at + length] = blob[other : other + length]
            done.append(f"{length} bytes of {other} repeated at {at}")
    return ", ".join(done) or "unchanged", bytes(blob)


def one_sentence(error: Exception, *names: str | Path) -> None:
    """Broken unless the error is an S2FError of one printable line that ends as a sentence and has these names."""
    if not isinstance(error, S2FError):
        place = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in place if "s2flib" in frame.filename] or place
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "nowhere"
        raise Broken(f"{type(error).__name__} instead of an S2FError, at {where}: {str(error)[:200]!r}")
    text = str(error)
    if not text.isprintable() or len(text) > 1500:
        raise Broken(f"the error is not one line of {len(text)} printable characters: {text[:300]!r}")
    if not text.endswith((".", ")")):
        raise Broken(f"the error is no sentence: {text[:300]!r}")
    for name in names:
        if str(name) not in text:
            raise Broken(f"the error does not name {name}: {text[:300]!r}")


def outcome(call: Callable, *names: str | Path) -> tuple[Any, S2FError | None]:
    """(result, None), or (None, the error), which must be one sentence with these names."""
    try:
        return call(), None
    except Exception as error:
        one_sentence(error, *names)
        assert isinstance(error, S2FError)
        return None, error


def ensure(fine: Any, sentence: str) -> None:
    if not fine:
        raise Broken(sentence)


def promise(kind: str, describe: Callable[[int], str]) -> Callable[[Callable[[int, Path], None]], Check]:
    """A check that raises Broken (or anything else) becomes one that returns a sentence with the seed."""

    def decorate(check: Callable[[int, Path], None]) -> Check:
        @functools.wraps(check)
        def run(seed: int, folder: Path) -> str | None:
            before = _peak()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    check(seed, folder)
            except Exception as error:
                why = str(error) if isinstance(error, Broken) else f"the check failed: {_traced(error)}"
                return f"{kind} {seed} ({describe(seed)}): {why}"
            if _peak() - before > MEMORY:
                return f"{kind} {seed} ({describe(seed)}): it took {(_peak() - before) >> 20:,} MiB of memory"
            return None

        return run

    return decorate


def _traced(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-4:]))
    return f"{type(error).__name__}: {str(error)[:300]} [{places}]"


def _peak() -> int:
    """Bytes of memory that this process has used at most."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
