"""Directions in W that change one thing in a face: from labels (InterFaceGAN), from the generator's weights alone
(SeFa), or from its random codes alone (GANSpace)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from s2flib.errors import S2FError, WeightsError
from s2flib.stylegan2 import Generator
from s2flib.weights.load import fingerprint, load_tensors, save_safetensors
from s2flib.weights.published import check_values

SAMPLES = 10_000  # random codes that the spread of a closed-form direction is measured on
HELD_OUT = 0.3  # of the codes of each class, as in InterFaceGAN's paper
RIDGE = 1.0  # of the support vector machine, for codes scaled to variance 1; less picks directions of little effect


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction n in W.

    vector:  n, (D,) of length 1
    spread:  standard deviation of nᵀw over the codes it was found with
    rows:    the rows of w+ that it moves; None: all
    score:   what the method says about it: accuracy on codes held out (interfacegan), share of the codes' variance
             (ganspace), eigenvalue (sefa); None: unknown
    """

    name: str
    vector: Tensor
    spread: float
    rows: tuple[int, ...] | None = None
    score: float | None = None

    def __post_init__(self):
        if self.vector.ndim != 1 or abs(float(self.vector.norm()) - 1) > 1e-3 or not self.spread > 0:
            raise S2FError(f"the direction {self.name!r} needs a vector of length 1 and a spread above 0.")

    def move(self, w_plus: Tensor, alpha: float) -> Tensor:
        """w+ (B, n_styles, D) → w+ + α · spread · n in the direction's rows: α counts standard deviations."""
        moved = w_plus.clone()
        moved[:, slice(None) if self.rows is None else list(self.rows)] += alpha * self.spread * self.vector.to(w_plus)
        return moved


def interfacegan(w: Tensor, labels: Tensor, name: str = "attribute", seed: int = 0) -> Direction:
    """The normal of the hyperplane between the codes with and without an attribute, towards those with it.

    Shen et al., "InterFaceGAN" (2020), arXiv:2005.09635, Sec. 3: a linear support vector machine, here with squared
    hinge loss and minimised by L-BFGS. Both classes have the same weight, however many codes they have. 30 % of each
    class are held out; score is the mean of both classes' accuracies on these (0.5: by chance).

    w (N, D), labels (N,) bool. S2FError with fewer than ten codes of a class.
    """
    codes, y = w.detach().cpu().double().numpy(), labels.detach().cpu().bool().numpy()
    if codes.ndim != 2 or y.shape != codes.shape[:1] or min(y.sum(), (~y).sum()) < 10:
        raise S2FError(
            f"the direction {name!r} needs codes (N, D) and N labels with at least ten of each kind, not "
            f"{codes.shape} with {int(y.sum())} yes and {int((~y).sum())} no: use more photos."
        )
    random, held_out = np.random.default_rng(seed), np.zeros(len(y), bool)
    for kind in (True, False):
        members = random.permutation(np.flatnonzero(y == kind))
        held_out[members[: round(HELD_OUT * len(members))]] = True
    normal, bias = _support_vector_machine(codes[~held_out], y[~held_out])
    right = (codes @ normal + bias > 0) == y
    score = np.mean([right[held_out & (y == kind)].mean() for kind in (True, False)])
    return _direction(name, torch.from_numpy(normal), w, score=float(score))


def _support_vector_machine(w: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Normal n (D,) of length 1 and b of the hyperplane nᵀw + b = 0.

    argmin_{n,b} ½ RIDGE ‖n‖² + Σ_i c_i max(0, 1 − y_i (nᵀw_i + b))², y_i = ±1, c_i = 1 / (2 × size of i's class).
    """
    mean, scale = w.mean(0), w.std(0).mean()
    x, sign = (w - mean) / scale, np.where(y, 1.0, -1.0)
    weight = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        n, b = parameters[:-1], parameters[-1]
        short = np.maximum(0, 1 - sign * (x @ n + b))
        slope = -2 * weight * short * sign  # of the sum, by nᵀw_i + b
        value = 0.5 * RIDGE * n @ n + weight @ short**2
        return value, np.append(RIDGE * n + slope @ x, slope.sum())

    found = minimize(loss, np.zeros(w.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    n, b = found[:-1], found[-1]
    length = np.linalg.norm(n)
    return n / length, (b * scale - n @ mean) / length


def conditioned(direction: Direction, others: Sequence[Direction], w: Tensor) -> Direction:
    """The direction without the parts that also move others (InterFaceGAN, Sec. 3.3, conditional manipulation).

    For one other attribute: n₁ − (n₁ᵀn₂) n₂; for several, minus the projection onto the space that they span. The
    result has length 1, and its spread is measured on the codes w (N, D).
    """
    if not others:
        return direction
    n = direction.vector.double()
    plane = torch.stack([d.vector.to(n) for d in others], 1)  # (D, k)
    rest = n - plane @ torch.linalg.pinv(plane) @ n
    if rest.norm() < 1e-3:
        raise S2FError(
            f"nothing of the direction {direction.name!r} is left without {', '.join(d.name for d in others)}: "
            "condition on fewer directions."
        )
    return replace(_direction(direction.name, rest / rest.norm(), w), rows=direction.rows)


def sefa(generator: Generator, layers: Sequence[int], k: int, seed: int = 0) -> list[Direction]:
    """The k directions that change most what enters the layers, in closed form, the strongest first.

    Shen & Zhou, "Closed-Form Factorization of Latent Semantics in GANs" (2021), arXiv:2007.06600: n* = argmax ‖A n‖²
    subject to nᵀn = 1 (Eq. 6) are the eigenvectors of AᵀA with the largest eigenvalues, AᵀA n = λ n (Eq. 7). A has the
    modulation weights of all ``layers``; eigenvalues are the scores. (The authors' code also scales each row of A to
    length 1; the paper's A is as it is.)

    layers: rows of w+, 0 … n_styles − 2, whose convolutions' weights are taken, without ToRGB; the directions move
    these rows. Their spread is measured on random codes; the sign of an eigenvector is arbitrary: its largest number
    is positive.
    """
    convolutions = [generator.conv1, *generator.convs]
    if not layers or not set(layers) <= set(range(len(convolutions))) or not 1 <= k <= generator.style_dim:
        raise S2FError(
            f"SeFa needs layers from 0 to {len(convolutions) - 1} and 1 to {generator.style_dim} directions, not "
            f"{list(layers)} and {k}."
        )
    modulations = [convolutions[i].get_submodule("conv.modulation") for i in layers]
    a = torch.cat([m.weight.detach().double() * m.scale for m in modulations])  # (outputs, D)
    values, vectors = torch.linalg.eigh(a.T @ a)  # ascending
    codes = generator.random_codes(SAMPLES, seed)
    return [
        _direction(f"SeFa {i + 1}", _signed(vectors[:, -1 - i]), codes, tuple(layers), float(values[-1 - i]))
        for i in range(k)
    ]


def ganspace(generator: Generator, n: int, k: int, seed: int = 0) -> list[Direction]:
    """The k principal components of n random codes, the largest first; scores are their shares of the variance.

    Härkönen et al., "GANSpace: Discovering Interpretable GAN Controls" (2020), arXiv:2004.02546, Sec. 2.1: PCA of
    w = f(z), w' = w + V x; α is a component of x in units of its standard deviation. The largest number of each
    component is positive.
    """
    if not 1 <= k <= generator.style_dim or n < 2:
        raise S2FError(f"GANSpace needs two codes or more and 1 to {generator.style_dim} components, not {n} and {k}.")
    w = generator.random_codes(n, seed)
    values, vectors = torch.linalg.eigh(torch.cov(w.T.double()))  # ascending
    shares = values / values.sum()
    return [
        _direction(f"component {i + 1}", _signed(vectors[:, -1 - i]), w, score=float(shares[-1 - i])) for i in range(k)
    ]


def _direction(
    name: str, vector: Tensor, w: Tensor, rows: tuple[int, ...] | None = None, score: float | None = None
) -> Direction:
    """A direction with its spread over the codes w (N, D), which also decide dtype and device."""
    return Direction(name, vector.to(w), float((w.double() @ vector.to(w.device)).std()), rows, score)


def _signed(vector: Tensor) -> Tensor:
    return vector * vector[vector.abs().argmax()].sign()


def save_directions(
    path: Path, directions: Sequence[Direction], generator: Generator, preset: str, overwrite: bool = False
) -> Path:
    """Write directions of a generator as safetensors, for :func:`load_directions`."""
    about = [{"name": d.name, "spread": d.spread, "rows": d.rows, "score": d.score} for d in directions]
    meta = {"kind": "directions", "preset": preset, "decoder": fingerprint(generator), "directions": json.dumps(about)}
    tensors = {"vectors": torch.stack([d.vector for d in directions])}
    return save_safetensors(path, tensors, meta, overwrite=overwrite)


def load_directions(path: str | Path, generator: Generator, preset: str) -> dict[str, Direction]:
    """Name → direction, from a file of :func:`save_directions`. WeightsError for another generator's, or damage."""
    tensors, meta = load_tensors(path, "directions", preset, with_metadata=True)
    if meta.get("decoder") != fingerprint(generator):
        raise WeightsError(f"{path} has directions of another generator: find them again with s2f evaluate-inversions.")
    vectors = tensors.get("vectors")
    check_values(vectors, "vectors", str(path))
    try:
        about = json.loads(meta["directions"])
        found = [
            Direction(str(a["name"]), v.float() / v.float().norm(), float(a["spread"]),
                      None if a["rows"] is None else tuple(a["rows"]), a["score"])
            for a, v in zip(about, vectors, strict=True)
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError, S2FError):
        found = []
    if not found or any(len(d.vector) != generator.style_dim for d in found):
        raise WeightsError(f"{path} is damaged: find the directions again with s2f evaluate-inversions.")
    return {d.name: d for d in found}
