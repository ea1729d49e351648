"""Killed processes. The promise: no file under a final name is half-written, and the same command, given again,
succeeds with the result of an undisturbed run.

The processes are forked from a server that has imported everything once, so that a kill takes a fraction of a second.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
from local_server import local_server
from PIL import Image

from s2flib.files import environment
from s2flib.weights import safe_load

from .common import Broken, ensure, pick, promise, stream

NAMES = ("sketch", "save", "train", "fetch")  # jobs.JOBS, which this process need not import
PATIENCE = 60  # seconds for one process
BODY = b"PK\x03\x04" + np.random.default_rng(0).bytes(60_000)
PART = (".part", ".etag", ".lock")  # what a download may leave


@dataclass
class Kill:
    job: str
    moment: float  # share of the times that the job touches a file
    delay: float  # seconds after that

    @property
    def what(self) -> str:
        return f"{self.job}, at {self.moment:.0%} of its file operations and {1000 * self.delay:.1f} ms"


def case(seed: int) -> Kill:
    rng = stream("kills", seed)
    delay = 0.0 if rng.random() < 0.5 else float(rng.random() ** 3 * 0.05)
    return Kill(pick(rng, NAMES), float(rng.random()), delay)


@functools.cache
def _server() -> Any:
    """The processes' context; their fork server is started with what its preloading needs."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.jobs"])
    with environment({"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()
    return context


def _work(*arguments) -> None:
    from .jobs import work

    work(*arguments)


def _prepare(job: str, folder: str) -> None:
    from .jobs import prepare

    prepare(job, Path(folder))


def _process(target, *arguments) -> int:
    """Exit code of the target in a process of its own."""
    process = _server().Process(target=target, args=arguments)
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
        raise Broken(f"a process did not end within {PATIENCE} s")
    return process.exitcode


def _run(job: str, folder: Path, kill_at: int = 0, delay: float = 0.0) -> tuple[int, str]:
    """Exit code, and the number of file operations or the error, of one process that does the job."""
    with local_server(BODY) as server, tempfile.TemporaryDirectory() as aside:
        server.script = [{"etag": '"v1"', "pause": 0.002, "piece": 4000}]
        count = Path(aside) / "count"
        code = _process(_work, job, str(folder), server.url, kill_at, delay, str(count))
        return code, count.read_text() if count.exists() else ""


@functools.cache
def undisturbed(job: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """(contents before, contents after, file operations) of a job that nobody kills."""
    with tempfile.TemporaryDirectory() as folder:
        ensure(_process(_prepare, job, folder) == 0, f"{job} could not be prepared")
        before = contents(Path(folder))
        code, told = _run(job, Path(folder))
        ensure(code == 0, f"{job} fails even undisturbed: {told}")
        return before, contents(Path(folder)), int(told)


def contents(folder: Path) -> dict[str, Any]:
    """Name → content of every file under a final name; a file that does not open is Broken."""
    found = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_dir() or hidden or path.name.endswith(PART) or "tfevents" in path.name:
            continue
        name = path.relative_to(folder).as_posix()
        try:
            found[name] = _content(path)
        except Exception as error:
            raise Broken(f"{name} is half-written ({path.stat().st_size} bytes): {error}") from None
    return found


def _content(path: Path) -> Any:
    if path.suffix in (".png", ".jpg", ".webp"):
        with Image.open(path) as image:
            return (image.mode, image.size, hashlib.sha256(image.tobytes()).hexdigest())
    if path.suffix == ".json":
        record = json.loads(path.read_text())
        return {key: record[key] for key in ("step", "values", "images") if key in record}
    if path.suffix == ".safetensors" or path.name == "checkpoint.pt":
        return repr(_digests(safe_load(path)))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digests(value: Any) -> Any:
    if isinstance(value, dict):  # a checkpoint knows its folder
        return {str(k): _digests(v) for k, v in sorted(value.items(), key=str) if k not in ("config",)}
    return hashlib.sha256(value.numpy().tobytes()).hexdigest() if hasattr(value, "numpy") else repr(value)


@promise("kill", lambda seed: case(seed).what)
def check(seed: int, folder: Path) -> None:
    kill = case(seed)
    before, after, operations = undisturbed(kill.job)
    ensure(_process(_prepare, kill.job, str(folder)) == 0, "it could not be prepared")
    code, told = _run(kill.job, folder, 1 + int(kill.moment * operations), kill.delay)
    ensure(code in (0, -9), f"it failed before it was killed: {told}")
    for name, content in contents(folder).items():
        whole = content in (before.get(name), after.get(name))
        ensure(whole or kill.job == "train", f"{name} is neither the old nor the new file")  # checkpoints grow
    began = time.monotonic()
    code, told = _run(kill.job, folder)
    ensure(code == 0, f"it failed when it was run again: {told}")
    ensure(time.monotonic() - began < PATIENCE / 2, "it took very long when it was run again")
    now = contents(folder)
    for name in sorted(now.keys() | after.keys()):
        if kill.job == "train" and name.startswith("samples/") and name not in now:
            continue  # killed between a checkpoint and its picture
        ensure(now.get(name) == after.get(name), f"{name} differs from that of an undisturbed run")
