"""Text-guided face editing: the paper's second stage, with the same API in every preset.

InstructPix2Pix (Brooks et al., CVPR 2023, arXiv:2211.09800) with diffusers' pipeline; the networks are described in
s2flib.instruct_pix2pix.networks. Both guidance scales are from Eq. 3 of that paper,

    ẽ = e(z, ∅, ∅) + s_I · (e(z, c_I, ∅) − e(z, ∅, ∅)) + s_T · (e(z, c_I, c_T) − e(z, c_I, ∅))

with ``guidance`` s_T (how closely to follow the text) and ``image_guidance`` s_I (how closely to follow the image). s_T
applies within ``interval``, a range of noise levels, and is 1 outside it (Kynkäänniemi et al., NeurIPS 2024,
arXiv:2404.07724): in the noisiest steps guidance exaggerates what these steps determine, the mean of all images that
fit the text, and in the last step it oversaturates colours. In the tiny preset s_T also depends on the size of the
change, see s2flib.presets.Suited.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import s2flib
from s2flib.errors import S2FError
from s2flib.images import Picture, as_float, save_image, to_array
from s2flib.instruct_pix2pix.inputs import OneAtATime, check_length, check_words, frame, understood
from s2flib.instruct_pix2pix.pipeline import load_pipeline
from s2flib.presets import EditSettings, Preset, Suited, get_preset
from s2flib.runs import check_seed
from s2flib.weights.load import fingerprint

MAX_SEEDS = 64


class Cancelled(S2FError):
    """The caller cancelled an edit."""


@dataclass(frozen=True)
class Edited:
    """One result. image (H, W, 3) uint8; before: the model's input, same shape; parameters: how it was generated."""

    image: np.ndarray
    before: np.ndarray
    instruction: str
    seed: int
    parameters: dict = field(repr=False)
    notes: tuple[str, ...] = ()  # changes made to the input, and words that were not understood

    def save(self, path: str | Path, overwrite: bool = False, mark: bool = False) -> Path:
        """Write the image; its metadata states that it is synthetic and how it was generated. mark: also visibly."""
        return save_image(path, self.image, metadata=self.parameters, overwrite=overwrite, mark=mark)


@dataclass(frozen=True)
class EditOptions:
    """How an edit is sampled. None: the preset's default (presets.EditSettings)."""

    steps: int | None = None  # denoising steps
    guidance: float | Suited | None = None  # s_T ≥ 1: how closely the text is followed
    image_guidance: float | None = None  # s_I ≥ 1: how closely the input image is followed
    interval: tuple[float, float] | None = None  # noise levels t/T, 0 (clean) to 1 (noise), at which s_T applies
    negative: str | None = None  # negative prompt, used instead of the empty text
    keep: bool | None = None  # preserve the input's detail where nothing changed (keep_detail)

    def resolved(self, settings: EditSettings) -> EditOptions:
        """The same with every None that the preset decides filled in; S2FError for numbers out of range."""
        defaults = dict(steps=settings.steps, guidance=settings.guidance, image_guidance=settings.image_guidance,
                        interval=settings.interval, keep=settings.keep_detail)  # fmt: skip
        chosen = replace(self, **{k: v for k, v in defaults.items() if getattr(self, k) is None})
        chosen._check()
        return chosen

    def _check(self) -> None:
        chosen: Any = self  # no None that the preset decides is left
        guidance, image_guidance, interval = chosen.guidance, chosen.image_guidance, chosen.interval
        if not isinstance(self.steps, (int, np.integer)) or not 1 <= self.steps <= 1000:
            raise S2FError(f"steps must be a whole number from 1 to 1000, not {self.steps!r}.")
        suited = isinstance(guidance, Suited)
        rising = suited and sorted(guidance.limits) == list(guidance.limits)
        if suited and not (rising and len(guidance.scales) == len(guidance.limits) + 1):
            message = "suited guidance needs rising limits and one scale more than limits"
            raise S2FError(f"{message}, got {tuple(guidance)}.")
        for scale in guidance.scales if suited else (guidance,):
            if not 1 <= scale <= 30:
                raise S2FError(f"guidance must be between 1 (none) and 30, not {scale}.")
            if scale == 1 and image_guidance != 1:
                raise S2FError("image_guidance has no effect without guidance: set guidance above 1, or set both to 1.")
        if not 1 <= image_guidance <= 10:
            raise S2FError(f"image_guidance must be between 1 (none) and 10, not {image_guidance}.")
        if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
            raise S2FError(f"interval must be two increasing numbers from 0 to 1, not {interval}.")


def edit(
    image: Picture,  # a file, uint8 (H, W, 3) array, PIL image or photo tensor (3, H, W)
    instruction: str,  # what to change, in English
    preset: str | Preset = "tiny",
    seed: int | Sequence[int] = 0,  # a sequence returns a list with one result per seed
    pipe=None,  # the result of load_pipeline, to load it only once
    progress: Callable[[int, int], None] | None = None,  # called with (steps done, total steps)
    cancel: threading.Event | Callable[[], bool] | None = None,  # checked between steps: raises Cancelled
    **options,  # fields of EditOptions: steps, guidance, image_guidance, interval, negative, keep
) -> Edited | list[Edited]:
    """Edit an image by a text instruction. The same input, options and seed give the same image.

    Raises S2FError for an instruction that is empty, too long or not in English, an image that cannot be used,
    options out of range, missing weights, or insufficient memory.
    """
    several = not isinstance(seed, (int, np.integer))
    seeds = [int(s) for s in seed] if several else [int(seed)]
    if not 1 <= len(seeds) <= MAX_SEEDS:
        raise S2FError(f"pass 1 to {MAX_SEEDS} seeds, not {len(seeds)}.")
    n = len(seeds)
    made = edit_batch([image] * n, [instruction] * n, preset, seeds, pipe, progress, cancel, **options)
    return made if several else made[0]


def edit_batch(
    pictures: Sequence[Picture],
    instructions: Sequence[str],  # one per image
    preset: str | Preset = "tiny",
    seeds: int | Sequence[int] = 0,  # one for all, or one per image
    pipe=None,
    progress: Callable[[int, int], None] | None = None,
    cancel: threading.Event | Callable[[], bool] | None = None,
    batch: int | None = None,  # images at a time; None: the preset's
    **options,
) -> list[Edited]:
    """:func:`edit` for several images. All input is checked before the first step; up
    to rounding, a result does not depend on the rest of the batch."""
    p = get_preset(preset)
    pictures, instructions = list(pictures), list(instructions)
    seeds = [int(seeds)] * len(pictures) if isinstance(seeds, (int, np.integer)) else [int(s) for s in seeds]
    if not pictures or not len(pictures) == len(instructions) == len(seeds):
        raise S2FError(
            f"{len(pictures)} images, {len(instructions)} instructions and {len(seeds)} seeds: pass one "
            "instruction and one seed per image, and at least one image."
        )
    for s in seeds:
        check_seed(s)
    chosen: Any = EditOptions(**options).resolved(p.edit)
    framed = [frame(picture, p.edit) for picture in pictures]
    for text in instructions:
        check_words(text)
    pipe = pipe or load_pipeline(p)
    understandings = [understood(text, pipe, p) for text in instructions]
    texts = [text for text, _ in understandings]
    notes = [(*a, *b) for (_, a), (_, b) in zip(framed, understandings, strict=True)]
    if chosen.negative is not None:
        check_length(chosen.negative, pipe, "negative text")
    # images of the same shape are batched together
    order = sorted(range(len(pictures)), key=lambda i: framed[i][0].shape)
    groups: list[list[int]] = []
    for i in order:
        full = not groups or len(groups[-1]) == (batch or p.edit.batch)
        if full or framed[groups[-1][0]][0].shape != framed[i][0].shape:
            groups.append([])
        groups[-1].append(i)
    guidance = chosen.guidance
    total, done, out = chosen.steps * (2 if isinstance(guidance, Suited) else 1) * len(groups), 0, {}

    def run(x: Tensor, members: list[int], s_t: float, s_i: float, share: float) -> Tensor:
        """One pass of the pipeline; share: the fraction of a group's steps that it accounts for."""

        def tick(step: int) -> None:
            if progress:
                progress(round(done + share * step), total)
            if cancel is not None and (cancel() if callable(cancel) else cancel.is_set()):
                raise Cancelled("the edit was cancelled: nothing was written.")

        nonlocal done
        scales = replace(chosen, guidance=s_t, image_guidance=s_i)
        made = _run(pipe, x, [texts[i] for i in members], [seeds[i] for i in members], scales, tick)
        done += share * chosen.steps
        return made

    for group in groups:
        x = as_float(np.stack([framed[i][0] for i in group]))
        if isinstance(guidance, Suited):
            moved = (run(x, group, 1, 1, 1.0) - x).abs().mean((1, 2, 3)) * 127.5  # grey levels
            scales = [guidance.of(m) for m in moved.tolist()]
        else:
            scales = [guidance] * len(group)
        for scale in sorted(set(scales)):
            part = [k for k, s in enumerate(scales) if s == scale]
            members = [group[k] for k in part]
            made = run(x[part], members, scale, chosen.image_guidance, len(part) / len(group))
            for i, picture in zip(members, made, strict=True):
                before = framed[i][0]
                details = {
                    "software": f"s2flib {s2flib.__version__}",
                    "preset": p.name,
                    "label": p.label,
                    "instruction": instructions[i],
                    "understood_as": texts[i],
                    "negative": chosen.negative or "",
                    "steps": chosen.steps,
                    "guidance": scale,
                    "image_guidance": chosen.image_guidance,
                    "interval": "{:g} {:g}".format(*chosen.interval),
                    "seed": seeds[i],
                    "keep_detail": chosen.keep,
                    "pipeline": identity_of(pipe),
                    "input_sha256": hashlib.sha256(before.tobytes()).hexdigest(),
                }
                out[i] = Edited(to_array(picture), before, instructions[i], seeds[i], details, notes[i])
    return [out[i] for i in range(len(pictures))]


@torch.no_grad()
def _run(pipe, x: Tensor, texts: list[str], seeds: list[int], options: Any, tick: Callable[[int], None]) -> Tensor:
    """x (B, 3, H, W) in [−1, 1] → edited (B, 3, H, W) float32 on the CPU; options: EditOptions, resolved."""
    # the call's own scheduler and guidance: two calls may share one pipeline (two panels, two threads)
    networks, pipe = pipe, copy.copy(pipe)
    pipe.__dict__["scheduler"] = copy.deepcopy(networks.scheduler)
    pipe.__dict__["tokenizer"] = OneAtATime(networks.tokenizer)
    pipe.scheduler.set_timesteps(options.steps)
    scales = guidance_schedule(pipe.scheduler, options.guidance, options.interval)
    negative = None if options.negative is None else [options.negative] * len(texts)

    def on_step(_pipe, step: int, _time, tensors: dict) -> dict:
        tick(step + 1)
        if step + 1 < len(scales):
            _pipe._guidance_scale = scales[step + 1]  # this callback is diffusers' way to vary guidance
        return tensors

    device, dtype = pipe._execution_device, pipe.vae.dtype
    tick(0)
    try:
        x = x.to(device, dtype)
        latents = pipe(
            texts,
            image=x / 2 + 0.5,
            num_inference_steps=options.steps,
            guidance_scale=scales[0],
            image_guidance_scale=options.image_guidance,
            negative_prompt=negative,
            generator=[torch.Generator().manual_seed(s) for s in seeds],
            output_type="latent",
            callback_on_step_end=on_step,
        ).images
        after = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample.float()
        if options.keep:
            rebuilt = pipe.vae.decode(pipe.vae.encode(x).latent_dist.mode()).sample.float()
            after = keep_detail(x.float(), rebuilt, after)
    except (MemoryError, RuntimeError) as e:
        if isinstance(e, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(e).lower():
            raise S2FError(
                f"memory ran out while editing {len(x)} images of {x.shape[3]}×{x.shape[2]} px at a time: "
                "edit fewer at once (batch=1), use a smaller image, or use the tiny preset."
            ) from e
        raise
    if not torch.isfinite(after).all():
        raise S2FError("the edited image is NaN or infinite: reduce guidance, or edit in float32 on the CPU.")
    return after.clamp(-1, 1).cpu()


def guidance_schedule(scheduler, guidance: float, interval: tuple[float, ...]) -> list[float]:
    """s_T of every step: ``guidance`` where the step's time t/T is in ``interval``, else 1.

    The actual value is 1 + 10⁻⁶, because at exactly 1 the pipeline skips the other predictions and with them s_I.
    ``guidance`` 1 switches both guidance scales off and is returned unchanged.
    """
    low, high = interval
    shares = [float(t) / scheduler.config.num_train_timesteps for t in scheduler.timesteps]
    return [guidance if low <= share <= high or guidance == 1 else 1 + 1e-6 for share in shares]


def keep_detail(x: Tensor, rebuilt: Tensor, after: Tensor, low: float = 0.02, high: float = 0.25) -> Tensor:
    """Restore the input's detail in an edited image where the edit changed nothing. All (B, 3, H, W) in [−1, 1].

    An autoencoder loses detail, most visibly in faces, and would lose it in every pixel even if only a few change.
    The edit's change D(z') − D(E(x)) is free of this loss. Where the change, averaged over a few pixels, is below
    ``low``, the input is kept; above, the change is added to the input; as it approaches ``high``, where a new object
    covers the old one, the result becomes the decoded image itself, without the old detail.
    """
    change = after - rebuilt
    size = change.abs().mean(1, keepdim=True)
    side = max(3, 2 * (x.shape[-1] // 64) + 1)
    size = F.avg_pool2d(F.pad(size, (side // 2,) * 4, mode="replicate"), side, 1)  # (B, 1, H, W)

    def ramp(a: float, b: float) -> Tensor:
        t = ((size - a) / (b - a)).clamp(0, 1)
        return t * t * (3 - 2 * t)

    return x + ramp(low / 2, low) * change + ramp(high / 2, high) * (rebuilt - x)


def identity_of(pipe) -> str:
    """16 hex digits that identify a pipeline's UNet, computed once."""
    if not hasattr(pipe, "_s2f_fingerprint"):
        pipe._s2f_fingerprint = fingerprint(pipe.unet)
    return pipe._s2f_fingerprint
