"""Directions in W against closed forms: the hyperplane, the projection, eigenvectors, principal components."""

import copy

import numpy as np
import pytest
import torch

from s2flib.errors import S2FError, WeightsError
from s2flib.inversion.directions import (
    RIDGE,
    Direction,
    _support_vector_machine,
    conditioned,
    ganspace,
    interfacegan,
    load_directions,
    save_directions,
    sefa,
)
from s2flib.weights.load import fingerprint, save_safetensors


def labelled(n, d, seed, share=0.5):
    """Codes around a mean, the true normal (length 1), and labels of the half space it points to."""
    g = torch.Generator().manual_seed(seed)
    normal = torch.nn.functional.normalize(torch.randn(d, generator=torch.Generator().manual_seed(1)), dim=0)
    w = torch.randn(n, d, generator=g) * torch.linspace(2.5, 3.5, d) + 9
    height = w @ normal
    return w, normal, height > height.quantile(1 - share)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_interfacegan_finds_the_hyperplane(share):
    w, normal, labels = labelled(3000, 16, 0, share)
    found = interfacegan(w, labels, "glasses")
    assert found.name == "glasses" and found.rows is None
    assert found.vector @ normal > 0.98  # and it points to the codes with the attribute
    assert found.vector.norm() == pytest.approx(1, abs=1e-5) and found.score > 0.93
    assert found.spread == pytest.approx(float((w @ found.vector).std()), rel=1e-5)
    # codes that it has never seen, both classes alike
    new, _, truth = labelled(3000, 16, 7, share)
    height = new @ found.vector
    middle = (height[truth].mean() + height[~truth].mean()) / 2
    above = height > middle
    assert above[truth].float().mean() > 0.85 and (~above[~truth]).float().mean() > 0.85


def test_score_is_of_codes_held_out():
    """Labels without meaning can be learnt by heart in many dimensions; on codes held out they are a coin."""
    torch.manual_seed(0)
    w, labels = torch.randn(200, 150), torch.rand(200) < 0.5
    normal, bias = _support_vector_machine(w.double().numpy(), labels.numpy())
    assert ((w.numpy() @ normal + bias > 0) == labels.numpy()).mean() > 0.8
    scores = [interfacegan(w, labels, seed=s).score for s in range(8)]
    assert abs(np.mean(scores) - 0.5) < 0.08 and len(set(scores)) > 1
    assert interfacegan(w, labels, seed=3).score == scores[3]


def test_both_classes_count_the_same():
    """Half of the few codes with the attribute look like those without it, which are then all right: (1 + ½) / 2."""
    torch.manual_seed(0)
    labels, w = torch.arange(4000) < 200, torch.randn(4000, 4)
    w[:, 0] += torch.where(torch.arange(4000) < 100, 8.0, -8.0)
    assert interfacegan(w, labels).score == pytest.approx(0.75, abs=0.05)


def test_support_vector_machine_is_at_its_minimum():
    w, _, labels = labelled(300, 5, 2, 0.3)
    labels ^= torch.rand(300, generator=torch.Generator().manual_seed(0)) < 0.1  # not separable
    codes, y = w.double().numpy(), labels.numpy()
    normal, bias = _support_vector_machine(codes, y)
    scale = codes.std(0).mean()

    def objective(n, b):
        """Of the hyperplane nᵀw + b = 0 whose margins are at ± 1."""
        short = [max(0.0, 1 - (1 if yes else -1) * float(n @ row + b)) ** 2 for row, yes in zip(codes, y, strict=True)]
        return RIDGE / 2 * (n @ n) * scale**2 + (np.mean(np.array(short)[y]) + np.mean(np.array(short)[~y])) / 2

    size = min(np.linspace(0.2, 3, 141), key=lambda s: objective(s * normal, s * bias))
    best = objective(size * normal, size * bias)
    random = np.random.default_rng(0)
    for _ in range(20):
        step = random.normal(size=6) * 0.05
        assert objective(size * normal + step[:5], size * bias + step[5]) > best - 1e-6
    assert np.linalg.norm(normal) == pytest.approx(1)


def test_interfacegan_refuses():
    w, _, labels = labelled(100, 4, 0)
    few = torch.zeros(100, dtype=torch.bool)
    few[:9] = True
    for codes, y in ((w, few), (w, ~few), (w, labels[:50]), (w[0], labels[:4])):
        with pytest.raises(S2FError, match="ten of each kind"):
            interfacegan(codes, y)


def direction(*numbers, name="d", **kw):
    return Direction(name, torch.nn.functional.normalize(torch.tensor(numbers, dtype=torch.float32), dim=0), 2.0, **kw)


def test_conditional_manipulation():
    torch.manual_seed(0)
    codes = torch.randn(500, 6) * torch.arange(1, 7)
    first, second, third = (direction(*torch.randn(6).tolist()) for _ in range(3))
    got = conditioned(first, [second], codes)
    by_hand = first.vector - (first.vector @ second.vector) * second.vector
    torch.testing.assert_close(got.vector, by_hand / by_hand.norm())
    assert got.spread == pytest.approx(float((codes @ got.vector).std()), rel=1e-5) and got.score is None
    # several, which are not orthogonal; one twice counts once
    for others in ([second, third], [second, third, second]):
        got = conditioned(direction(*first.vector, rows=(1, 2)), others, codes)
        assert got.vector.norm() == pytest.approx(1, abs=1e-5) and got.rows == (1, 2)
        assert max(abs(got.vector @ o.vector) for o in (second, third)) < 1e-5
        assert got.vector @ first.vector > 0
        # the nearest such direction: what is missing lies in the others' plane
        plane = torch.stack([second.vector, third.vector], 1)
        gap = first.vector - (first.vector @ got.vector) * got.vector
        assert (gap - plane @ torch.linalg.lstsq(plane, gap[:, None]).solution[:, 0]).norm() < 1e-5
    assert conditioned(first, [], codes) is first
    with pytest.raises(S2FError, match="nothing of the direction 'd' is left without d, d"):
        conditioned(first, [second, first], codes)


def stacked(generator, layers):
    state = generator.state_dict()
    names = ["conv1", *(f"convs.{i}" for i in range(4))]
    return torch.cat([state[f"{names[i]}.conv.modulation.weight"] / 32**0.5 for i in layers]).double()


@pytest.mark.parametrize("layers", [range(5), [0], [2, 4]])
def test_sefa_equals_the_singular_vectors(generator, layers):
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(0.3 * torch.randn_like(p))
    a = stacked(generator, layers)
    _, values, vectors = torch.linalg.svd(a)
    found = sefa(generator, layers, 4)
    codes = generator.random_codes(10_000, 0)
    for i, d in enumerate(found):
        assert abs(d.vector.double() @ vectors[i]) == pytest.approx(1, abs=1e-5)
        assert d.score == pytest.approx(float(values[i]) ** 2, rel=1e-5)
        assert d.score == pytest.approx(float((a @ d.vector.double()).square().sum()), rel=1e-5)  # ‖A n‖²
        assert d.rows == tuple(layers) and d.vector[d.vector.abs().argmax()] > 0
        assert d.spread == pytest.approx(float((codes @ d.vector).std()), rel=1e-4)
    # Eq. 6: no other direction changes more
    torch.manual_seed(0)
    others = torch.nn.functional.normalize(torch.randn(500, 32, dtype=torch.float64), dim=1)
    assert (a @ others.T).square().sum(0).max() < found[0].score
    # two different layers have different directions
    assert len(found) == 4 and found[0].name != found[1].name


def test_sefa_moves_what_enters_its_layers(generator):
    """The style of the chosen layers changes by α · spread · ‖A n‖; that of others not at all."""
    (d,) = sefa(generator, [2, 3], 1)
    w = generator.expand(generator.random_codes(1, 4))
    moved = d.move(w, 1.5)
    generator.requires_grad_(False)
    convs = [generator.conv1, *generator.convs]
    change = [
        float((conv.conv.modulation(moved[:, i]) - conv.conv.modulation(w[:, i])).norm())
        for i, conv in enumerate(convs)
    ]
    assert (change[2] ** 2 + change[3] ** 2) ** 0.5 == pytest.approx(1.5 * d.spread * d.score**0.5, rel=1e-3)
    assert all(c == 0 for i, c in enumerate(change) if i not in (2, 3))


def test_ganspace_equals_numpys_svd(generator):
    found = ganspace(generator, 500, 32, seed=3)
    z = torch.randn(500, 32, generator=torch.Generator().manual_seed(3))
    w = generator.mapping(z).detach().double().numpy()
    _, values, vectors = np.linalg.svd(w - w.mean(0), full_matrices=False)
    for i, d in enumerate(found[:6]):
        assert abs(d.vector.double().numpy() @ vectors[i]) == pytest.approx(1, abs=1e-4)
        assert d.spread == pytest.approx(values[i] / np.sqrt(499), rel=1e-4)
        assert d.score == pytest.approx(values[i] ** 2 / (values**2).sum(), rel=1e-4)
        assert d.rows is None and d.vector[d.vector.abs().argmax()] > 0
    assert sum(d.score for d in found) == pytest.approx(1)
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    other = ganspace(generator, 500, 1, seed=4)[0]
    assert not torch.allclose(other.vector, found[0].vector)


@pytest.mark.parametrize("rows", [None, (0, 3)])
def test_move_by_standard_deviations(rows):
    torch.manual_seed(0)
    d = direction(3.0, 4.0, 0.0, rows=rows)
    w = torch.randn(2, 5, 3)
    kept = w.clone()
    moved = d.move(w, -1.5)
    assert torch.equal(w, kept)
    own = range(5) if rows is None else rows
    for row in range(5):
        step = moved[:, row] - w[:, row]
        want = -1.5 * 2.0 if row in own else 0.0
        torch.testing.assert_close(step @ d.vector, torch.full((2,), want))
        assert (step - (step @ d.vector)[:, None] * d.vector).abs().max() < 1e-6
    assert torch.equal(d.move(w, 0.0), w)


def test_refuses(generator):
    for layers, k in (([], 1), ([5], 1), ([-1], 1), ([0], 0), ([0], 33)):
        with pytest.raises(S2FError, match="layers from 0 to 4"):
            sefa(generator, layers, k)
    for n, k in ((1, 1), (100, 0), (100, 33)):
        with pytest.raises(S2FError, match="two codes or more"):
            ganspace(generator, n, k)
    for vector, spread in ((torch.ones(3), 1.0), (torch.eye(3)[0], 0.0), (torch.eye(3), 1.0)):
        with pytest.raises(S2FError, match="length 1"):
            Direction("d", vector, spread)


def test_directions_are_saved_and_loaded(generator, tmp_path):
    w = generator.random_codes(400, 0)
    found = [interfacegan(w, w[:, 0] > w[:, 0].median(), "beard"), sefa(generator, [1, 2], 1)[0]]
    path = save_directions(tmp_path / "d.safetensors", found, generator, "mini")
    loaded = load_directions(path, generator, "mini")
    assert list(loaded) == ["beard", "SeFa 1"]
    for a, b in zip(found, loaded.values(), strict=True):
        assert (a.rows, a.score) == (b.rows, b.score) and b.spread == pytest.approx(a.spread)
        torch.testing.assert_close(a.vector, b.vector, atol=1e-3, rtol=0)
        assert float(b.vector.norm()) == pytest.approx(1, abs=1e-6)
    other = copy.deepcopy(generator)
    torch.nn.init.ones_(other.conv1.conv.weight)
    with pytest.raises(WeightsError, match="another generator: find them again"):
        load_directions(path, other, "mini")
    with pytest.raises(WeightsError, match="another preset"):
        load_directions(path, generator, "tiny")


@pytest.mark.parametrize(
    "about", ["[]", "{", '[{"name": "a"}]', '[{"name": "a", "spread": -1, "rows": null, "score": 1}]']
)
def test_damaged_directions_are_refused(generator, tmp_path, about):
    meta = {"kind": "directions", "preset": "mini", "decoder": fingerprint(generator), "directions": about}
    path = save_safetensors(tmp_path / "d.safetensors", {"vectors": torch.eye(32)[:1]}, meta)
    with pytest.raises(WeightsError, match="damaged"):
        load_directions(path, generator, "mini")
