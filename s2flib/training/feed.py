"""Data order and randomness of every training, as functions of (seed, step, process).

Each step reseeds torch and each epoch has its own shuffle. A run that is killed and resumed at step k therefore uses
the same random numbers as an uninterrupted one, and a checkpoint needs no generator states besides its seed and step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2flib.datasets.live import Pool
from s2flib.errors import S2FError
from s2flib.images import as_float
from s2flib.training.sketch_styles import varied_sketches


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """A 63-bit number unique to (seed, step, process)."""
    words = np.random.SeedSequence([seed, step, process]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def seed_step(seed: int, step: int, process: int = 0) -> None:
    """Reseed torch (CPU and GPU) for this step."""
    torch.manual_seed(step_seed(seed, step, process))


def batch_indices(n: int, batch: int, step: int, seed: int) -> np.ndarray:
    """Indices (batch,) of step ``step``: consecutive epochs over all n samples, each in its own order."""
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


class Feed:
    """Batches by step number: ``feed(step)`` → photo (B, 3, H, W) in [−1, 1], sketch (B, 1, H, W) in [0, 1].

    Each process gets its share of the step's batch. A split that fits in ``memory`` bytes is decoded once and kept; a
    larger one is read in advance by ``workers`` processes.
    """

    def __init__(self, dataset, batch: int, seed: int, accelerator, workers: int = 0, memory: int = 2**30):
        if batch % accelerator.num_processes:
            raise S2FError(
                f"batch {batch} cannot be divided among {accelerator.num_processes} processes: choose a multiple."
            )
        self.dataset, self.batch, self.seed, self.workers = dataset, batch, seed, workers
        self.device, self.rank = accelerator.device, accelerator.process_index
        self.share = batch // accelerator.num_processes
        self.arrays = dataset.arrays() if 5 * len(dataset) * dataset.size**2 <= memory else None
        self._iterator: Any = None
        self._next = -1

    def indices(self, step: int) -> np.ndarray:
        """This process's share of the batch: (share,) indices into the data set."""
        every = batch_indices(len(self.dataset), self.batch, step, self.seed)
        return every[self.rank * self.share : (self.rank + 1) * self.share]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        if self.arrays is not None:
            index = self.indices(step)
            photo, sketch = (torch.from_numpy(self.arrays[k][index]).to(self.device) for k in ("photos", "sketches"))
            return as_float(photo), sketch.float() / 255
        if step != self._next:
            batches = _Steps(self, step)
            self._iterator = iter(
                torch.utils.data.DataLoader(
                    _Carried(self.dataset), batch_sampler=batches, num_workers=self.workers, collate_fn=_stack_or_error
                )
            )
        self._next = step + 1
        batch = next(self._iterator)
        if isinstance(batch, S2FError):
            raise batch
        photo, sketch = batch
        return photo.to(self.device), sketch.to(self.device)


class PeopleFeed:
    """Batches of rendered people (:mod:`s2flib.datasets.live`) with sketches of varied style, by step number.

    ``feed(step)`` → photo (B, 3, H, W) in [−1, 1], sketch (B, 1, H, W) in [0, 1]; the sketches' style comes from
    torch's random numbers. ``used`` is the number of people taken from the pool; :meth:`refresh` lets new ones join.
    On a GPU, people stay in its memory once they have been used, up to ``memory`` bytes.
    """

    def __init__(self, people: Pool, batch: int, seed: int, accelerator, lines: float, memory: int = 4 * 2**30):
        if batch % accelerator.num_processes:
            raise S2FError(
                f"batch {batch} cannot be divided among {accelerator.num_processes} processes: choose a multiple."
            )
        if len(people) < batch:
            raise S2FError(f"there are only {len(people)} people for a batch of {batch}: run s2f render-people first.")
        self.people, self.batch, self.seed, self.lines = people, batch, seed, lines
        self.device, self.rank = accelerator.device, accelerator.process_index
        self.share, self.used = batch // accelerator.num_processes, len(people)
        self.kept = KeptPeople(people, self.device, memory) if self.device.type == "cuda" else None

    def refresh(self) -> None:
        self.used = len(self.people)

    def everything(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The batch's photos, sketches and causes (B, N_CAUSES)."""
        index = batch_indices(self.used, self.batch, step, self.seed)
        index = index[self.rank * self.share : (self.rank + 1) * self.share]
        if self.kept is not None and self.kept.fits(self.used):
            photo, mask, drawing, known = self.kept.batch(index, self.used)
        else:
            photo, mask, drawing, known = (torch.from_numpy(a).to(self.device) for a in self.people.batch(index))
        photo = as_float(photo)
        return photo, varied_sketches(photo, mask, drawing[:, None].float() / 255, self.lines), known

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        return self.everything(step)[:2]


class KeptPeople:
    """A pool's people on a device, filled from the pool as far as they are used."""

    def __init__(self, people: Pool, device: torch.device, memory: int):
        self.people, self.device = people, device
        self.most = memory // sum(a[0].nbytes for a in people.batch(np.arange(1)))  # people that fit
        self.arrays: list[Tensor] = []

    def fits(self, used: int) -> bool:
        """Whether so many people fit; if not, those that are kept are released."""
        if used > self.most:
            self.arrays = []
        return used <= self.most

    def batch(self, index: np.ndarray, used: int) -> list[Tensor]:
        """Photos, masks, drawings and causes of the people ``index``, as :meth:`Pool.batch`."""
        have = len(self.arrays[0]) if self.arrays else 0
        for first in range(have, used, 2000):
            new = self.people.batch(np.arange(first, min(first + 2000, used)))
            parts = [torch.from_numpy(a).to(self.device) for a in new]
            self.arrays = [torch.cat(x) for x in zip(self.arrays, parts, strict=True)] if self.arrays else parts
        rows = torch.from_numpy(index).to(self.device, non_blocking=True)
        return [a[rows] for a in self.arrays]


class _Carried(torch.utils.data.Dataset):
    """A data set whose S2FErrors are returned instead of raised: a loader process would wrap them in its traceback."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, i: int) -> dict | S2FError:
        try:
            return self.dataset[i]
        except S2FError as e:
            return type(e)(str(e))


def _stack_or_error(samples: list) -> tuple[Tensor, Tensor] | S2FError:
    return next((s for s in samples if isinstance(s, S2FError)), None) or stack(samples)


class _Steps:
    """An endless batch sampler that starts at any step."""

    def __init__(self, feed: Feed, first: int):
        self.feed, self.first = feed, first

    def __iter__(self):
        step = self.first
        while True:
            yield self.feed.indices(step).tolist()
            step += 1


def stack(samples: list[dict]) -> tuple[Tensor, Tensor]:
    """Samples of a data set as batches of photos and sketches."""
    return torch.stack([s["photo"] for s in samples]), torch.stack([s["sketch"] for s in samples])
