"""Files: the locations of data, weights and downloads, atomic writing, hashes."""

from __future__ import annotations

import contextlib
import csv
import errno
import glob
import hashlib
import io
import os
import re
import secrets
import shutil
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2flib.errors import S2FError

# How long the threads of PyTorch's CPU kernels spin before they sleep while they wait for each other. By default they
# spin on, and on a machine that is busy with something else a face takes many times as long (benchmarks/bench_busy.py);
# 0 is slower where the machine is free. Read when torch is loaded.
PATIENT_THREADS = {"GOMP_SPINCOUNT": "10000"}
_SHIPPED = Path(__file__).resolve().parents[1] / "data"


def data_dir() -> Path:
    """Data sets: the environment's ``S2F_DATA``, else ``data`` in the repository."""
    return Path(os.environ.get("S2F_DATA") or _SHIPPED).expanduser()


def shipped_data_dir() -> Path:
    """``data`` in the repository, wherever the user's own data sets are."""
    return _SHIPPED


def weights_dir() -> Path:
    """Shipped weights: the environment's ``S2F_WEIGHTS``, else ``data/weights`` in the repository."""
    return Path(os.environ.get("S2F_WEIGHTS") or _SHIPPED / "weights").expanduser()


def trained_dir() -> Path:
    """Encoders that a user trained for a preset without one: the environment's ``S2F_TRAINED``, else ``runs/trained``
    in the repository. Notebook 06 writes there, and :func:`s2flib.weights.load_psp` looks there."""
    return Path(os.environ.get("S2F_TRAINED") or _SHIPPED.parent / "runs" / "trained").expanduser()


def results_dir() -> Path:
    """Committed results that notebooks draw again: ``data/results`` in the repository."""
    return _SHIPPED / "results"


def cache_dir() -> Path:
    """Downloads and caches: the environment's ``S2F_CACHE``, else ``~/.cache/s2flib``."""
    return Path(os.environ.get("S2F_CACHE") or Path.home() / ".cache" / "s2flib").expanduser()


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: its CPU affinity, and a container's quota, where the system has them."""
    return min(_affinity(), _quota(cgroup) or _affinity())


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota(cgroup: Path) -> int | None:
    """Whole cores of a container's CPU quota, at least one; None where there is none."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroup v2 and v1
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            if quota not in ("max", "-1"):
                return max(1, int(quota) // int(period))
    return None


def thread_settings() -> dict[str, str]:
    """Environment variables that torch reads when it is loaded: :data:`PATIENT_THREADS`, and in a container that may
    use fewer cores than it sees, so many threads."""
    limited = available_cpus() < _affinity()
    return PATIENT_THREADS | ({"OMP_NUM_THREADS": str(available_cpus())} if limited else {})


def memory_bytes() -> int | None:
    """Main memory of the machine in bytes; None where the system does not report it (Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def csv_text(rows: Sequence[Mapping]) -> str:
    """Rows with the same keys as CSV, with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of one of our own result tables: numbers as float, an empty cell as NaN, all else as text."""

    def value(text: str) -> float | str:
        number = re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?|[-+]?(nan|inf)|", text, re.IGNORECASE)
        return float(text or "nan") if number else text  # float("229_3") would be a number, too

    with open(path, newline="", encoding="utf-8") as file:
        return [{k: value(v) for k, v in row.items()} for row in csv.DictReader(file)]


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the duration of a ``with`` block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file of the package: tables of names and numbers."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def write_text(path: str | Path, text: str, overwrite: bool = False) -> Path:
    """Write text as UTF-8, atomically. Raises S2FError when the file exists and ``overwrite`` is False."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise S2FError(f"{path} exists already: choose another name or allow overwriting.")
    with atomic_path(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    return path


def unique_stems(files: Sequence[Path]) -> list[str]:
    """The files' names without suffixes, made unique: a, a-2, b."""
    names: list[str] = []
    for path in files:
        name, k = path.stem, 1
        while name in names:
            k += 1
            name = f"{path.stem}-{k}"
        names.append(name)
    return names


def check_free(files: Sequence[Path], overwrite: bool, sources: Sequence[Path]) -> None:
    """Raise S2FError before any work is done if files of one folder would be overwritten; a source never is."""
    own = {source.resolve() for source in sources}
    for file in files:
        if file.resolve() in own:
            raise S2FError(f"{file} is one of the pictures to read, and would be overwritten: choose another folder.")
    folder = files[0].parent
    if folder.exists() and not folder.is_dir():
        raise S2FError(f"{folder} is a file: choose a folder for the results.")
    taken = [file for file in files if file.exists()]
    if taken and not overwrite:
        raise S2FError(f"{taken[0]} exists already: choose another folder, or add --overwrite.")


_REASONS = {
    errno.ENOSPC: "the disk is full: free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another folder",
    errno.EFBIG: "the file is larger than the file system allows: choose another folder",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.EACCES: "permission is denied: choose another folder",
    errno.EPERM: "permission is denied: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.ENOTDIR: "part of the path is a file: choose another folder",
    errno.EEXIST: "a file has the name of the folder: choose another folder",
    errno.EISDIR: "a folder with that name exists: choose another name",
}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """``with atomic_path(p) as part:`` write to part; p is then replaced as a whole, or stays unchanged.

    part is a hidden file in p's folder with the same suffix; it is flushed to disk and renamed to p. Any exception
    removes it; errors such as a full disk become S2FError. Missing folders are created. A part of the same file that a
    killed process left is removed once nothing has been written to it for ten minutes.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem[:64]}.{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_parts(path.parent.glob(f".{glob.escape(path.stem[:64])}.*{glob.escape(path.suffix)}"), ABANDONED)
        yield part
        with open(part, "r+b") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
    except BaseException as e:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        reason = _REASONS.get(e.errno or 0) if isinstance(e, OSError) else None
        if reason is None and isinstance(e, Exception) and _is_disk_full(e, path.parent):
            reason = _REASONS[errno.ENOSPC]
        if reason is not None:
            raise S2FError(f"{path} cannot be written, {reason}.") from e
        raise


ABANDONED = 600  # seconds without a write, after which a part file belongs to a process that was killed
_PART = re.compile(r"\.[^/]{1,64}\.[0-9a-f]{8}(\.\w+)?")  # the names that atomic_path gives


def _remove_parts(found: Iterable[Path], age: float = 0.0) -> None:
    """Remove the part files among these, if they were last written ``age`` seconds ago or before."""
    for path in found:
        with contextlib.suppress(OSError):
            if _PART.fullmatch(path.name) and path.is_file() and path.stat().st_mtime <= time.time() - age:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(folder: str | os.PathLike) -> Iterator[Path]:
    """Create ``folder`` and keep it to this process: S2FError while another process has claimed it.

    Unfinished files of a process that was killed (see :func:`atomic_path`) are removed first.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise S2FError(f"{folder} is in use by another s2f process: wait for it, or choose another folder.") from None
    except OSError as e:
        reason = _REASONS.get(e.errno or 0, f"{e.strerror or e}: choose another folder")
        raise S2FError(f"{folder} cannot be written, {reason}.") from e
    try:
        _remove_parts([*folder.glob(".*"), *folder.glob("*/.*")])
        yield folder
    finally:
        (folder / ".lock").unlink(missing_ok=True)  # while it is still locked
        lock.release()


def _is_disk_full(error: Exception, folder: Path) -> bool:
    # torch.save and safetensors report a full disk with their own exceptions, which have no errno.
    if "No space left" in str(error):
        return True
    try:
        return isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < 1 << 20
    except OSError:
        return False
