"""Data order and randomness of every training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s2flib.errors import DataError, S2FError
from s2flib.training import feed
from s2flib.training.trainer import make_accelerator


def test_batches_are_epochs_in_new_orders():
    n, batch = 10, 4
    drawn = np.concatenate([feed.batch_indices(n, batch, s, seed=3) for s in range(10)])
    epochs = drawn.reshape(4, n)
    for epoch in epochs:
        assert sorted(epoch) == list(range(n))
    assert not (epochs[0] == epochs[1]).all()
    assert (feed.batch_indices(n, batch, 7, seed=3) == drawn[28:32]).all()
    assert not (feed.batch_indices(n, 10, 0, seed=4) == epochs[0]).all()


def test_step_seeds_differ_by_every_argument():
    seeds = {feed.step_seed(a, b, c) for a in range(4) for b in range(50) for c in range(3)}
    assert len(seeds) == 4 * 50 * 3


def test_empty_split_is_a_clear_error():
    with pytest.raises(S2FError, match="empty"):
        feed.batch_indices(0, 4, 0, 0)


def test_feed_gives_the_samples_of_its_indices_in_memory_and_from_a_reader():
    acc = make_accelerator(cpu=True)
    from s2flib.datasets import open_dataset

    ds = open_dataset("tiny", "train", limit=8)
    batches = feed.Feed(ds, 4, 0, acc)
    photo, sketch = batches(1)
    index = feed.batch_indices(8, 4, 1, 0)
    for k, i in enumerate(index):
        assert torch.allclose(photo[k], ds[int(i)]["photo"], atol=1e-6)
        assert torch.allclose(sketch[k], ds[int(i)]["sketch"], atol=1 / 255)
    reader = feed.Feed(ds, 4, 0, acc, workers=0, memory=0)  # too large for memory: a DataLoader
    for step in (0, 1, 5):
        assert torch.allclose(reader(step)[0], batches(step)[0], atol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_workers_error_reads_like_one_raised_here(workers):
    """No traceback pressed into the message, whichever process met the bad file."""

    class Broken(torch.utils.data.Dataset):
        size = 100_000  # too large to keep in memory

        def __len__(self):
            return 8

        def __getitem__(self, i):
            if i == 5:
                raise DataError("5.jpg is damaged: unpack it again.")
            return {"photo": torch.zeros(3, 8, 8), "sketch": torch.zeros(1, 8, 8)}

    broken = feed.Feed(Broken(), 4, 0, make_accelerator(cpu=True), workers=workers)
    with pytest.raises(DataError) as error:
        for step in range(4):
            broken(step)
    assert str(error.value) == "5.jpg is damaged: unpack it again."
