"""Going on with a course run that did not finish: what a notebook's result depends on, and which ones passed with it.

A notebook that ran through leaves ``<name>.passed.json`` in its run's folder. The next run without a folder of its own
goes on in the newest one that did not finish, and does not execute a notebook again whose inputs are the same: the
notebook itself, its parameters, the package, shipped weights and results, and the versions of Python and PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import metadata
from pathlib import Path

from s2flib.course.lesson import ROOT, NotebookRun
from s2flib.files import weights_dir, write_text

PASSED = ".passed.json"
_SOURCES = ("s2flib/**/*.py", "s2flib/**/*.toml", "s2flib/**/*.js", "s2flib/**/*.css", "data/results/**/*.csv")


def inputs_of(notebooks: list[Path], parameters: dict) -> dict[str, str]:
    """Notebook name → SHA-256 of everything that its result depends on. parameters: without the results' folder."""
    common = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            common.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    sums = weights_dir() / "SHA256SUMS"
    versions = [sys.version, *(_version(package) for package in ("torch", "torchvision", "numpy", "diffusers"))]
    common.update(sums.read_bytes() if sums.is_file() else b"")
    common.update(json.dumps([versions, parameters], sort_keys=True, default=str).encode())
    found = {}
    for path in notebooks:
        own = common.copy()
        own.update(path.read_bytes())
        found[path.stem] = own.hexdigest()
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def unfinished(runs: Path, inputs: dict[str, str]) -> Path | None:
    """The newest folder in ``runs``, if it has some of these notebooks with the same inputs, but not all of them."""
    folders = sorted(p for p in runs.glob("*") if any(p.glob(f"*{PASSED}")))
    if not folders:
        return None
    done = [name for name, value in inputs.items() if passed(folders[-1], name, value)]
    return folders[-1] if 0 < len(done) < len(inputs) else None


def passed(folder: Path, name: str, inputs: str) -> NotebookRun | None:
    """The result of a notebook that ran through in this folder with the same inputs, and whose page is still there."""
    try:
        found = json.loads((folder / f"{name}{PASSED}").read_text(encoding="utf-8"))
        same = (
            found["inputs"] == inputs and (folder / f"{name}.html").is_file() and (folder / f"{name}.ipynb").is_file()
        )
        return NotebookRun(name, int(found["cells"]), float(found["seconds"])) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(folder: Path, result: NotebookRun, inputs: str) -> None:
    """Note that a notebook ran through; a failed one loses its note."""
    path = folder / f"{result.name}{PASSED}"
    if not result.ok:
        path.unlink(missing_ok=True)
        return
    found = {"inputs": inputs, "cells": result.cells, "seconds": result.seconds}
    write_text(path, json.dumps(found) + "\n", overwrite=True)
