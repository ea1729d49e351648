"""How good a generator is by itself: are its random faces varied, plausible, and its own?

Every figure stands beside that of real photos against other real photos, because none has a scale of its own.

* FID and KID: distances between two distributions of features (Heusel et al. 2017, arXiv:1706.08500; Bińkowski et al.
  2018, arXiv:1801.01401), by torchmetrics. The features are not Inception's but the mean of the last layer of
  ST-LPIPS's AlexNet, which ships here: values are comparable with each other, never with published ones.
* Precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991): the share of random faces that lie among the
  photos, and of photos that lie among the random faces.
* Pairwise similarity of random faces by the identity judge: one face in many colours has a high one.
* Similarity to the nearest training photo: a face learnt by heart has a high one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from s2flib.datasets.faces import open_dataset
from s2flib.errors import S2FError
from s2flib.evaluation.evaluate import pool
from s2flib.files import csv_text, write_text
from s2flib.judges.load import identity_judge, load_st_lpips
from s2flib.presets import Preset, get_preset
from s2flib.runs import check_seed, finish, result_folder, run_record, write_json
from s2flib.stylegan2 import Generator
from s2flib.weights.load import load_generator

FEATURES = "ST-LPIPS's AlexNet, last layer, mean over the picture"
NEIGHBOURS = 3  # k of precision and recall, as published


@dataclass(frozen=True)
class Distribution:
    """What is needed of a set of pictures: features (N, 256) and unit embeddings (N, D)."""

    features: Tensor
    embeddings: Tensor


@dataclass(frozen=True)
class GeneratorScores:
    """One set of pictures against reference photos. Intervals are 95 % bootstrap intervals over pictures."""

    n: int
    fid: float
    kid: float
    kid_std: float  # over torchmetrics' subsets
    precision: float
    recall: float
    pairwise: float  # mean similarity of two of the pictures
    pairwise_low: float
    pairwise_high: float
    nearest: float  # mean similarity to the nearest training photo
    nearest_max: float  # … of the picture that is nearest to one


class _Features(nn.Module):
    """torchmetrics' feature extractor for features that are computed already."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


@torch.no_grad()
def describe(pictures: Tensor, preset: Preset, device: str = "cpu", batch: int = 25) -> Distribution:
    """Pictures (N, 3, H, W) in [−1, 1] → their features and embeddings, by the measuring judges."""
    lpips, judge = load_st_lpips().to(device), identity_judge(preset, role="measure").to(device)
    features, embeddings = [], []
    for part in pictures.split(batch):
        x = pool(part.to(device).clamp(-1, 1), preset.eval_size)
        features.append(lpips.features(x)[-1].mean((2, 3)).cpu())
        embeddings.append(judge.embed(x).cpu())
    return Distribution(torch.cat(features), torch.cat(embeddings))


def fid(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two samples of features (N, D): |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½)."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Features(a.shape[1]))
    metric.update(a, real=True)
    metric.update(b, real=False)
    return float(metric.compute())


def kid(a: Tensor, b: Tensor, seed: int = 0) -> tuple[float, float]:
    """Kernel distance (polynomial kernel of degree 3): mean and deviation over 50 random subsets."""
    from torchmetrics.image.kid import KernelInceptionDistance

    subset = max(2, min(len(a), len(b)) // 2)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # about its memory, a few megabytes
        metric = KernelInceptionDistance(feature=_Features(a.shape[1]), subsets=50, subset_size=subset)
    metric.update(a, real=True)
    metric.update(b, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, std = metric.compute()
    return float(mean), float(std)


def precision_recall(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """The share of ``fake`` (N, D) within the k-nearest-neighbour balls of ``real`` (M, D), and the other way round."""
    return _inside(fake, real, k), _inside(real, fake, k)


def _inside(points: Tensor, manifold: Tensor, k: int) -> float:
    if len(manifold) <= k:
        raise S2FError(f"precision and recall need more than {k} pictures, not {len(manifold)}.")
    radius = torch.cdist(manifold, manifold).kthvalue(k + 1, dim=1).values  # the nearest is the point itself
    return float((torch.cdist(points, manifold) <= radius[None]).any(1).float().mean())


def pairwise_similarity(embeddings: Tensor, seed: int = 0, draws: int = 1000) -> tuple[float, float, float]:
    """Mean similarity of two different pictures (N, D unit embeddings), with its 95 % interval over pictures."""
    if len(embeddings) < 2:
        raise S2FError("a pairwise similarity needs at least two pictures.")
    similarity = (embeddings @ embeddings.T).double().numpy()
    same = np.eye(len(similarity), dtype=bool)
    rng, means = np.random.default_rng(seed), []
    for _ in range(draws):
        weight = np.bincount(rng.integers(len(similarity), size=len(similarity)), minlength=len(similarity)).astype(
            float
        )
        pairs = np.outer(weight, weight)
        pairs[same] = 0  # a picture drawn twice is no pair of two
        means.append((pairs * similarity).sum() / max(pairs.sum(), 1e-9))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(similarity[~same].mean()), float(low), float(high)


def score(pictures: Distribution, reference: Distribution, train: Distribution, seed: int = 0) -> GeneratorScores:
    """Pictures against reference photos, and against the training photos."""
    precision, recall = precision_recall(reference.features, pictures.features)
    nearest = (pictures.embeddings @ train.embeddings.T).max(1).values
    return GeneratorScores(
        len(pictures.features),
        fid(reference.features, pictures.features),
        *kid(reference.features, pictures.features, seed),
        precision,
        recall,
        *pairwise_similarity(pictures.embeddings, seed),
        float(nearest.mean()),
        float(nearest.max()),
    )


@torch.no_grad()
def random_faces(generator: Generator, n: int, seed: int, psi: float = 1.0, batch: int = 25) -> Tensor:
    """``n`` faces (n, 3, S, S) of random z, on the CPU."""
    z = torch.randn(n, generator.style_dim, generator=torch.Generator().manual_seed(seed))
    w_avg, out = generator.latent_avg, []
    for part in z.split(batch):
        out.append(generator(part.to(w_avg), psi=psi, w_avg=w_avg).cpu())
    return torch.cat(out)


def report_generator(
    preset: str | Preset,
    generator: Path | None = None,  # its file; None: the preset's own
    split: str = "test",
    data: Path | None = None,
    n: int = 400,  # random faces, and photos
    known: int = 2000,  # training photos among which the nearest is searched
    seed: int = 0,
    out: Path | None = None,  # None: a new runs/<time>
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[str, Path]:
    """Random faces (ψ = 1 and 0.7) and photos against other photos: the table, and the folder with generator.{txt,csv}
    and run.json."""
    p = get_preset(preset)
    check_seed(seed)
    if n < 10:
        raise S2FError(f"the generator is measured on at least 10 faces, not {n}.")
    record = run_record(p, dict(generator=generator, split=split, data=data, n=n, known=known), seed)
    folder = result_folder(out, overwrite, "generator.csv")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    g = load_generator(p, generator).to(device)
    g.latent_avg = g.latent_avg.to(device)
    photos = open_dataset(p, split, data)
    # different people on both sides: the first half of the split against the second
    half, count = len(photos) // 2, min(n, len(photos) // 2)
    if count < 10:
        raise S2FError(f"the split {split} has only {len(photos)} photos: at least 20 are needed.")
    progress(f"describing {2 * count} photos and {2 * n} random faces")
    every = [np.linspace(a, b - 1, count).astype(int) for a, b in ((0, half), (half, len(photos)))]
    sets = [describe(torch.stack([photos[int(i)]["photo"] for i in index]), p, device) for index in every]
    learnt = open_dataset(p, "train", data, limit=known)
    train = describe(torch.stack([learnt[i]["photo"] for i in range(len(learnt))]), p, device)
    rows = {
        "random faces": score(describe(random_faces(g, n, seed), p, device), sets[0], train, seed),
        "random faces, ψ = 0.7": score(describe(random_faces(g, n, seed, 0.7), p, device), sets[0], train, seed),
        "photos of other people": score(sets[1], sets[0], train, seed),
    }
    text = table(rows, p, split)
    write_text(folder / "generator.txt", text + "\n", overwrite)
    write_text(folder / "generator.csv", csv_text([{"pictures": k} | asdict(v) for k, v in rows.items()]), overwrite)
    write_json(folder / "run.json", finish(record, scores={k: asdict(v) for k, v in rows.items()}), overwrite)
    return text, folder


def table(rows: Mapping[str, GeneratorScores], preset: Preset, split: str) -> str:
    """The scores as text, with what they mean."""
    judge = identity_judge(preset, role="measure").label
    head = f"{'':24s} {'n':>5s} {'FID ↓':>8s} {'KID ↓':>8s} {'precision ↑':>12s} {'recall ↑':>9s} "
    lines = [head + f"{'pairwise similarity':>24s} {'nearest photo: mean, max':>25s}"]
    for name, s in rows.items():
        lines.append(
            f"{name:24s} {s.n:5d} {s.fid:8.4f} {s.kid:8.5f} {s.precision:12.3f} {s.recall:9.3f} "
            f"{s.pairwise:8.3f} [{s.pairwise_low:.3f}, {s.pairwise_high:.3f}] {s.nearest:18.3f}, {s.nearest_max:.3f}"
        )
    return "\n".join(
        [
            *lines,
            f"Against photos of the {split} split. Features: {FEATURES}; not comparable with Inception's values. "
            f"Similarity: {judge}. The last row is what real photos reach. {preset.label}",
        ]
    )
