"""The generator's own figures against independent formulas and cases with a known answer."""

import csv

import numpy as np
import pytest
import torch
from commands import refused, s2f
from scipy.linalg import sqrtm

from s2flib.datasets import open_dataset
from s2flib.errors import S2FError
from s2flib.evaluation.generator import (
    describe,
    fid,
    kid,
    pairwise_similarity,
    precision_recall,
    random_faces,
    report_generator,
    score,
)
from s2flib.presets import TINY
from s2flib.weights import load_generator


def normal(n, d, shift=0.0, scale=1.0, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + shift


def test_fid_is_the_frechet_distance():
    a, b = normal(300, 8), normal(400, 8, 0.7, 1.3, seed=1)
    x, y = a.double().numpy(), b.double().numpy()
    cov = [np.cov(v, rowvar=False) for v in (x, y)]
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov[0] + cov[1] - 2 * sqrtm(cov[0] @ cov[1]).real)
    assert fid(a, b) == pytest.approx(expected, rel=1e-3)
    assert fid(a, a) == pytest.approx(0, abs=1e-6) and fid(a, b) > fid(a, normal(400, 8, 0.1, 1.0, seed=2))


def test_kid_is_the_unbiased_kernel_distance():
    a, b = normal(60, 8), normal(60, 8, 1.0, seed=1)

    def mmd(x, y):
        def k(p, q):
            return (p @ q.T / p.shape[1] + 1) ** 3

        n = len(x)
        off = ~torch.eye(n, dtype=torch.bool)
        return (k(x, x)[off].sum() + k(y, y)[off].sum()) / (n * (n - 1)) - 2 * k(x, y).mean()

    mean, std = kid(a, b, seed=3)
    assert mean == pytest.approx(float(mmd(a, b)), rel=0.25) and std > 0
    assert (mean, std) == kid(a, b, seed=3) and abs(kid(a, normal(60, 8, seed=2))[0]) < 0.2 * mean


def test_precision_and_recall_of_known_cases():
    real = torch.tensor([[float(i), 0.0] for i in range(20)])
    assert precision_recall(real, real) == (1.0, 1.0)
    far = real + torch.tensor([0.0, 1000.0])
    assert precision_recall(real, far) == (0.0, 0.0)
    # one plausible face again and again: precise, but it covers little
    same = real[10:11] + 0.01 * normal(20, 2)
    precision, recall = precision_recall(real, same)
    assert precision == 1.0 and recall <= 0.1
    # half of the faces are plausible
    precision, recall = precision_recall(real, torch.cat([real[::2], far[::2]]))
    assert precision == 0.5 and recall > 0.9
    with pytest.raises(S2FError, match="more than 3"):
        precision_recall(real[:3], real)


def test_pairwise_similarity():
    e = torch.nn.functional.normalize(normal(40, 6), dim=1)
    value, low, high = pairwise_similarity(e)
    pairs = [float(e[i] @ e[j]) for i in range(40) for j in range(40) if i != j]
    assert value == pytest.approx(np.mean(pairs), abs=1e-6) and low < value < high
    same = torch.nn.functional.normalize(torch.ones(10, 6), dim=1)
    assert pairwise_similarity(same) == pytest.approx((1, 1, 1))
    with pytest.raises(S2FError, match="two pictures"):
        pairwise_similarity(e[:1])


def test_photos_are_nearer_to_photos_than_noise_is():
    val = open_dataset("tiny", "val", limit=60)
    photos = torch.stack([val[i]["photo"] for i in range(60)])
    a, b = describe(photos[::2], TINY), describe(photos[1::2], TINY)
    assert a.features.shape == (30, 256) and torch.allclose(a.embeddings.norm(dim=1), torch.ones(30), atol=1e-4)
    noise = describe(torch.rand(30, 3, 128, 128) * 2 - 1, TINY)
    good, bad = score(b, a, a), score(noise, a, a)
    assert good.fid < bad.fid and good.kid < bad.kid and good.precision > bad.precision == 0
    copy = score(a, b, a)
    assert copy.nearest_max == pytest.approx(1, abs=1e-4), "a picture of the training set is found out"


def test_random_faces_depend_on_seed_and_psi():
    g = load_generator("tiny")
    a = random_faces(g, 3, seed=5, batch=2)
    assert a.shape == (3, 3, 128, 128) and torch.allclose(a, random_faces(g, 3, seed=5), atol=1e-4)
    mean = g.synthesis(g.expand(g.latent_avg[None]))
    assert torch.allclose(random_faces(g, 2, seed=1, psi=0.0), mean.expand(2, -1, -1, -1), atol=1e-4)


def test_the_report_puts_photos_beside_the_faces(tmp_path):
    text, folder = report_generator("tiny", n=12, known=24, out=tmp_path / "out", split="val")
    with open(folder / "generator.csv", encoding="utf-8") as f:
        rows = {row["pictures"]: row for row in csv.DictReader(f)}
    assert list(rows) == ["random faces", "random faces, ψ = 0.7", "photos of other people"]
    assert all(int(row["n"]) == 12 for row in rows.values()) and (folder / "run.json").is_file()
    assert float(rows["photos of other people"]["pairwise"]) < float(rows["random faces"]["pairwise"])
    assert "not comparable with Inception" in text and "tiny preset: not the paper's numbers" in text
    assert (folder / "generator.txt").read_text(encoding="utf-8") == text + "\n"
    refused(s2f("evaluate", "--what", "generator", "--limit", 12, "--split", "val", "-o", folder), "already contains")


def test_refusals(tmp_path):
    refused(s2f("evaluate", "--what", "critic", "-o", tmp_path), "critic", "encoder or generator")
    with pytest.raises(S2FError, match="at least 10"):
        report_generator("tiny", n=3, out=tmp_path / "a")
