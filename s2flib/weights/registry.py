"""The published files that the colab and paper presets need, and how they are downloaded and pinned."""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2flib.errors import WeightsError
from s2flib.files import atomic_path, cache_dir, read_toml, sha256_of
from s2flib.weights.download import download
from s2flib.weights.sniff import ADVICE, sniff


@dataclass(frozen=True)
class Published:
    """A published file: ``file`` in the cache, downloaded from the first of ``urls`` that works."""

    file: str
    what: str
    licence: str
    urls: tuple[str, ...]
    sha256: str | None  # None: unknown; recorded next to the file on first use and checked from then on


def _published(entry: dict[str, Any]) -> Published:
    drive = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
    urls = tuple(drive.format(u[6:]) if u.startswith("drive:") else u for u in entry["urls"])
    return Published(entry["file"], entry["what"], entry["licence"], urls, entry.get("sha256"))


REGISTRY = {name: _published(entry) for name, entry in read_toml(Path(__file__).parent / "registry.toml").items()}


def fetch(name: str) -> Path:
    """The cached file of a REGISTRY entry, downloaded first if necessary; its SHA-256 is checked on every call.

    Files without a known trustworthy hash are pinned on first use: the hash of the first download is recorded in
    ``<file>.sha256`` with a warning, and any later change is an error. This protects against damaged or changed
    files but not against a malicious first download; safe_load still prevents any code in it from running. A file
    that was copied into the cache manually is treated the same way.
    """
    if name not in REGISTRY:
        raise WeightsError(f"there are no published weights named {name!r}: choose one of {', '.join(REGISTRY)}.")
    entry = REGISTRY[name]
    path = cache_dir() / entry.file
    if not path.exists():
        print(f"{name}: {entry.what}. Licence: {entry.licence}.", file=sys.stderr)
        download(entry.urls, path, entry.sha256)
    if (kind := sniff(path)) is not None:  # also a file that was saved by hand: never pin what is no weights file
        raise WeightsError(f"{path} is {kind}: delete it; {ADVICE[kind]}.")
    digest, record = sha256_of(path), Path(f"{path}.sha256")
    if entry.sha256 is None and not record.exists():
        with atomic_path(record) as part:
            part.write_text(f"{digest}  {entry.file}\n")
        warnings.warn(
            f"the SHA-256 of {entry.file} was not known and is now PINNED to {digest} in {record}: "
            "compare it with another source if you need to be sure",
            stacklevel=2,
        )
        return path
    expected = entry.sha256 or record.read_text(encoding="utf-8", errors="replace")[:64]
    if not re.fullmatch("[0-9a-f]{64}", expected):
        raise WeightsError(f"{record} is damaged: delete it and {path.name}, and run s2f fetch {name}.")
    if digest != expected:
        raise WeightsError(
            f"{path} has SHA-256 {digest[:12]}… but {expected[:12]}… is pinned: delete the "
            f"file and run s2f fetch {name}."
        )
    return path
