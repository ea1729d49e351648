"""What a file that should be weights really is, from its first bytes: drives and git often deliver something else."""

from __future__ import annotations

from pathlib import Path


def foreign_kind(first: bytes) -> str | None:
    """What a file beginning with ``first`` is, if it is no weights file: "a web page", …; None if it may be one.

    Weights are zip archives or pickles (torch) or safetensors (a header length, then JSON).
    """
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself"
    if first.startswith((b"PK\x03\x04", b"\x80")) or first[8:9] == b"{":
        return None
    return "no weights file"


def sniff(path: str | Path) -> str | None:
    """:func:`foreign_kind` of a file."""
    with open(path, "rb") as f:
        return foreign_kind(f.read(512))


ADVICE = {
    "a web page": "the drive's download limit is probably reached: download the file later, or in a browser",
    "a Git LFS pointer, not the file itself": "run git lfs pull, or download the file itself",
    "no weights file": "download or train it again",
}
