"""Measuring one method on every test image: runtime, MSE, perceptual distance, similarity."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s2flib.errors import DataError, S2FError, WeightsError
from s2flib.evaluation.scores import COLUMNS, Scores
from s2flib.judges.load import IdentityJudge, identity_judge, perceptual_judge
from s2flib.presets import Preset, get_preset


class Predictor(Protocol):
    """sketches (B,1,H,W) in [0, 1] → faces (B,3,H',W') in [−1, 1].

    A predictor whose attribute ``needs_photo`` is true is called as ``predict(sketches, photos)``: it is
    allowed to see the answer, and so is a ceiling and not a method.
    """

    def __call__(self, sketches: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Judges:
    """The two nets that measure, each with a label.

    perceptual(x, y) → (B,) distances; identity.embed(x) → (B,d) of unit norm; x, y (B,3,H,W) in [−1, 1].
    """

    perceptual: Any
    identity: IdentityJudge

    @classmethod
    def of(cls, preset: str | Preset, device: str = "cpu") -> Judges:
        """The preset's judges; the identity net is the measuring one, never the one that trains."""
        return cls(perceptual_judge(preset).to(device), identity_judge(preset, role="measure").to(device))


def evaluate(predict: Predictor, dataset, preset: str | Preset, judges: Judges | None = None, batch: int = 16,
             warmup: int = 2, device: str = "cpu", progress: bool = False,
             photo_embeddings: np.ndarray | None = None) -> Scores:
    """Measure a predictor on every image of a data set; the last, smaller batch counts like the others.

    dataset: items with ``photo`` (3,H,W), ``sketch`` (1,H,W), ``identity``, ``name``. Outputs and photos are
    area-pooled to the preset's eval_size before they are judged. Runtime is the predictor's wall
    time alone (no data loading, no judges) divided by the images in its batch, after ``warmup`` untimed calls
    on the first batch, with the GPU waited for. photo_embeddings (N,d): :func:`embed_photos` of the same data
    set, to measure several methods without embedding the photos again.
    """
    preset = get_preset(preset)
    n = len(dataset)
    if n == 0:
        raise DataError("there are no images to evaluate: the split or the limit is empty.")
    judges = judges or Judges.of(preset, device)
    needs_photo = getattr(predict, "needs_photo", False)
    columns: dict[str, list] = {k: [] for k in ("runtime_s", *COLUMNS, "identity", "name", "embedding")}
    with torch.inference_mode():
        for start in progress_bar(range(0, n, batch), progress, "evaluate"):
            items = [dataset[i] for i in range(start, min(start + batch, n))]
            sketches, photos = (torch.stack([item[k] for item in items]).to(device)
                                for k in ("sketch", "photo"))
            arguments = (sketches, photos) if needs_photo else (sketches,)
            if start == 0:
                for _ in range(warmup if not needs_photo else 0):    # an optimisation of minutes needs none
                    predict(*arguments)
            _wait(device)
            began = time.perf_counter()
            output = predict(*arguments)
            _wait(device)
            seconds = (time.perf_counter() - began) / len(items)
            if output.ndim != 4 or output.shape[:2] != (len(items), 3):
                raise S2FError(f"the predictor gave {tuple(output.shape)} for {len(items)} sketches: it must "
                               f"give ({len(items)}, 3, H, W).")
            x, y = (pool(t.to(device).float(), preset.eval_size) for t in (output, photos))
            embedding = judges.identity.embed(x).float().cpu()
            truth = torch.from_numpy(np.asarray(photo_embeddings[start:start + len(items)])) \
                if photo_embeddings is not None else judges.identity.embed(y).float().cpu()
            columns["runtime_s"] += [seconds] * len(items)
            columns["mse"] += (x - y).double().square().mean(dim=(1, 2, 3)).tolist()
            columns["lpips"] += judges.perceptual(x, y).double().flatten().tolist()
            columns["similarity"] += F.cosine_similarity(embedding.double(), truth.double(), dim=1).tolist()
            columns["identity"] += [int(item["identity"]) for item in items]
            columns["name"] += [str(item["name"]) for item in items]
            columns["embedding"].append(embedding.numpy())
    arrays = {k: np.asarray(v) for k, v in columns.items() if k != "embedding"}
    for k in COLUMNS:
        if not np.isfinite(arrays[k]).all():
            bad = arrays["name"][~np.isfinite(arrays[k])][0]
            raise S2FError(f"{k} of {bad} is not a number: the predictor's output is broken (did its "
                           "training diverge?).")
    return Scores(**arrays, preset=preset.name, perceptual=judges.perceptual.label,
                  identifier=judges.identity.label, embedding=np.concatenate(columns["embedding"]))


def embed_photos(dataset, judge, preset: str | Preset, batch: int = 32, device: str = "cpu",
                 progress: bool = False) -> np.ndarray:
    """The identity judge's embedding of every photo of a data set → (N,d) float32, in its order."""
    preset = get_preset(preset)
    parts = []
    with torch.inference_mode():
        for start in progress_bar(range(0, len(dataset), batch), progress, "embed photos"):
            several = range(start, min(start + batch, len(dataset)))
            photos = torch.stack([dataset[i]["photo"] for i in several])
            parts.append(judge.embed(pool(photos.to(device), preset.eval_size)).float().cpu().numpy())
    if not parts:
        raise DataError("there are no photos to embed: the split or the limit is empty.")
    return np.concatenate(parts)


def psp_predictor(psp, preset: str | Preset, device: str = "cpu") -> Predictor:
    """A PSP, in eval mode on its device, as a Predictor; the PSP stays at hand as its attribute ``psp``.

    A PSP of another preset's shape is a WeightsError here, not a strange number later.
    """
    preset = get_preset(preset)
    if psp.latent_avg.shape != (preset.n_styles, preset.style_dim):
        raise WeightsError(f"this encoder gives {tuple(psp.latent_avg.shape)} codes, the {preset.name} preset takes "
                           f"{(preset.n_styles, preset.style_dim)}: choose the preset it was trained under.")
    psp = psp.to(device).eval()

    def predict(sketches: Tensor) -> Tensor:
        return psp(sketches.to(device))[0]

    predict.psp = psp
    return predict


def pool(x: Tensor, size: int) -> Tensor:
    """(B,C,H,W) → (B,C,size,size) by area; images of that size pass through."""
    return x if x.shape[-2:] == (size, size) else F.adaptive_avg_pool2d(x, size)


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def progress_bar(steps, progress: bool, what: str):
    if not progress:
        return steps
    from tqdm.auto import tqdm
    return tqdm(steps, desc=what, unit="batch", leave=False)
