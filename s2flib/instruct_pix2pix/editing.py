"""Edit a face by words: the paper's second stage, one call under every preset.

    from s2flib.instruct_pix2pix.editing import edit
    result = edit("face.png", "make the hair blond")        # result.image (H, W, 3) uint8; result.save("blond.png")

InstructPix2Pix (Brooks et al., CVPR 2023, arXiv:2211.09800) by diffusers' pipeline; see s2flib.instruct_pix2pix.networks for the
networks. The two guidances are Eq. 3 of that paper,

    ẽ = e(z, ∅, ∅) + s_I · (e(z, c_I, ∅) − e(z, ∅, ∅)) + s_T · (e(z, c_I, c_T) − e(z, c_I, ∅))

with ``guidance`` s_T (obey the text) and ``image_guidance`` s_I (stay with the picture). s_T acts within ``interval``,
a range of noise levels, and is 1 outside it (Kynkäänniemi et al., NeurIPS 2024, arXiv:2404.07724): guidance at the
noisiest steps exaggerates what is then decided, the mean of all pictures that the words allow, and at the last step it
burns colours in. Under tiny s_T also depends on the size of the change, see s2flib.presets.Suited.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import s2flib
from s2flib.errors import S2FError
from s2flib.images import Picture, as_float, save_image, to_array
from s2flib.instruct_pix2pix.inputs import check_length, check_words, frame, understood
from s2flib.instruct_pix2pix.pipeline import load_pipeline
from s2flib.presets import Preset, Suited, get_preset
from s2flib.weights.load import fingerprint

MAX_SEEDS = 64


class Cancelled(S2FError):
    """The caller asked an edit to stop."""


@dataclass(frozen=True)
class Edited:
    """One result. image (H, W, 3) uint8; before: what the model was given, same shape; parameters: how it was made."""

    image: np.ndarray
    before: np.ndarray
    instruction: str
    seed: int
    parameters: dict = field(repr=False)
    notes: tuple[str, ...] = ()          # what was done to the input first, and what was not understood

    def save(self, path: str | Path, overwrite: bool = False, mark: bool = False) -> Path:
        """Write it; the file says in its metadata that it is synthetic and how it was made. mark: visibly, too."""
        return save_image(path, self.image, metadata=self.parameters, overwrite=overwrite, mark=mark)


def edit(
    image: Picture,                            # a file, uint8 (H, W, 3) array, PIL picture or photo tensor (3, H, W)
    instruction: str,                          # what to change, in English
    preset: str | Preset = "tiny",
    steps: int | None = None,                  # denoising steps; None: the preset's default, as below
    guidance: float | Suited | None = None,    # s_T ≥ 1: how strictly the text is obeyed
    image_guidance: float | None = None,       # s_I ≥ 1: how closely the picture is kept
    interval: tuple[float, float] | None = None,  # noise times t/T, from 0 (clean) to 1 (noise), at which s_T acts
    seed: int | Sequence[int] = 0,             # several: one result each, a list
    negative: str | None = None,               # what to steer away from, in place of "no text"
    keep: bool | None = None,                  # keep the input's own detail where nothing changed (keep_detail)
    pipe=None,                                 # load_pipeline's result, to load once and edit often
    progress: Callable[[int, int], None] | None = None,         # called with (steps done, steps in all)
    cancel: threading.Event | Callable[[], bool] | None = None,  # stops between two steps: raises Cancelled
) -> Edited | list[Edited]:
    """Change a picture as the words say. The same input, parameters and seed give the same picture.

    Raises S2FError, one sentence with the mend: no or too long an instruction, a language it does not read, a
    picture that cannot be used, numbers out of range, weights that are not there, memory that ran out.
    """
    several = not isinstance(seed, (int, np.integer))
    seeds = [int(s) for s in seed] if several else [int(seed)]
    if not 1 <= len(seeds) <= MAX_SEEDS:
        raise S2FError(f"give 1 to {MAX_SEEDS} seeds, not {len(seeds)}.")
    made = edit_batch([image] * len(seeds), [instruction] * len(seeds), preset, steps, guidance, image_guidance,
                      interval, seeds, negative, keep, pipe, progress, cancel)
    return made if several else made[0]


def edit_batch(
    pictures: Sequence[Picture],
    instructions: Sequence[str],               # one each
    preset: str | Preset = "tiny",
    steps: int | None = None,
    guidance: float | Suited | None = None,
    image_guidance: float | None = None,
    interval: tuple[float, float] | None = None,
    seeds: int | Sequence[int] = 0,            # one for all, or one each
    negative: str | None = None,
    keep: bool | None = None,
    pipe=None,
    progress: Callable[[int, int], None] | None = None,
    cancel: threading.Event | Callable[[], bool] | None = None,
    batch: int | None = None,                  # pictures at a time; None: the preset's
) -> list[Edited]:
    """:func:`edit` for many pictures. Everything is checked before the first step; a seed's result does not depend
    on its neighbours (but for rounding)."""
    p = get_preset(preset)
    chosen = p.edit
    pictures, instructions = list(pictures), list(instructions)
    seeds = [int(seeds)] * len(pictures) if isinstance(seeds, (int, np.integer)) else [int(s) for s in seeds]
    if not pictures or not len(pictures) == len(instructions) == len(seeds):
        raise S2FError(f"{len(pictures)} pictures, {len(instructions)} instructions and {len(seeds)} seeds: give one "
                       "instruction and one seed for each picture, and at least one picture.")
    steps = chosen.steps if steps is None else steps
    guidance = chosen.guidance if guidance is None else guidance
    image_guidance = chosen.image_guidance if image_guidance is None else image_guidance
    interval = chosen.interval if interval is None else tuple(interval)
    keep = chosen.keep_detail if keep is None else keep
    _check_numbers(steps, guidance, image_guidance, interval, seeds)
    framed = [frame(picture, chosen) for picture in pictures]
    for text in instructions:
        check_words(text)
    pipe = pipe or load_pipeline(p)
    notes = [(*note, *understood(text, pipe, p)) for (_, note), text in zip(framed, instructions, strict=True)]
    if negative is not None:
        check_length(negative, pipe, "negative text")
    # pictures of one shape go through the pipeline together
    order = sorted(range(len(pictures)), key=lambda i: framed[i][0].shape)
    groups: list[list[int]] = []
    for i in order:
        full = not groups or len(groups[-1]) == (batch or chosen.batch)
        if full or framed[groups[-1][0]][0].shape != framed[i][0].shape:
            groups.append([])
        groups[-1].append(i)
    passes = 2 if isinstance(guidance, Suited) else 1
    total, done, out = steps * passes * len(groups), 0, {}

    def run(x: Tensor, members: list[int], s_t: float, s_i: float, share: float) -> Tensor:
        """One pass of the pipeline; share: of a group's steps that it counts for."""
        def tick(step: int) -> None:
            if progress:
                progress(round(done + share * step), total)
            if cancel is not None and (cancel.is_set() if hasattr(cancel, "is_set") else cancel()):
                raise Cancelled("the edit was cancelled: nothing has been written.")

        nonlocal done
        made = _run(pipe, x, [instructions[i] for i in members], steps, s_t, s_i, interval,
                    [seeds[i] for i in members], negative, keep, tick)
        done += share * steps
        return made

    for group in groups:
        x = as_float(np.stack([framed[i][0] for i in group]))
        if isinstance(guidance, Suited):
            moved = (run(x, group, 1, 1, 1.0) - x).abs().mean((1, 2, 3)) * 127.5             # grey levels
            scales = [guidance.of(m) for m in moved.tolist()]
        else:
            scales = [guidance] * len(group)
        for scale in sorted(set(scales)):
            part = [k for k, s in enumerate(scales) if s == scale]
            members = [group[k] for k in part]
            made = run(x[part], members, scale, image_guidance, len(part) / len(group))
            for i, picture in zip(members, made, strict=True):
                before = framed[i][0]
                details = {
                    "software": f"s2flib {s2flib.__version__}", "preset": p.name, "label": p.label,
                    "instruction": instructions[i], "negative": negative or "", "steps": steps, "guidance": scale,
                    "image_guidance": image_guidance, "interval": "{:g} {:g}".format(*interval), "seed": seeds[i],
                    "keep_detail": keep, "pipeline": identity_of(pipe),
                    "input_sha256": hashlib.sha256(before.tobytes()).hexdigest()}
                out[i] = Edited(to_array(picture), before, instructions[i], seeds[i], details, notes[i])
    return [out[i] for i in range(len(pictures))]


@torch.no_grad()
def _run(pipe, x: Tensor, texts: list[str], steps: int, guidance: float, image_guidance: float,
         interval: tuple[float, float], seeds: list[int], negative: str | None, keep: bool,
         tick: Callable[[int], None]) -> Tensor:
    """x (B, 3, H, W) in [−1, 1] → edited (B, 3, H, W) float32 on the CPU."""
    pipe.scheduler.set_timesteps(steps)
    scales = guidance_schedule(pipe.scheduler, guidance, interval)

    def on_step(_pipe, step: int, _time, tensors: dict) -> dict:
        tick(step + 1)
        if step + 1 < len(scales):
            _pipe._guidance_scale = scales[step + 1]           # diffusers' way to vary guidance is from this callback
        return tensors

    device, dtype = pipe._execution_device, pipe.vae.dtype
    tick(0)
    try:
        x = x.to(device, dtype)
        latents = pipe(
            texts, image=x / 2 + 0.5, num_inference_steps=steps, guidance_scale=scales[0],
            image_guidance_scale=image_guidance, negative_prompt=None if negative is None else [negative] * len(texts),
            generator=[torch.Generator().manual_seed(s) for s in seeds], output_type="latent",
            callback_on_step_end=on_step).images
        after = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample.float()
        if keep:
            rebuilt = pipe.vae.decode(pipe.vae.encode(x).latent_dist.mode()).sample.float()
            after = keep_detail(x.float(), rebuilt, after)
    except (MemoryError, RuntimeError) as e:
        if isinstance(e, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(e).lower():
            raise S2FError(f"memory ran out editing {len(x)} pictures of {x.shape[3]}×{x.shape[2]} px at a time: edit "
                           "fewer at once (batch=1), give a smaller picture, or use the tiny preset.") from e
        raise
    if not torch.isfinite(after).all():
        raise S2FError("the edit came out as no numbers: lower guidance, or edit in float32 on the CPU.")
    return after.clamp(-1, 1).cpu()


def guidance_schedule(scheduler, guidance: float, interval: tuple[float, float]) -> list[float]:
    """s_T of every step: ``guidance`` where the step's time t/T lies in ``interval``, else 1.

    1 + 10⁻⁶ in truth: at 1 sharp the pipeline would leave the other predictions out, and s_I with them. ``guidance`` 1
    switches both guidances off and stays.
    """
    low, high = interval
    shares = [float(t) / scheduler.config.num_train_timesteps for t in scheduler.timesteps]
    return [guidance if low <= share <= high or guidance == 1 else 1 + 1e-6 for share in shares]


def keep_detail(x: Tensor, rebuilt: Tensor, after: Tensor, low: float = 0.02, high: float = 0.25) -> Tensor:
    """Give an edited picture its input's own detail back where the edit left it alone. All (B, 3, H, W) in [−1, 1].

    An autoencoder loses detail, of a face above all, and would lose it in every pixel for the sake of a few.
    What the edit changed is D(z') − D(E(x)), free of that loss. Where this change, taken over a few pixels, is below
    ``low`` the input stays; from there on the change is added to it; and as it nears ``high``, where a new thing
    stands before the old one, the decoded picture itself takes over, old detail having no business there.
    """
    change = after - rebuilt
    size = change.abs().mean(1, keepdim=True)
    side = max(3, 2 * (x.shape[-1] // 64) + 1)
    size = F.avg_pool2d(F.pad(size, (side // 2,) * 4, mode="replicate"), side, 1)          # (B, 1, H, W)

    def ramp(a: float, b: float) -> Tensor:
        t = ((size - a) / (b - a)).clamp(0, 1)
        return t * t * (3 - 2 * t)

    return x + ramp(low / 2, low) * change + ramp(high / 2, high) * (rebuilt - x)


# --- chains -----------------------------------------------------------------------------------------------------


class EditSession:
    """Edits one after the other, each on the last result, with undo and redo.

        session = EditSession("face.png")
        session.apply("brown hair"); session.apply("add glasses"); session.undo(); session.save("out.png")

    options: any of edit()'s (steps, guidance, image_guidance, interval, keep, pipe …), for all edits of the session.
    """

    def __init__(self, image: Picture, preset: str | Preset = "tiny", **options):
        self.preset, self.options = get_preset(preset), options
        self.original, self.notes = frame(image, self.preset.edit)
        self.history: list[Edited] = []      # what led to ``image``
        self._undone: list[Edited] = []

    @property
    def image(self) -> np.ndarray:
        """The picture as it is now, (H, W, 3) uint8."""
        return self.history[-1].image if self.history else self.original

    @property
    def instructions(self) -> list[str]:
        return [step.instruction for step in self.history]

    def apply(self, instruction: str, **options) -> Edited:
        """One more edit. If it fails or is cancelled, the session stays as it was."""
        if self.options.get("pipe") is None:
            self.options["pipe"] = load_pipeline(self.preset)
        made = edit(self.image, instruction, self.preset, **(self.options | {"seed": 0} | options))
        if isinstance(made, list):
            raise S2FError("a chain follows one picture: give one seed.")
        chain = [*self.instructions, instruction]
        made = Edited(made.image, made.before, instruction, made.seed, made.parameters | {"history": json.dumps(chain)},
                      made.notes)
        self.history.append(made)
        self._undone.clear()
        return made

    def chain(self, instructions: Sequence[str], **options) -> list[Edited]:
        """Several edits, one after the other; an error leaves those before it in place."""
        return [self.apply(text, **options) for text in instructions]

    def undo(self) -> np.ndarray:
        """Take the last edit back; returns the picture before it."""
        if not self.history:
            raise S2FError("there is nothing to undo: this is the picture you began with.")
        self._undone.append(self.history.pop())
        return self.image

    def redo(self) -> np.ndarray:
        """Put back what was undone last."""
        if not self._undone:
            raise S2FError("there is nothing to redo.")
        self.history.append(self._undone.pop())
        return self.image

    def save(self, path: str | Path, overwrite: bool = False, mark: bool = False) -> Path:
        """Write the picture as it is now, with the whole chain in its metadata."""
        if not self.history:
            raise S2FError("nothing has been edited yet: call apply first.")
        return self.history[-1].save(path, overwrite, mark)


def identity_of(pipe) -> str:
    """16 hex digits that name a pipeline's UNet, computed once."""
    if not hasattr(pipe, "_s2f_fingerprint"):
        pipe._s2f_fingerprint = fingerprint(pipe.unet)
    return pipe._s2f_fingerprint


def _check_numbers(steps: int, guidance: float | Suited, image_guidance: float, interval: tuple[float, float],
                   seeds: list[int]) -> None:
    if not isinstance(steps, (int, np.integer)) or not 1 <= steps <= 1000:
        raise S2FError(f"steps must be a whole number from 1 to 1000, not {steps!r}.")
    if isinstance(guidance, Suited) and (len(guidance.scales) != len(guidance.limits) + 1
                                         or sorted(guidance.limits) != list(guidance.limits)):
        raise S2FError(f"suited guidance needs rising limits and one scale more than limits, not {tuple(guidance)}.")
    for scale in guidance.scales if isinstance(guidance, Suited) else (guidance,):
        if not 1 <= scale <= 30:
            raise S2FError(f"guidance must lie between 1 (none) and 30, not {scale}.")
        if scale == 1 and image_guidance != 1:
            raise S2FError("image_guidance has no effect without guidance: give guidance above 1, or both as 1.")
    if not 1 <= image_guidance <= 10:
        raise S2FError(f"image_guidance must lie between 1 (none) and 10, not {image_guidance}.")
    if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
        raise S2FError(f"interval must be two rising numbers from 0 to 1, not {interval}.")
    if any(not 0 <= s < 2**63 for s in seeds):
        raise S2FError(f"seeds must be 0 or more, not {min(seeds)}.")
