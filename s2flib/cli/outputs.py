"""What ``--out`` means, in every command that writes pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from s2flib.errors import S2FError


def is_folder(out: Path) -> bool:
    """An existing folder, or any name without a picture's suffix (run.1, my.faces), is a folder."""
    from s2flib.images import SUFFIXES

    return out.is_dir() or out.suffix.lower() not in SUFFIXES


def picture_files(out: Path, names: Sequence[str], overwrite: bool, sources: Sequence[Path] = ()) -> list[Path]:
    """The files to write: ``out`` itself for one picture, or ``names`` in the folder ``out``.

    S2FError, before any work is done, for a suffix that cannot be written, several pictures for one file, two pictures
    of one name, a file in the folder's place, an existing file without ``overwrite``, or a source in its own place.
    """
    from s2flib.images import WRITABLE

    if is_folder(out):
        if out.exists() and not out.is_dir():
            raise S2FError(f"{out} is a file: choose a folder, or a name that ends in .png.")
        files = [out / name for name in names]
    elif out.suffix.lower() not in WRITABLE:
        raise S2FError(f"{out} cannot be written: use a name that ends in {', '.join(WRITABLE)}, or a folder.")
    elif len(names) > 1:
        raise S2FError(f"{len(names)} results do not fit into {out}: choose a folder.")
    else:
        files = [out]
    own = {source.resolve() for source in sources}
    for i, file in enumerate(files):
        if file.resolve() in own:
            raise S2FError(f"{file} is one of the pictures to read, and would be overwritten: choose another name.")
        if file in files[:i]:
            raise S2FError(f"two of the results would be written to {file}: make them one by one.")
        if file.exists() and not overwrite:
            raise S2FError(f"{file} exists already: choose another name, or add --overwrite.")
    return files
