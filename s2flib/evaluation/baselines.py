"""What any method must beat, and what the generator can reach at best; all of them are Predictors.

* :func:`mean_face` ignores the sketch. It is hard to beat on MSE, for blur is safe there.
* :func:`nearest_sketch` gives the photo of the most similar training sketch: a real
  face, never the right one.
* :func:`w_plus_optimisation` sees the photo and searches W+ for it (Image2StyleGAN, Abdal et al. 2019,
  https://arxiv.org/abs/1904.03189, Alg. 1): the generator's ceiling.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn

from s2flib.errors import DataError, S2FError
from s2flib.evaluation.evaluate import Judges, Predictor, evaluate, pool
from s2flib.evaluation.scores import Scores
from s2flib.presets import Preset, get_preset

_RAM = 2**31                                      # bytes a split may take to be decoded at once


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
        photos = train.arrays()["photos"]                            # (N,3,H,W) uint8
        total = np.zeros(photos.shape[1:], np.float64)
        for start in range(0, len(photos), 256):
            total += photos[start:start + 256].sum(axis=0, dtype=np.int64)
        return MeanFace(torch.from_numpy(total / len(photos) / 127.5 - 1).float())
    total = sum(train[i]["photo"].double() for i in range(len(train)))
    return MeanFace((total / len(train)).float())


class NearestSketch:
    """Predictor: the training photo whose sketch is nearest. ``index(sketches)`` (B,) tells which."""

    def __init__(self, train, small: Tensor, side: int):
        self.train, self.small, self.side = train, small, side       # small (N, side²)

    def index(self, sketches: Tensor) -> np.ndarray:
        query = pool(sketches.float().cpu(), self.side).flatten(1)
        # the exact form: the matrix-product form loses the last digits, and with them ties
        return torch.cdist(query, self.small, compute_mode="donot_use_mm_for_euclid_dist").argmin(1).numpy()

    def __call__(self, sketches: Tensor) -> Tensor:
        return torch.stack([self.train[int(i)]["photo"] for i in self.index(sketches)]).to(sketches.device)


def nearest_sketch(train, side: int = 32) -> NearestSketch:
    """Retrieval: L2 between sketches area-pooled to side × side pixels.

    At 32 px the stroke texture is gone and hair line, face outline and pose decide; at full size a shift of
    one pixel would outweigh them. Train identities never occur in the test split, so this is a look-alike.
    """
    if len(train) == 0:
        raise DataError("the training split is empty: retrieval needs at least one sketch.")
    if _fits(train):
        sketches = train.arrays()["sketches"]                        # (N,1,H,W) uint8
        parts = [pool(torch.from_numpy(sketches[i:i + 256]).float() / 255, side).flatten(1)
                 for i in range(0, len(sketches), 256)]
    else:
        parts = [pool(train[i]["sketch"][None], side).flatten(1) for i in range(len(train))]
    return NearestSketch(train, torch.cat(parts), side)


def _fits(dataset) -> bool:
    size = getattr(dataset, "size", None)
    return size is not None and hasattr(dataset, "arrays") and 5 * len(dataset) * size * size <= _RAM


class WPlusOptimisation:
    """Predictor that needs the photo; see :func:`w_plus_optimisation`. ``w_plus`` holds its last codes."""

    needs_photo = True

    def __init__(self, psp, perceptual: nn.Module, preset: Preset, steps: int, lr: float, start: str,
                 budget: float | None):
        self.psp, self.perceptual, self.preset = psp, perceptual, preset
        self.steps, self.lr, self.start, self.budget = steps, lr, start, budget
        self.w_plus: Tensor | None = None

    def __call__(self, sketches: Tensor, photos: Tensor) -> Tensor:
        """sketches (B,1,H,W), photos (B,3,H,W) → (B,3,S,S), each the best of its steps."""
        size = self.preset.eval_size
        with torch.no_grad():
            w = self.psp.encode(sketches) if self.start == "encoder" \
                else self.psp.latent_avg.expand(len(photos), -1, -1)
        with torch.inference_mode(False), torch.enable_grad():       # evaluate() runs in inference mode
            target = pool(photos, size).clone()        # inference tensors cannot join a graph
            w = w.detach().float().clone().requires_grad_(True)      # (B,n_styles,D)
            optimiser = torch.optim.Adam([w], lr=self.lr)
            best_w, best = w.detach().clone(), torch.full((len(photos),), float("inf"), device=w.device)
            began = time.perf_counter()
            for step in range(self.steps + 1):                       # the last pass only judges
                output = pool(self.psp.decode(w), size)
                loss = (self.preset.lambda_l2 * (output - target).square().mean(dim=(1, 2, 3))
                        + self.preset.lambda_lpips * self.perceptual(output, target).flatten())      # (B,)
                better = loss.detach() < best
                best = torch.where(better, loss.detach(), best)
                best_w[better] = w.detach()[better]
                over = self.budget is not None and time.perf_counter() - began > self.budget * len(photos)
                if step == self.steps or over:
                    break
                (w.grad,) = torch.autograd.grad(loss.sum(), w)       # never into the nets' own parameters
                optimiser.step()
        self.w_plus = best_w
        with torch.no_grad():
            return self.psp.decode(best_w)


def w_plus_optimisation(psp, preset: str | Preset, perceptual: nn.Module | None = None, steps: int = 200,
                        lr: float = 0.05, start: str = "latent_avg",
                        budget: float | None = None) -> Predictor:
    """The generator's ceiling: Adam on each photo's own w+ for λ_l2 · MSE + λ_lpips · LPIPS, noise fixed.

    start: "latent_avg", or "encoder" (the encoder's own w+: then never worse than it in that loss).
    budget: seconds per image after which a batch stops early; None (the default) is the reproducible way.
    It is a ceiling in the two columns it optimises, up to its steps; Similarity is not among them. It sees
    the photo, and minimises by the very net that measures LPIPS, which only a ceiling may do.
    """
    if start not in ("latent_avg", "encoder"):
        raise S2FError(f"unknown start {start!r}: choose latent_avg or encoder.")
    if steps < 1 or lr <= 0:
        raise S2FError("the optimisation needs at least one step and a learning rate above zero.")
    preset = get_preset(preset)
    if perceptual is None:
        from s2flib.judges.load import perceptual_judge
        perceptual = perceptual_judge(preset).to(psp.latent_avg.device)
    return WPlusOptimisation(psp.eval(), perceptual, preset, steps, lr, start, budget)


def baseline_scores(preset: str | Preset, train_set, test_set, judges: Judges, psp=None, ceiling_images: int = 32,
                    steps: int = 200, photo_embeddings: np.ndarray | None = None, device: str = "cpu",
                    progress: bool = False) -> dict[str, Scores]:
    """The rows that stand beside every result: mean face, nearest sketch and, given a PSP, the W+ ceiling.

    The ceiling takes ``steps`` passes through the generator per image, so it is measured on ``ceiling_images``
    evenly spaced test images; table1 writes their number beside its name. 0 leaves it out.
    """
    def measure(predict: Predictor, dataset, embeddings: np.ndarray | None) -> Scores:
        return evaluate(predict, dataset, preset, judges, device=device, progress=progress,
                        photo_embeddings=embeddings)
    rows = {"mean face": measure(mean_face(train_set), test_set, photo_embeddings),
            "nearest sketch": measure(nearest_sketch(train_set), test_set, photo_embeddings)}
    if psp is not None and ceiling_images:
        some = np.unique(np.linspace(0, len(test_set) - 1, min(ceiling_images, len(test_set))).round().astype(int))
        ceiling = w_plus_optimisation(psp, preset, judges.perceptual, steps)
        rows["W+ optimisation (ceiling)"] = measure(
            ceiling, torch.utils.data.Subset(test_set, some.tolist()),
            None if photo_embeddings is None else photo_embeddings[some])
    return rows
