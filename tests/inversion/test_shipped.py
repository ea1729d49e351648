"""The shipped networks in front of the shipped generator: each beats its own starting point on photos that no training
and no choice has seen (the test split)."""

import pytest
import torch

from s2flib.datasets import open_dataset
from s2flib.inversion.methods import Budget, load_method
from s2flib.inversion.networks import NETWORKS
from s2flib.inversion.target import Target
from s2flib.judges import perceptual_judge
from s2flib.presets import TINY
from s2flib.weights import load_generator

# w̄'s face for encoders and ReStyle; e4e's result for HyperStyle; e4e's w for HyperInverter
LESS = {"psp": 0.5, "e4e": 0.5, "restyle-psp": 0.6, "restyle-e4e": 0.6, "hyperstyle": 0.98, "hyperinverter": 0.75}


@pytest.fixture(scope="module")
def photos():
    test = open_dataset("tiny", "test")
    return torch.stack([test[i]["photo"] for i in range(0, 96, 4)])  # 24 people


@pytest.fixture(scope="module")
def generator():
    return load_generator("tiny")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_beats_its_starting_point(name, photos, generator):
    found = load_method(name, "tiny", generator=generator).invert(photos)
    start, end = found.trace[0].error, found.trace[-1].error
    assert end.mean() < LESS[name] * start.mean()
    assert (end < start).float().mean() > 0.8, "on nearly every photo"
    judge = perceptual_judge("tiny")
    small = TINY.loss_size
    percept = [
        judge(*(torch.nn.functional.adaptive_avg_pool2d(p.clamp(-1, 1), small) for p in (photos, s.reconstruction)))
        for s in (found.trace[0], found.trace[-1])
    ]
    assert percept[1].mean() < percept[0].mean()


@pytest.mark.parametrize("name", ["w-plus", "projector"])
def test_a_short_search_beats_the_mean_face(name, photos, generator):
    found = load_method(name, "tiny", generator=generator, budget=Budget.of(name, 12)).invert(photos[:2])
    assert (found.trace[-1].error < found.trace[0].error).all()


def test_a_short_tuning_beats_its_pivot(photos, generator):
    """In what it minimises, L_LPIPS + λ L_L2."""
    pivot = load_method("e4e", "tiny", generator=generator)
    found = load_method("pti", "tiny", generator=generator, pivot=pivot, budget=Budget.of("pti", 8)).invert(photos[:2])
    target = Target(photos[:2], perceptual_judge("tiny"), TINY.loss_size)
    start, end = (sum(target.distances(s.reconstruction)) for s in (pivot.invert(photos[:2]), found))
    assert (end < start).all()
