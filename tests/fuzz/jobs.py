"""What the killed processes do: small runs of everything in s2flib that writes files. See kills.py.

Each job gets a folder that :func:`prepare` filled, and the URL of a file. The fork server imports this module once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch
import torch.utils.tensorboard  # the log's; imported here so that no job spends its time on it
from fake_faces import crude_face
from PIL import Image
from tqdm import tqdm

from s2flib.datasets.sketch_folder import sketch_folder
from s2flib.files import environment, write_text
from s2flib.images import save_image
from s2flib.runs import write_json
from s2flib.training.loop import run_training
from s2flib.training.trainer import RunConfig, Trainer, Updates, make_accelerator
from s2flib.weights import registry, save_safetensors, update_sha256sums

PHOTOS = 5
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "os.truncate", "os.listdir", "os.scandir")
NEW, OLD = 1, 2  # seeds of what is written, and of what is there before


def prepare(job: str, folder: Path) -> None:
    """What is there before the job."""
    if job == "sketch":
        (folder / "photos" / "sub").mkdir(parents=True)
        for k in range(PHOTOS):
            Image.fromarray(crude_face(64, k)[0]).save(folder / "photos" / ("sub" if k % 2 else "") / f"{k}.png")
    if job == "save":
        save(folder, "", OLD)


def sketch(folder: Path, url: str) -> None:
    report = sketch_folder(folder / "photos", folder / "out", workers=2, progress=False)
    assert not report.failed, report.failed


def save(folder: Path, url: str, seed: int = NEW) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    for name in ("a.png", "b.jpg", "new/c.webp"):
        save_image(folder / name, noise, {"seed": seed}, overwrite=True)
    tensors = {f"layer.{k}": torch.full((200, 100), float(seed + k)) for k in range(5)}
    save_safetensors(folder / "net.safetensors", tensors, {"kind": "net"}, overwrite=True)
    update_sha256sums(folder)
    write_text(folder / "notes.txt", f"{seed}\n" * 5000, overwrite=True)
    write_json(folder / "run.json", {"step": seed, "values": [seed] * 5000}, overwrite=True)


class Walk(Trainer):
    """Random steps of a vector, with an optimiser: the next depends on all that a checkpoint holds."""

    kind, saved = "walk", ("net", "update", "average")

    def __init__(self, cfg: RunConfig):
        super().__init__(cfg, make_accelerator(cpu=True))
        self.net = torch.nn.Linear(30, 30)
        self.update = Updates(torch.optim.Adam(self.net.parameters(), cfg.lr), self)
        self.average = torch.zeros(30, 30)

    def train_step(self) -> dict[str, float]:
        loss = self.net(torch.randn(4, 30)).square().mean()
        self.update(loss)
        self.average = self.average * 0.9 + self.net.weight.detach() * 0.1
        return {"loss": float(loss)}

    def picture(self) -> np.ndarray:
        return np.full((64, 64, 3), self.done, np.uint8)

    def export(self, out: Path) -> None:
        save_safetensors(out / "walk.safetensors", self.net.state_dict(), {"kind": "walk"}, overwrite=True)


def train(folder: Path, url: str) -> None:
    run_training(Walk(RunConfig(out=str(folder), steps=4, batch=4, lr=0.1, save_every=0.0, log_every=1, resume=True)))


def fetch(folder: Path, url: str) -> None:
    entry = registry.Published("net.pt", "a network", "MIT", (url,), None)
    with mock.patch.dict(registry.REGISTRY, {"net": entry}), environment({"S2F_CACHE": str(folder)}):
        registry.fetch("net")


def careless(folder: Path, url: str) -> None:
    """A job that breaks the promise, to test the test."""
    with open(folder / "notes.json", "w") as f:
        for line in ('{"step": ', "1", "}"):
            f.write(line)
            f.flush()
            (folder / "other").mkdir(exist_ok=True)  # a moment at which to be killed


JOBS = {"sketch": sketch, "save": save, "train": train, "fetch": fetch, "careless": careless}


def work(job: str, folder: str, url: str, kill_at: int, delay: float, count_to: str) -> None:
    """Do the job in this process, which kills itself ``delay`` seconds after the ``kill_at``-th time that it touches a
    file of the folder (0: never). The number of times is written into the file ``count_to``."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    tqdm.set_lock(threading.RLock())  # its default one is a semaphore of the system, which a kill would leave behind
    touched = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal touched
        if event not in EVENTS or not str(arguments[0]).startswith(folder):
            return
        touched += 1
        if touched == kill_at:
            if delay:
                threading.Thread(target=_kill, args=(delay,), daemon=True).start()
            else:
                _kill(0)

    sys.addaudithook(hook)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            JOBS[job](Path(folder), url)
        except BaseException as error:
            Path(count_to).write_text(f"{type(error).__name__}: {error}")
            os._exit(1)
    Path(count_to).write_text(str(touched))
    os._exit(0)


def _kill(delay: float) -> None:
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)
