"""Evaluates one method on every test image: runtime, MSE, perceptual distance, similarity."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
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
from s2flib.synthfaces.labels import LABELS

FACE = ("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
FACE_LABELS = tuple(LABELS.index(name) for name in FACE)  # the face in CelebAMask-HQ's masks: no hair, ears or neck


class Predictor(Protocol):
    """sketches (B,1,H,W) in [0, 1] → faces (B,3,H',W') in [−1, 1].

    A predictor whose attribute ``needs_photo`` is true is called as ``predict(sketches, photos)``: it sees the answer,
    so it is a ceiling and not a method.
    """

    def __call__(self, *images: Any, **kwargs: Any) -> Tensor: ...


@dataclass(frozen=True)
class Judges:
    """The two networks used for evaluation, each with a label.

    perceptual(x, y) → (B,) distances; identity.embed(x) → (B,d) of unit norm; x, y (B,3,H,W) in [−1, 1].
    """

    perceptual: Any
    identity: IdentityJudge

    @classmethod
    def of(cls, preset: str | Preset, device: str = "cpu") -> Judges:
        """The preset's judges; the identity network is the one for evaluation, not the one for training."""
        return cls(perceptual_judge(preset).to(device), identity_judge(preset, role="measure").to(device))


def evaluate(
    predict: Predictor,
    dataset,
    preset: str | Preset,
    judges: Judges | None = None,
    batch: int = 16,
    warmup: int = 2,
    device: str = "cpu",
    progress: bool = False,
    photo_embeddings: np.ndarray | None = None,
) -> Scores:
    """Evaluate a predictor on every image of a data set, including the last, smaller batch.

    dataset: items with ``photo`` (3,H,W), ``sketch`` (1,H,W), ``identity``, ``name``, and perhaps ``mask`` (H,W).
    Outputs and photos are area-pooled to the preset's eval_size before they are judged. Runtime is the predictor's wall
    time (without data loading and judges) divided by the batch size, after ``warmup`` untimed calls on the first batch
    and with GPU synchronisation. photo_embeddings (N,d): :func:`embed_photos` of the same data set, computed once for
    several methods.
    """
    preset = get_preset(preset)
    if len(dataset) == 0:
        raise DataError("there are no images to evaluate: check the split and the limit.")
    judges = judges or Judges.of(preset, device)
    needs_photo = getattr(predict, "needs_photo", False)
    columns: dict[str, list] = {k: [] for k in ("runtime_s", *COLUMNS, "identity", "name", "embedding")}
    with torch.inference_mode():
        for items in batches(dataset, batch, progress, "evaluate"):
            start = len(columns["name"])
            sketches, photos = (torch.stack([item[k] for item in items]).to(device) for k in ("sketch", "photo"))
            arguments = (sketches, photos) if needs_photo else (sketches,)
            if start == 0 and not needs_photo:  # an optimisation of minutes needs no warm-up
                for _ in range(warmup):
                    predict(*arguments)
            _wait(device)
            began = time.perf_counter()
            output = predict(*arguments)
            _wait(device)
            seconds = (time.perf_counter() - began) / len(items)
            if output.ndim != 4 or output.shape[:2] != (len(items), 3):
                raise S2FError(
                    f"the predictor returned {tuple(output.shape)} for {len(items)} sketches: it must "
                    f"return ({len(items)}, 3, H, W)."
                )
            x, y = (pool(t.to(device).float(), preset.eval_size) for t in (output, photos))
            embedding = judges.identity.embed(x).float().cpu()
            truth = (
                torch.from_numpy(np.asarray(photo_embeddings[start : start + len(items)]))
                if photo_embeddings is not None
                else judges.identity.embed(y).float().cpu()
            )
            columns["runtime_s"] += [seconds] * len(items)
            columns["mse"] += (x - y).double().square().mean(dim=(1, 2, 3)).tolist()
            columns["face_mse"] += masked_mse(x, y, items).tolist()
            columns["lpips"] += judges.perceptual(x, y).double().flatten().tolist()
            columns["similarity"] += F.cosine_similarity(embedding.double(), truth.double(), dim=1).tolist()
            columns["identity"] += [int(item["identity"]) for item in items]
            columns["name"] += [str(item["name"]) for item in items]
            columns["embedding"].append(embedding.numpy())
    arrays = {k: np.asarray(v) for k, v in columns.items() if k != "embedding"}
    for k in COLUMNS:
        if not np.isfinite(arrays[k]).all():
            bad = arrays["name"][~np.isfinite(arrays[k])][0]
            raise S2FError(f"{k} of {bad} is NaN or infinite: check the predictor, whose training may have diverged.")
    return Scores(
        **arrays,
        preset=preset.name,
        perceptual=judges.perceptual.label,
        identifier=judges.identity.label,
        embedding=np.concatenate(columns["embedding"]),
    )


def runtimes_in_turn(
    predictors: Mapping[str, Predictor], sketches: Tensor, warmup: int = 5, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Seconds of every predictor for every sketch, (N,) each: one sketch at a time, warm, the predictors in turn.

    Whatever else the machine does then meets all of them alike. sketches (N,1,H,W) in [0, 1].
    """
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    with torch.inference_mode():
        for i in range(-warmup, len(sketches)):
            one = sketches[max(i, 0)][None].to(device)
            for name, predict in predictors.items():
                _wait(device)
                began = time.perf_counter()
                predict(one)
                _wait(device)
                if i >= 0:
                    seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def masked_mse(x: Tensor, y: Tensor, items: list) -> Tensor:
    """The squared difference of x and y (B,3,S,S), averaged inside each item's face: (B,).

    An item without a mask, or whose mask shows no face, counts as a whole.
    """
    inside = torch.ones(len(items), *x.shape[-2:], device=x.device)
    for i, item in enumerate(items):
        if (mask := item.get("mask")) is not None:
            face = torch.isin(mask.to(x.device), torch.tensor(FACE_LABELS, device=x.device)).float()
            face = F.interpolate(face[None, None], size=x.shape[-2:], mode="nearest")[0, 0]
            inside[i] = face if face.any() else 1.0
    squared = (x - y).double().square().mean(1)
    return (squared * inside).sum((1, 2)) / inside.sum((1, 2))


def embed_photos(
    dataset, judge, preset: str | Preset, batch: int = 32, device: str = "cpu", progress: bool = False
) -> np.ndarray:
    """The identity judge's embedding of every photo of a data set, in order → (N,d) float32."""
    preset = get_preset(preset)
    parts = []
    with torch.inference_mode():
        for items in batches(dataset, batch, progress, "embed photos"):
            photos = torch.stack([item["photo"] for item in items])
            parts.append(judge.embed(pool(photos.to(device), preset.eval_size)).float().cpu().numpy())
    if not parts:
        raise DataError("there are no photos to embed: check the split and the limit.")
    return np.concatenate(parts)


def psp_predictor(psp, preset: str | Preset, device: str = "cpu") -> Predictor:
    """A PSP, in eval mode on this device, as a Predictor with an attribute ``psp``; WeightsError for another preset."""
    preset = get_preset(preset)
    if psp.latent_avg.shape != (preset.n_styles, preset.style_dim):
        raise WeightsError(
            f"this encoder's codes are {tuple(psp.latent_avg.shape)}, but the {preset.name} preset uses "
            f"{(preset.n_styles, preset.style_dim)}: choose the preset it was trained with."
        )
    psp = psp.to(device).eval()

    def predict(sketches: Tensor) -> Tensor:
        return psp(sketches.to(device))[0]

    predict.psp = psp
    return predict


def pool(x: Tensor, size: int) -> Tensor:
    """(B,C,H,W) → (B,C,size,size) by area; images of this size are returned unchanged."""
    return x if x.shape[-2:] == (size, size) else F.adaptive_avg_pool2d(x, size)


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def batches(dataset, size: int, progress: bool, what: str) -> Iterator[list]:
    """The items of a data set in order, in lists of up to ``size``, with a progress bar."""
    for start in progress_bar(range(0, len(dataset), size), progress, what):
        yield [dataset[i] for i in range(start, min(start + size, len(dataset)))]


def progress_bar(steps, progress: bool, what: str):
    if not progress:
        return steps
    from tqdm.auto import tqdm

    return tqdm(steps, desc=what, unit="batch", leave=False)
