"""The record of a run: run.json with everything needed to repeat it, in a directory of its own.

Call ``record = run_record(…)``, do the work, then ``write_json(path, finish(record))``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from s2flib.errors import S2FError
from s2flib.files import available_cpus, memory_bytes, write_text
from s2flib.presets import Preset, get_preset

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pillow",
    "opencv-python-headless",
    "scikit-image",
    "matplotlib",
    "safetensors",
    "accelerate",
    "lpips",
    "facenet-pytorch",
    "pandas",
)


def run_record(preset: str | Preset, config: dict | object, seeds: Sequence[int] | int) -> dict:
    """The start of a run.json: preset, config, seeds, versions, git revision, hardware, start time.

    config: the settings (a dict or a dataclass). seeds: every seed the run uses. :func:`finish` sets ``finished`` and
    ``wall_time_s``; until then they are None, so the run.json of a killed run shows that it was killed.
    """
    preset = get_preset(preset)
    return {
        "preset": preset.name,
        "label": preset.label,
        "config": plain(config),
        "seeds": [seeds] if isinstance(seeds, int) else [int(s) for s in seeds],
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "finished": None,
        "wall_time_s": None,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions(),
        "git": git_revision(),
        "hardware": hardware(),
    }


def finish(record: dict, **results) -> dict:
    """Set the end and the wall time (seconds since ``started``) and add results; returns the same dict."""
    now = datetime.now(UTC)
    record["finished"] = now.isoformat(timespec="milliseconds")
    record["wall_time_s"] = round((now - datetime.fromisoformat(record["started"])).total_seconds(), 3)
    record.update(plain(results))
    return record


def versions() -> dict[str, str | None]:
    """Versions of Python, s2flib and the packages that can affect results; None: not installed."""
    from s2flib import __version__

    found: dict[str, str | None] = {"python": platform.python_version(), "s2flib": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_revision(folder: Path | None = None) -> dict:
    """{"revision": hash or None, "dirty": bool or None} of the checkout that s2flib runs from.

    None when s2flib is installed without a checkout; a repository that only contains the installed package (a user's
    project with a virtual environment, for example) does not count.
    """
    folder = Path(folder) if folder else Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(("git", "-C", str(folder), *arguments), capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder.resolve():
        return {"revision": None, "dirty": None}
    status = git("status", "--porcelain")
    return {"revision": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def hardware() -> dict:
    """Platform, processor, cores that this process may use, memory (GiB), torch threads, GPUs."""
    import torch

    memory = memory_bytes()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": available_cpus(),
        "memory_gib": None if memory is None else round(memory / 2**30, 1),
        "torch_threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def _processor() -> str:
    """The processor's name; platform.processor() is empty on most Linux machines."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def plain(obj: Any) -> Any:
    """Any config or result as JSON types: arrays become lists, paths strings, NaN and infinity None."""
    if obj is None or isinstance(obj, (str, bool, int)):
        return obj
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if not isinstance(obj, type) and dataclasses.is_dataclass(obj):
        return {f.name: plain(getattr(obj, f.name)) for f in dataclasses.fields(obj)}
    if isinstance(obj, Mapping):
        return {str(k): plain(v) for k, v in obj.items()}
    if isinstance(obj, (list, tuple, set, frozenset)):
        return [plain(v) for v in (sorted(obj) if isinstance(obj, (set, frozenset)) else obj)]
    if isinstance(obj, (os.PathLike, datetime)):
        return str(obj)
    if hasattr(obj, "detach"):  # torch
        obj = obj.detach().cpu()
    if hasattr(obj, "tolist"):  # torch, numpy arrays and scalars
        return plain(obj.tolist())
    raise TypeError(f"{type(obj).__name__} has no JSON form")


def write_json(path: str | Path, obj, overwrite: bool = False) -> Path:
    """Write obj as readable JSON, atomically: a reader sees either the old file or the complete new one.

    Raises S2FError when the file exists and ``overwrite`` is False, or the disk is full.
    """
    text = json.dumps(plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n", overwrite)


def new_run_dir(base: str | Path = "runs") -> Path:
    """Create and return base/2026-01-31_14-05-09, with -2, -3 … for runs that start in the same second."""
    base = Path(base)
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1, 1000):
        path = base / (stamp if attempt == 1 else f"{stamp}-{attempt}")
        try:
            path.mkdir(parents=True, exist_ok=False)
            return path
        except FileExistsError as error:
            if base.exists() and not base.is_dir():
                raise S2FError(f"{base} is a file: choose a directory for the runs.") from error
        except OSError as error:
            raise S2FError(f"cannot create a directory in {base} ({error.strerror}): choose another one.") from error
    raise S2FError(f"{base} already contains 999 runs of this second: choose another directory.")


def check_seed(seed: int, name: str = "seed") -> int:
    """The seed, if torch and numpy take it: S2FError unless it is a whole number from 0 to 2⁶³ − 1."""
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise S2FError(f"{name} must be a whole number from 0 to 2^63 − 1, not {seed}.")
    return seed


def result_folder(out: Path | None, overwrite: bool, result: str) -> Path:
    """The folder for results: ``out``, or a new run directory. S2FError if ``out`` already contains ``result``."""
    if out is None:
        return new_run_dir()
    if (out / result).exists() and not overwrite:
        raise S2FError(f"{out} already contains {result}: choose another folder, or add --overwrite.")
    out.mkdir(parents=True, exist_ok=True)
    return out
