"""Baselines that any method must beat, and the generator's upper bound; all of them are Predictors.

* :func:`mean_face` ignores the sketch. It is hard to beat on MSE, which favours blur.
* :func:`nearest_sketch` returns the photo of the most similar training sketch: a real face, but never the right one.
* :func:`w_plus_optimisation` sees the photo and searches for it in W+ (:mod:`s2flib.inversion.w_plus`): the ceiling of
  every encoder that outputs codes alone. One with a feature map (F/W+) may exceed it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from s2flib.errors import DataError, S2FError
from s2flib.evaluation.evaluate import Judges, Predictor, evaluate, pool
from s2flib.evaluation.scores import Scores
from s2flib.inversion.target import Target
from s2flib.inversion.w_plus import optimise
from s2flib.judges.load import perceptual_judge
from s2flib.presets import Preset, get_preset

_RAM = 2**31  # bytes; larger splits are read item by item


class MeanFace:
    """Predictor: the same face (3,H,W) for every sketch."""

    def __init__(self, face: Tensor):
        self.face = face

    def __call__(self, sketches: Tensor) -> Tensor:
        return self.face.to(sketches.device).expand(len(sketches), -1, -1, -1).clone()


def mean_face(train) -> MeanFace:
    """The mean of every training photo, pixel by pixel."""
    if len(train) == 0:
        raise DataError("the training split is empty: a mean face needs at least one photo.")
    if _fits(train):
        photos = train.arrays()["photos"]  # (N,3,H,W) uint8
        total = np.zeros(photos.shape[1:], np.float64)
        for start in range(0, len(photos), 256):
            total += photos[start : start + 256].sum(axis=0, dtype=np.int64)
        return MeanFace(torch.from_numpy(total / len(photos) / 127.5 - 1).float())
    total = sum((train[i]["photo"].double() for i in range(len(train))), torch.zeros((), dtype=torch.float64))
    return MeanFace((total / len(train)).float())


class NearestSketch:
    """Predictor: the training photo whose sketch is nearest; ``index(sketches)`` returns its index (B,)."""

    def __init__(self, train, small: Tensor, side: int):
        self.train, self.small, self.side = train, small, side  # small (N, side²)

    def index(self, sketches: Tensor) -> np.ndarray:
        query = pool(sketches.float().cpu(), self.side).flatten(1)
        # the exact form: the matrix-product form loses the last digits and breaks ties
        return torch.cdist(query, self.small, compute_mode="donot_use_mm_for_euclid_dist").argmin(1).numpy()

    def __call__(self, sketches: Tensor) -> Tensor:
        return torch.stack([self.train[int(i)]["photo"] for i in self.index(sketches)]).to(sketches.device)


def nearest_sketch(train) -> NearestSketch:
    """Retrieval: L2 between sketches area-pooled to 32 × 32 pixels.

    At 32 px the stroke texture has disappeared, and hair line, face outline and pose determine the result; at full
    size a shift of one pixel would dominate. Train identities never occur in the test split, so the result is
    a look-alike.
    """
    side = 32
    if len(train) == 0:
        raise DataError("the training split is empty: retrieval needs at least one sketch.")
    if _fits(train):
        sketches = train.arrays()["sketches"]  # (N,1,H,W) uint8
        parts = [
            pool(torch.from_numpy(sketches[i : i + 256]).float() / 255, side).flatten(1)
            for i in range(0, len(sketches), 256)
        ]
    else:
        parts = [pool(train[i]["sketch"][None], side).flatten(1) for i in range(len(train))]
    return NearestSketch(train, torch.cat(parts), side)


def _fits(dataset) -> bool:
    size = getattr(dataset, "size", None)
    return size is not None and hasattr(dataset, "arrays") and 5 * len(dataset) * size * size <= _RAM


class WPlusOptimisation:
    """Predictor that needs the photo; see :func:`w_plus_optimisation`. ``w_plus`` contains the last codes."""

    needs_photo = True

    def __init__(self, psp, perceptual: nn.Module, preset: Preset, steps: int, lr: float):
        self.psp, self.perceptual, self.preset, self.steps, self.lr = psp, perceptual, preset, steps, lr
        self.w_plus: Tensor | None = None

    def __call__(self, sketches: Tensor, photos: Tensor) -> Tensor:
        """sketches (B,1,H,W), photos (B,3,H,W) → (B,3,S,S), for each image the best of all steps."""
        target, preset = Target(photos, self.perceptual, self.preset.eval_size), self.preset

        def loss(faces: Tensor) -> Tensor:
            l2, lpips = target.distances(faces)
            return preset.lambda_l2 * l2 + preset.lambda_lpips * lpips

        start = self.psp.latent_avg.expand(len(photos), -1, -1)
        self.w_plus, faces = optimise(self.psp.decode, start, loss, self.steps, self.lr)
        return faces


def w_plus_optimisation(
    psp, preset: str | Preset, perceptual: nn.Module | None = None, steps: int = 200, lr: float = 0.05
) -> Predictor:
    """The ceiling of codes alone: Adam on each photo's own w+ for λ_l2 · MSE + λ_lpips · LPIPS, with fixed noise.

    It is a ceiling in the two columns it optimises, limited by its steps; Similarity is not one of them. It sees the
    photo and minimises the same network that measures LPIPS, which is only acceptable for a ceiling.
    """
    if steps < 1 or lr <= 0:
        raise S2FError("w_plus_optimisation needs steps of 1 or more and a learning rate above 0.")
    preset = get_preset(preset)
    perceptual = perceptual or perceptual_judge(preset).to(psp.latent_avg.device)
    return WPlusOptimisation(psp.eval(), perceptual, preset, steps, lr)


def baseline_scores(
    preset: str | Preset,
    train_set,
    test_set,
    judges: Judges,
    psp=None,
    ceiling_images: int = 32,
    steps: int = 200,
    photo_embeddings: np.ndarray | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Scores]:
    """The reference rows of every table: mean face, nearest sketch and, given a PSP, the W+ ceiling.

    The ceiling takes ``steps`` passes through the generator per image, so it is measured on ``ceiling_images`` evenly
    spaced test images; table1 shows their number next to its name. 0 omits it.
    """

    def measure(predict: Predictor, dataset, embeddings: np.ndarray | None) -> Scores:
        return evaluate(predict, dataset, preset, judges, device=device, progress=progress, photo_embeddings=embeddings)

    rows = {
        "mean face": measure(mean_face(train_set), test_set, photo_embeddings),
        "nearest sketch": measure(nearest_sketch(train_set), test_set, photo_embeddings),
    }
    if psp is not None and ceiling_images:
        some = np.unique(np.linspace(0, len(test_set) - 1, min(ceiling_images, len(test_set))).round().astype(int))
        ceiling = w_plus_optimisation(psp, preset, judges.perceptual, steps)
        rows["W+ optimisation (ceiling)"] = measure(
            ceiling,
            torch.utils.data.Subset(test_set, some.tolist()),
            None if photo_embeddings is None else photo_embeddings[some],
        )
    return rows
