"""Baselines against their definitions; the W+ ceiling finds a code that is known to exist."""

import numpy as np
import pytest
import torch
from fake_faces import Faces, MeanAbsolute, fake_judges

from s2flib.errors import DataError, S2FError
from s2flib.evaluation import evaluate
from s2flib.evaluation.baselines import baseline_scores, mean_face, nearest_sketch, w_plus_optimisation
from s2flib.presets import TINY

SIZE = TINY.size


class InRam(Faces):
    """The same faces with the data sets' arrays(), in 8 bits."""

    def arrays(self):
        photos = ((self.photos + 1) * 127.5).round().to(torch.uint8)
        return {"photos": photos.numpy(), "sketches": photos[:, :1].numpy()}


class NoArrays(torch.utils.data.Dataset):
    def __init__(self, faces):
        self.faces = faces

    def __len__(self):
        return len(self.faces)

    def __getitem__(self, i):
        return self.faces[i]


@pytest.fixture(scope="module")
def train():
    return InRam(people=20, shots=2, seed=1)


def test_mean_face_is_the_mean(train):
    expected = train.photos.double().mean(0).float()
    for dataset, tolerance in ((train, 0.5 / 127.5), (NoArrays(train), 1e-6)):
        out = mean_face(dataset)(torch.zeros(3, 1, SIZE, SIZE))
        assert out.shape == (3, 3, SIZE, SIZE)
        torch.testing.assert_close(out[2], expected, atol=tolerance, rtol=0)


def test_mean_face_minimises_mse_among_constants(train):
    judges = fake_judges()
    best = evaluate(mean_face(NoArrays(train)), train, "tiny", judges).mse.mean()
    for shift in (-0.05, 0.05):
        face = mean_face(NoArrays(train)).face + shift
        worse = evaluate(lambda s, face=face: face.expand(len(s), -1, -1, -1), train, "tiny", judges).mse.mean()
        assert worse == pytest.approx(best + shift**2, rel=1e-3)


@pytest.mark.parametrize("wrap", [lambda d: d, NoArrays])
def test_nearest_sketch_equals_brute_force(train, wrap):
    test = Faces(people=6, shots=1, seed=9)
    sketches = torch.stack([test[i]["sketch"] for i in range(6)])
    own = torch.stack([train[i]["sketch"] for i in range(len(train))])
    expected = [int(((s - own) ** 2).sum(dim=(1, 2, 3)).argmin()) for s in sketches]  # cells: exact at 32 px
    found = nearest_sketch(wrap(train))
    np.testing.assert_array_equal(found.index(sketches), expected)
    torch.testing.assert_close(found(sketches), train.photos[expected])


def test_nearest_sketch_finds_a_known_sketch_again(train):
    sketches = torch.stack([train[i]["sketch"] for i in (3, 30)])
    np.testing.assert_array_equal(nearest_sketch(train).index(sketches), [3, 30])


def test_empty_splits_are_named(train):
    for make in (mean_face, nearest_sketch):
        with pytest.raises(DataError, match="empty"):
            make(torch.utils.data.Subset(train, []))


class LinearPSP(torch.nn.Module):
    """decode: a fixed random linear map of w+ to 4 × 4 cells; encode: a poor guess, off by a known amount."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.register_buffer("latent_avg", torch.zeros(TINY.n_styles, TINY.style_dim))
        self.weight = torch.nn.Parameter(torch.randn(TINY.n_styles * TINY.style_dim, 48, generator=g) * 0.02)

    def encode(self, sketch):
        return torch.full((len(sketch), TINY.n_styles, TINY.style_dim), 0.01)

    def decode(self, w):
        cells = (w.flatten(1) @ self.weight).view(-1, 3, 4, 4)
        return cells.repeat_interleave(SIZE // 4, -1).repeat_interleave(SIZE // 4, -2)


def test_w_plus_optimisation_reaches_a_reachable_photo():
    torch.manual_seed(0)
    psp, test = LinearPSP(), Faces(people=3, shots=1)
    judges = fake_judges()
    short, long = (
        evaluate(w_plus_optimisation(psp, "tiny", MeanAbsolute(), steps=n, lr=0.02), test, "tiny", judges)
        for n in (2, 60)
    )
    assert long.mse.max() < 1e-3 < short.mse.min()
    assert psp.weight.grad is None and psp.weight.requires_grad


def test_w_plus_optimisation_is_never_worse_than_its_start():
    psp, test = LinearPSP(), Faces(people=3, shots=1)
    sketches, photos = (torch.stack([test[i][k] for i in range(3)]) for k in ("sketch", "photo"))
    predict = w_plus_optimisation(psp, "tiny", MeanAbsolute(), steps=3, lr=1000.0)  # it diverges
    assert predict(sketches, photos).abs().max() == 0  # w̄ gives grey


def test_w_plus_optimisation_rejects_nonsense():
    for kwargs in ({"steps": 0}, {"lr": 0.0}):
        with pytest.raises(S2FError):
            w_plus_optimisation(LinearPSP(), "tiny", MeanAbsolute(), **kwargs)


def test_baseline_rows_and_the_ceiling_on_a_part(train):
    test = Faces(people=5, shots=2, seed=3, first_person=50)
    rows = baseline_scores("tiny", train, test, fake_judges(), LinearPSP(), ceiling_images=4, steps=5)
    assert list(rows) == ["mean face", "nearest sketch", "W+ optimisation (ceiling)"]
    assert [len(s) for s in rows.values()] == [10, 10, 4]
    assert list(rows["W+ optimisation (ceiling)"].name) == [test.names[i] for i in (0, 3, 6, 9)]
    assert "W+ optimisation (ceiling)" not in baseline_scores("tiny", train, test, fake_judges())
