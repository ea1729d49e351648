"""Runs many cases in processes of their own, so that a hang or a crash is one wrong case and not the end."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

# seconds that a case of each kind may take, on a busy machine
LIMITS = {"pictures": 30.0, "weights": 60.0, "folders": 60.0, "downloads": 60.0, "kills": 240.0, "naps": 0.5}


@dataclass
class Result:
    kind: str
    seed: int
    sentence: str | None  # what is wrong
    seconds: float


class Worker:
    """A process that checks one case of these kinds at a time."""

    def __init__(self, kinds: set[str]):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, kinds))
        self.process.start()
        theirs.close()
        self.case, self.began = ("", 0), 0.0
        self.pipe.recv()  # it has imported everything

    def give(self, kind: str, seed: int) -> None:
        self.case, self.began = (kind, seed), time.monotonic()
        self.pipe.send((kind, seed))

    def overdue(self) -> bool:
        return time.monotonic() - self.began > LIMITS[self.case[0]]

    def result(self) -> Result:
        """Of a case that is finished, or has crashed, or is overdue."""
        seconds = time.monotonic() - self.began
        if self.pipe.poll():
            try:
                return Result(*self.case, self.pipe.recv(), seconds)
            except EOFError:
                self.process.join()
                why = f"the process died with exit code {self.process.exitcode}"
        else:
            why = f"it took more than {LIMITS[self.case[0]]:.0f} s"
        return Result(*self.case, f"{self.case[0]} {self.case[1]}: {why}", seconds)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, kinds: set[str]) -> None:
    checks = {kind: importlib.import_module(f"{__package__}.{kind}").check for kind in kinds}
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    pipe.send("ready")
    while True:
        try:
            kind, seed = pipe.recv()
        except EOFError:
            return
        pipe.send(tried(checks[kind], seed))


def tried(check: Callable[[int, Path], str | None], seed: int) -> str | None:
    """One case, in a folder of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return check(seed, Path(folder))


def run(cases: list[tuple[str, int]], jobs: int) -> Iterator[Result]:
    """The results of (kind, seed), as they come."""
    kinds = {kind for kind, _ in cases}
    waiting, workers = iter(cases), [Worker(kinds) for _ in range(jobs)]
    busy: dict[Any, Worker] = {}
    try:
        while True:
            for worker in [w for w in workers if w not in busy.values()]:
                if (case := next(waiting, None)) is not None:
                    worker.give(*case)
                    busy[worker.pipe] = worker
            if not busy:
                return
            ready = wait(list(busy), timeout=1.0)
            for pipe, worker in list(busy.items()):
                if pipe not in ready and not worker.overdue():
                    continue
                result = worker.result()
                del busy[pipe]
                if pipe not in ready or not worker.process.is_alive():  # it hangs or has died: a new one takes over
                    worker.stop()
                    workers[workers.index(worker)] = Worker(kinds)
                yield result
    finally:
        for worker in workers:
            worker.stop()
