"""What every training here shares: devices, data order, randomness, clocks, logs.

Randomness is a function of (seed, step, process): each step reseeds torch with its own number and each epoch
shuffles with its own. A run that is killed and resumed at step k therefore draws exactly what it would have
drawn, on any number of processes, and a checkpoint needs no generator states beside its seed and step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from s2flib.errors import S2FError
from s2flib.images import save_image
from s2flib.runs import finish, run_record, write_json
from s2flib.training.checkpoint import fresh_or_resumed, save_checkpoint


def make_accelerator(mixed_precision: str = "auto", cpu: bool = False):
    """accelerate's Accelerator: the GPU if there is one, several processes if ``accelerate launch`` started them.

    mixed_precision: "no", "bf16", "fp16", or "auto": bf16 where the device multiplies it in hardware (NVIDIA
    Ampere and later, CPUs with AMX or AVX-512 BF16), fp16 on older GPUs, else float32.
    """
    from accelerate import Accelerator

    if mixed_precision == "auto":
        if torch.cuda.is_available() and not cpu:
            mixed_precision = "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"
        else:
            mixed_precision = "bf16" if cpu_has_fast_bf16() else "no"
    return Accelerator(mixed_precision=mixed_precision, cpu=cpu)


def cpu_has_fast_bf16() -> bool:
    """True where bfloat16 products run in hardware; elsewhere they are emulated and slower than float32."""
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return bool(has() or amx())


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """A 63-bit number unique to (seed, step, process)."""
    words = np.random.SeedSequence([seed, step, process]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def seed_step(seed: int, step: int, process: int = 0) -> None:
    """Reseed torch (CPU and GPU) for this step, see the module's docstring."""
    torch.manual_seed(step_seed(seed, step, process))


def batch_indices(n: int, batch: int, step: int, seed: int) -> np.ndarray:
    """Indices (batch,) of step ``step``: epochs of all n samples, each in an order of its own, run together."""
    if n < 1:
        raise S2FError("the training split is empty: check the data set and --limit.")
    first = step * batch
    picked, epoch = [], None
    for position in range(first, first + batch):
        if position // n != epoch:
            epoch = position // n
            order = np.random.default_rng([seed, epoch, 7]).permutation(n)
        picked.append(order[position % n])
    return np.asarray(picked)


def average_gradients(parameters: Iterable[nn.Parameter], accelerator) -> None:
    """Mean of the gradients over processes, in one message (as StyleGAN2-ADA does; no-op for one process)."""
    if accelerator.num_processes == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = accelerator.reduce(torch.cat([g.flatten() for g in grads]), reduction="mean")
    for g, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(part.view_as(g))


def average_buffers(module: nn.Module, accelerator) -> None:
    """Mean of floating buffers (batch-norm statistics) over processes."""
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(accelerator.reduce(buffer, reduction="mean"))


class Feed:
    """Batches by step number: ``feed(step)`` → photo (B, 3, H, W) in [−1, 1], sketch (B, 1, H, W) in [0, 1].

    Each process gets its share of the step's batch. A split that fits in ``memory`` bytes is decoded once
    and kept; a larger one is read by ``workers`` processes running ahead.
    """

    def __init__(self, dataset, batch: int, seed: int, accelerator, workers: int = 0, memory: int = 2**30):
        if batch % accelerator.num_processes:
            raise S2FError(f"batch {batch} cannot be shared by {accelerator.num_processes} processes: "
                           "choose a multiple.")
        self.dataset, self.batch, self.seed, self.workers = dataset, batch, seed, workers
        self.device, self.rank = accelerator.device, accelerator.process_index
        self.share = batch // accelerator.num_processes
        self.arrays = dataset.arrays() if 5 * len(dataset) * dataset.size**2 <= memory else None
        self._iterator, self._next = None, -1

    def indices(self, step: int) -> np.ndarray:
        """Of this process's share: (share,) indices into the data set."""
        every = batch_indices(len(self.dataset), self.batch, step, self.seed)
        return every[self.rank * self.share:(self.rank + 1) * self.share]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        if self.arrays is not None:
            index = self.indices(step)
            return self._photo(index), self._sketch(index)
        if step != self._next:
            self._iterator = iter(torch.utils.data.DataLoader(
                self.dataset, batch_sampler=_Steps(self, step), num_workers=self.workers, collate_fn=_stack))
        self._next = step + 1
        photo, sketch = next(self._iterator)
        return photo.to(self.device), sketch.to(self.device)

    def _photo(self, index: np.ndarray) -> Tensor:
        return torch.from_numpy(self.arrays["photos"][index]).to(self.device).float() / 127.5 - 1

    def _sketch(self, index: np.ndarray) -> Tensor:
        return torch.from_numpy(self.arrays["sketches"][index]).to(self.device).float() / 255


class _Steps:
    """An endless batch sampler that starts at any step."""

    def __init__(self, feed: Feed, first: int):
        self.feed, self.first = feed, first

    def __iter__(self):
        step = self.first
        while True:
            yield self.feed.indices(step).tolist()
            step += 1


def _stack(samples: list[dict]) -> tuple[Tensor, Tensor]:
    return torch.stack([s["photo"] for s in samples]), torch.stack([s["sketch"] for s in samples])


class Clock:
    """Wall time against a limit in seconds (None: no limit)."""

    def __init__(self, limit: float | None):
        self.start, self.limit = time.monotonic(), limit

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def is_over(self) -> bool:
        return self.limit is not None and self.elapsed() >= self.limit


class Log:
    """Scalars and pictures to TensorBoard (``out/tensorboard``) and means of them to a CSV (``out/log.csv``)."""

    def __init__(self, out: Path, enabled: bool = True):
        self.out, self.enabled, self.writer = Path(out), enabled, None
        self.pending: dict[str, list[float]] = {}

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.pending.setdefault(name, []).append(float(value))

    def flush(self, step: int) -> dict[str, float]:
        """Write the means since the last flush; returns them."""
        means = {k: float(np.mean(v)) for k, v in self.pending.items()}
        self.pending = {}
        if self.enabled and means:
            if self.writer is None:
                from torch.utils.tensorboard import SummaryWriter

                self.writer = SummaryWriter(str(self.out / "tensorboard"))
            new = not (self.out / "log.csv").exists()
            with open(self.out / "log.csv", "a") as f:
                if new:
                    f.write("step,name,value\n")
                for name, value in means.items():
                    f.write(f"{step},{name},{value:.6g}\n")
                    self.writer.add_scalar(name, value, step)
        return means

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def picture_grid(pictures: Tensor, columns: int) -> np.ndarray:
    """(N, 3, H, W) in [−1, 1] → one (rows·H, columns·W, 3) uint8 picture, row by row."""
    n, _, h, w = pictures.shape
    rows = -(-n // columns)
    canvas = np.full((rows * h, columns * w, 3), 255, np.uint8)
    tiles = ((pictures.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for i, tile in enumerate(tiles):
        r, c = divmod(i, columns)
        canvas[r * h:(r + 1) * h, c * w:(c + 1) * w] = tile
    return canvas


def run_training(trainer, cfg, kind: str, accelerator) -> None:
    """The loop every training shares: resume, step, log, save, stop at ``cfg.steps`` or ``cfg.max_time``.

    trainer: has ``done`` (steps taken), ``step() → dict of floats``, ``validate() → dict of floats``,
             ``state()``, ``load(state)``, ``export(out)`` and ``picture() → (H, W, 3) uint8``.
    ``cfg.out`` gets checkpoint.pt, samples/*.png, log.csv, tensorboard/ and run.json beside what
    ``export`` writes. Ctrl-C or a kill loses what was learnt since the last save, and nothing else.
    """
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    state = fresh_or_resumed(out, kind, asdict(cfg), cfg.resume)
    if state:
        trainer.load(state)
    record = run_record(cfg.preset, asdict(cfg), cfg.seed)
    clock, log, first = Clock(cfg.max_time), Log(out, accelerator.is_main_process), trainer.done
    saved_at = clock.elapsed()

    def save() -> None:
        if accelerator.is_main_process:
            log.add(trainer.validate())
            save_checkpoint(out, kind, asdict(cfg), trainer.state())
            trainer.export(out)
            save_image(out / "samples" / f"{trainer.done:07d}.png", trainer.picture(), overwrite=True,
                       metadata={"step": str(trainer.done)}, synthetic=True)
        accelerator.wait_for_everyone()

    # Processes must stop and save together: only the first one looks at the clock.
    while trainer.done < cfg.steps and not agree(clock.is_over(), accelerator):
        stats = trainer.step()
        if bad := [name for name, value in stats.items() if not math.isfinite(value)]:
            raise S2FError(f"training broke at step {trainer.done:,}: {', '.join(bad)} came out as no number. What was "
                           "saved before still stands. Begin again with a smaller lr or --mixed-precision no; the "
                           "same options and --resume would most likely break at the same step.")
        log.add(stats)
        if trainer.done % cfg.log_every == 0:
            means = log.flush(trainer.done)
            rate = (trainer.done - first) * cfg.batch / clock.elapsed()
            accelerator.print(f"step {trainer.done:,}  {trainer.done * cfg.batch:,} images  "
                              f"{clock.elapsed():.0f} s  {rate:.1f} images/s  "
                              + "  ".join(f"{k} {v:.3f}" for k, v in means.items()), flush=True)
        if agree(clock.elapsed() - saved_at > cfg.save_every, accelerator):
            saved_at = clock.elapsed()
            save()
    save()
    log.flush(trainer.done)
    log.close()
    if accelerator.is_main_process:
        write_json(out / "run.json", finish(record, step=trainer.done, images=trainer.done * cfg.batch),
                   overwrite=True)


def agree(answer: bool, accelerator) -> bool:
    """The first process's answer, on all processes."""
    if accelerator.num_processes == 1:
        return answer
    from accelerate.utils import broadcast

    return bool(broadcast(torch.tensor(int(answer), device=accelerator.device)).item())
