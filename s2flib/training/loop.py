"""The loop of every training: resume, step, log, save, stop; checkpoints are written atomically."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2flib.errors import S2FError, WeightsError
from s2flib.files import atomic_path, claimed, write_text
from s2flib.images import save_image
from s2flib.runs import finish, run_record, write_json
from s2flib.training.trainer import Trainer
from s2flib.weights.load import safe_load

CHECKPOINT = "checkpoint.pt"
# fields that may differ when a run is resumed: its length, and how often it saves and logs
_FREE = {"steps", "images", "max_time", "out", "resume", "save_every", "log_every"}


def run_training(trainer: Trainer) -> None:
    """Train until ``steps`` or ``max_time``.

    Writes checkpoint.pt, samples/*.png, log.csv, tensorboard/ and run.json to ``out``, in addition to the files of
    ``export``. Ctrl-C or a kill loses only the progress since the last checkpoint.
    """
    with claimed(trainer.cfg.out) if trainer.acc.is_main_process else nullcontext():
        _run(trainer)


def _run(trainer: Trainer) -> None:
    cfg, acc, out = trainer.cfg, trainer.acc, Path(trainer.cfg.out)
    if state := _state_to_resume(out, trainer.kind, asdict(cfg), cfg.resume):
        trainer.load(state)
    record = run_record(cfg.preset, asdict(cfg), cfg.seed)
    clock, log, first = Clock(cfg.max_time), Log(out, trainer.done, acc.is_main_process), trainer.done
    saved_at = clock.elapsed()

    def save() -> None:
        _check_finite(log.means(), trainer.done)
        if acc.is_main_process:
            log.write(trainer.done, trainer.validate())
            save_checkpoint(out, trainer.kind, asdict(cfg), trainer.state())
            trainer.export(out)
            path = out / "samples" / f"{trainer.done:07d}.png"
            save_image(path, trainer.picture(), overwrite=True, metadata={"step": str(trainer.done)}, synthetic=True)
        acc.wait_for_everyone()

    # Processes must stop and save together, so only the first one checks the clock.
    while trainer.done < cfg.steps and not _agree(clock.is_over(), acc):
        log.add(trainer.step())
        if trainer.done % cfg.log_every == 0:
            _check_finite(log.means(), trainer.done)
            means = log.flush(trainer.done)
            rate = (trainer.done - first) * cfg.batch / clock.elapsed()
            acc.print(
                f"step {trainer.done:,}  {trainer.done * cfg.batch:,} images  {clock.elapsed():.0f} s  "
                f"{rate:.1f} images/s  " + "  ".join(f"{k} {v:.4g}" for k, v in means.items()),
                flush=True,
            )
        if _agree(clock.elapsed() - saved_at > cfg.save_every, acc):
            saved_at = clock.elapsed()
            save()
    log.flush(trainer.done)
    save()
    log.close()
    if acc.is_main_process:
        end = finish(record, step=trainer.done, images=trainer.done * cfg.batch)
        write_json(out / "run.json", end, overwrite=True)


def _check_finite(means: dict[str, float], step: int) -> None:
    if bad := [name for name, value in means.items() if not math.isfinite(value)]:
        raise S2FError(
            f"training broke at step {step:,} or since the last log line: {', '.join(bad)} is NaN or infinite. The "
            "last checkpoint is unchanged. Start again with a smaller lr or --mixed-precision no; --resume with the "
            "same options would most likely break at the same step."
        )


def _agree(answer: bool, accelerator) -> bool:
    """The first process's answer, on all processes."""
    if accelerator.num_processes == 1:
        return answer
    from accelerate.utils import broadcast

    first: Any = broadcast(torch.tensor(int(answer), device=accelerator.device))
    return bool(first.item())


def save_checkpoint(out: Path, kind: str, config: dict, state: dict) -> Path:
    """Write ``out/checkpoint.pt`` atomically: {kind, config, state}, only tensors and plain values."""
    path = Path(out) / CHECKPOINT
    with atomic_path(path) as part:
        torch.save({"kind": kind, "config": config, "state": state}, part)
    return path


def load_checkpoint(out: Path, kind: str, config: dict) -> dict | None:
    """The state saved in ``out``, or None if there is none; WeightsError if it belongs to another run.

    ``config`` must equal the saved one except for _FREE, so that a resumed run equals an uninterrupted one.
    """
    path = Path(out) / CHECKPOINT
    if not path.exists():
        return None
    saved = safe_load(path)
    if saved.get("kind") != kind:
        raise WeightsError(f"{path} is a checkpoint of {saved.get('kind')!r}, not of {kind!r}: choose another --out.")
    differing = sorted(k for k in config if k not in _FREE and config[k] != saved["config"].get(k))
    if differing:
        raise WeightsError(
            f"{path} was trained with other settings ({', '.join(differing)} differ): choose another --out, or repeat "
            "the settings of its run.json."
        )
    return saved["state"]


def _state_to_resume(out: Path, kind: str, config: dict, resume: bool) -> dict | None:
    """The state to continue from. S2FError if the folder already contains a run and ``resume`` is False."""
    if resume:
        return load_checkpoint(out, kind, config)
    if (out / CHECKPOINT).exists():
        raise S2FError(f"{out} already contains a training run: add --resume to continue it, or choose another --out.")
    return None


class Clock:
    """Wall time against a limit in seconds (None: no limit)."""

    def __init__(self, limit: float | None):
        self.start, self.limit = time.monotonic(), limit

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def is_over(self) -> bool:
        return self.limit is not None and self.elapsed() >= self.limit


class Log:
    """Scalars to TensorBoard (``out/tensorboard``) and ``out/log.csv`` (step, name, value).

    Rows of an interrupted run after ``step``, where this one starts, are removed: those steps run again. A value is
    written once per step, also where a run ends at its last checkpoint or a finished run is resumed.
    """

    HEAD = "step,name,value\n"

    def __init__(self, out: Path, step: int = 0, enabled: bool = True):
        self.path, self.step, self.enabled, self.writer = Path(out) / "log.csv", step, enabled, None
        self.pending: dict[str, list[Tensor]] = {}
        self.written: set[tuple[int, str]] = set()
        if enabled and self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as f:
                kept = [row for row in csv.reader(f) if len(row) == 3 and row[0].isdecimal() and int(row[0]) <= step]
            write_text(self.path, self.HEAD + "".join(",".join(row) + "\n" for row in kept), overwrite=True)
            self.written = {(int(row[0]), row[1]) for row in kept}

    def add(self, values: Mapping[str, float | Tensor]) -> None:
        """Collect values for the next :meth:`flush`. Tensors stay on their device, so a GPU does not wait."""
        for name, value in values.items():
            self.pending.setdefault(name, []).append(torch.as_tensor(value).detach().float())

    def means(self) -> dict[str, float]:
        """The means of the values added since the last flush."""
        if not self.pending:
            return {}
        means = torch.stack([torch.stack(v).mean() for v in self.pending.values()]).tolist()
        return dict(zip(self.pending, means, strict=True))

    def flush(self, step: int) -> dict[str, float]:
        """Write :meth:`means` and forget the values; returns them."""
        means = self.means()
        self.pending = {}
        self.write(step, means)
        return means

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write values of this step, except those that are there already."""
        new = {name: value for name, value in values.items() if (step, name) not in self.written}
        if not (self.enabled and new):
            return
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=self.step + 1)
        head = "" if self.path.exists() else self.HEAD
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(head + "".join(f"{step},{name},{value:.6g}\n" for name, value in new.items()))
        for name, value in new.items():
            self.writer.add_scalar(name, value, step)
        self.written |= {(step, name) for name in new}

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
