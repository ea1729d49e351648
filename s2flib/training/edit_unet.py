"""Stage 2 of the edit pipeline: the UNet and its text encoder, by InstructPix2Pix's recipe (2211.09800, Sec. 3.2).

    z_t = √ᾱ_t · s · E(after) + √(1 − ᾱ_t) · ε          noisy latents of the picture after the edit
    UNet input: z_t ⊕ E(before)                         concatenated; the condition is neither noised nor scaled
    5 % of the time no text, 5 % no picture, 5 % neither, so that both can be guided at run time; EMA of the weights

What differs from the published run, and why: the net predicts the clean latents ("sample") instead of ε. Guidance does
not care (ε, v and x₀ are affine in each other with the same coefficients), but learning does: an edit leaves most of
the picture as it is, and when x₀ is asked for the net need only say what changes: the picture before is added to its
answer (s2flib.instruct_pix2pix.unet). The loss is weighted by SNR truncated to [1, 5] (Salimans & Ho 2202.00512; Hang et al.
2303.09556), and half of its weight lies where the pictures differ, because most of them does not. Pairs that differ
little weigh more: to the squared error new eyes are a hundredth of new hair, to the witness they are not.

Equal errors of latents look unequal once decoded, and the mean of two possible edits is fog. So in the last part of a
training some guesses of x₀ are shown as ``edit`` shows them, decoded and with the input's own detail where nothing
changed, and compared with the true edit (as in Berrada et al. 2411.04873, who take the decoder's features for it):

    lpips    perceptual distance, by ST-LPIPS as in stage 1
    change   L1, half of it where the pictures differ, pairs that differ little weighing more: wrinkles are faint, and
             ST-LPIPS hardly sees them
    reading  what a net that reads attributes (s2flib.judges.edit_judge.EditReader) finds in the two: KL divergence of its
             answers, Huber loss of age and skin tone. It is not the net that measures.

Latents are computed once and kept, pairs and their mirror images; words cost nothing, so every step says them anew,
and pairs are used backwards as well ("remove the hat") where words say what was there before. Kinds that are learnt
slowly are drawn more often.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.datasets.edit_pairs import EditPairs, Edits, times_drawn
from s2flib.errors import S2FError, WeightsError
from s2flib.images import as_float, contact_sheet
from s2flib.instruct_pix2pix.editing import edit_batch, keep_detail
from s2flib.instruct_pix2pix.networks import EditorSize, build_scheduler, build_text_encoder, build_unet, build_vae
from s2flib.instruct_pix2pix.pipeline import assemble, load_pipeline, load_tokenizer, save_pipeline
from s2flib.instruct_pix2pix.vocabulary import sentence
from s2flib.judges.edit_judge import HEADS, load_edit_reader
from s2flib.judges.load import perceptual_judge
from s2flib.presets import TINY, get_preset
from s2flib.training import edit_vae
from s2flib.training.edit_latents import cached_latents, encode_pairs
from s2flib.training.edit_text import Words, pretrain_text_encoder
from s2flib.training.feed import batch_indices
from s2flib.training.loop import CHECKPOINT, run_training
from s2flib.training.trainer import RunConfig, Trainer, Updates, make_accelerator

KIND = "editor-unet"
PREDICTIONS = ("sample", "v_prediction", "epsilon")


@dataclass(frozen=True, kw_only=True)
class UNetConfig(RunConfig):
    """One run of the UNet's training."""

    pairs: str                          # folder of edit pairs
    vae: str                            # vae.safetensors of stage 1, or a pipeline's folder
    init: str | None = None             # a pipeline's folder, to go on from its UNet and text encoder
    steps: int = 12_000
    batch: int = 32                     # pairs a step
    lr: float = 1e-3                    # AdamW; falls linearly to a twentieth over ``steps``
    text_lr: float = 0.3                # the text encoder's share of lr
    prediction: str = "sample"          # what the UNet predicts: sample (x₀), v_prediction or epsilon
    drop: float = 0.05                  # each: no text, no picture, neither
    focus: float = 1.0                  # weight of where the pictures differ, against 1 for everywhere
    small: float = 1.0                  # pairs count by (mean change)^−small: 0 is all alike
    # pairs of these kinds are drawn so many times as often as others
    often: str = "hair_color=2,eye_color=2,makeup=2,hat=2,age=2,expression=3"
    noisy: float = 1.25                 # times t/1000 are drawn as u^(1/noisy): 1: all alike, more: noisier
    reader: str | None = None           # edit-reader.safetensors of s2f train --what edit-reader, for lambda_reading
    lambda_lpips: float = 1.0           # weights of what the guesses, shown as pictures, lack of the true edits: …
    lambda_change: float = 0.0          # … see the module's head …
    lambda_reading: float = 0.0
    shown_from: float = 0.7             # … after this share of the steps: it takes as long as all the rest …
    shown_share: float = 0.25           # … though it sees only this share of each batch
    backwards: bool = True              # use pairs from after to before, too
    pretrain_text: int = 300            # batches of the text encoder's pretraining
    ema: float = 0.999
    save_every: float = 300.0


# --- the recipe, in functions that can be tested ------------------------------------------------------------------


def drop_conditions(texts: list[str], picture: Tensor, u: Tensor, share: float) -> tuple[list[str], Tensor]:
    """Conditioning dropout. u (B,) uniform: below share no text, below 2·share no picture, below 3·share neither."""
    no_text = (u < share) | ((u >= 2 * share) & (u < 3 * share))
    no_picture = (u >= share) & (u < 3 * share)
    texts = ["" if gone else text for text, gone in zip(texts, no_text.tolist(), strict=True)]
    return texts, picture * (~no_picture).to(picture.dtype)[:, None, None, None]


def target_of(prediction: str, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """What the UNet should say: x₀, ε, or v = √ᾱ ε − √(1 − ᾱ) x₀; alpha_bar (B, 1, 1, 1)."""
    if prediction == "sample":
        return x0
    return noise if prediction == "epsilon" else alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0


def clean_of(prediction: str, said: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """x₀ as the UNet guesses it: the inverse of :func:`target_of`, given the noisy latents."""
    if prediction == "sample":
        return said
    if prediction == "epsilon":
        return (noisy - (1 - alpha_bar).sqrt() * said) / alpha_bar.sqrt().clamp(min=1e-3)
    return alpha_bar.sqrt() * noisy - (1 - alpha_bar).sqrt() * said


def noise_weight(prediction: str, alpha_bar: Tensor, low: float = 1.0, high: float = 5.0) -> Tensor:
    """Weight of the squared error such that an error of x₀ weighs SNR truncated to [low, high]."""
    snr = alpha_bar / (1 - alpha_bar)
    weight = snr.clamp(low, high)
    return {"sample": weight, "epsilon": weight / snr.clamp(min=0.05), "v_prediction": weight / (snr + 1)}[prediction]


def noise_times(n: int, steps: int, noisy: float, generator: torch.Generator | None = None) -> Tensor:
    """Times (n,) from 0 to steps − 1, with density ∝ t^(noisy − 1): most of an edit is decided in the noise."""
    u = torch.rand(n, generator=generator) ** (1 / noisy)
    return (u * steps).long().clamp(max=steps - 1)


def reading_distance(read: Tensor, truth: Tensor, sizes: list[int]) -> Tensor:
    """How differently a FaceReader reads two batches: sum over its heads, mean over pictures. read, truth: what it
    says, (B, sum(sizes)). Heads with values: KL(truth ‖ read); numbers: Huber loss, in units of SCALE's spread, times
    16: ten years are less than one such unit, and their slope would be a twentieth of the other heads'."""
    lost = []
    for said, true, values in zip(read.split(sizes, 1), truth.split(sizes, 1), HEADS.values(), strict=True):
        lost.append(F.kl_div(said.log_softmax(1), true.log_softmax(1), reduction="batchmean", log_target=True)
                    if values else 16 * F.smooth_l1_loss(said, true))
    return torch.stack(lost).sum()


class UNetTrainer(Trainer):
    """UNet and text encoder on cached latents; what is kept are their moving averages."""

    kind = KIND
    saved = ("nets", "average", "update")
    several_processes = False

    def __init__(self, cfg: UNetConfig, accelerator):
        super().__init__(cfg, accelerator)
        if cfg.prediction not in PREDICTIONS:
            raise S2FError(f"there is no prediction {cfg.prediction!r}: choose one of {', '.join(PREDICTIONS)}.")
        self.size, out, side = EditorSize(), Path(cfg.out), get_preset(cfg.preset).size
        self.tokenizer = load_tokenizer()
        self.words, self.scheduler = Words(self.tokenizer), build_scheduler(cfg.prediction)
        self.alpha_bar = self.scheduler.alphas_cumprod.to(self.device)
        self.vae = build_vae(self.size)
        self.vae.load_state_dict(edit_vae.vae_tensors(cfg.vae))
        self.vae = self.vae.to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)
        edit_vae.float_norms(self.vae)
        self.judge = perceptual_judge(cfg.preset).to(self.device)
        if cfg.lambda_reading and not cfg.reader:
            raise S2FError("lambda_reading needs a net that reads: give --set unet.reader=FILE, trained by s2f train "
                           "--what edit-reader.")
        self.reader = load_edit_reader(cfg.reader).to(self.device) if cfg.lambda_reading else None
        train, val = EditPairs(cfg.pairs, "train", side, cfg.limit), EditPairs(cfg.pairs, "val", side, cfg.limit or 64)
        often = times_drawn(cfg.often)
        self.items: list[tuple[int, bool, Edits]] = []         # pair, backwards, what is asked for
        for i, (there, back) in enumerate(train.both_ways()):
            for backwards, edits in ((False, there), (True, back if cfg.backwards else None)):
                if edits:
                    self.items += [(i, backwards, edits)] * max(often.get(edit.kind, 1) for edit in edits)
        self.latents = cached_latents(out / "latents-train.safetensors", self.vae, train, self.autocast)
        self.weight = edit_vae.pair_weight(self.latents.change, cfg.small)
        self.pictures = torch.stack(edit_vae.masked(train.arrays()), 1)               # (N, 2, 3, H, W) uint8
        arrays = val.arrays()
        self.val_rows, self.val_before, self.val_after = val.rows, arrays["before"], arrays["after"]
        self.val = encode_pairs(self.vae, arrays, self.latents.scale, autocast=self.autocast)
        unet, text = build_unet(self.size), build_text_encoder(self.words.size, self.size)
        self.pretrained = {}
        if cfg.init:
            pipe = load_pipeline(cfg.preset, cfg.init, "cpu")
            try:
                unet.load_state_dict(pipe.unet.state_dict())
            except RuntimeError:
                raise WeightsError(f"{cfg.init} holds another UNet than is trained here: give a pipeline that s2f "
                                   "train-editor of this version has written.") from None
            text.load_state_dict(self.words.compacted(pipe.text_encoder))
            self.latents.scale = self.val.scale = pipe.vae.config.scaling_factor
        elif cfg.pretrain_text and not (cfg.resume and (out / CHECKPOINT).exists()):
            edits = [edits for _, _, edits in self.items]
            self.pretrained = pretrain_text_encoder(text, self.words, edits, cfg.pretrain_text, cfg.seed)
            found = "  ".join(f"{k} {v:.3f}" for k, v in self.pretrained.items())
            accelerator.print(f"text encoder pretrained: {found}", flush=True)
        unet.picture_scale.fill_(self.latents.scale if cfg.prediction == "sample" else 0)     # no sum for ε and v
        self.nets = nn.ModuleDict({"unet": slow_attention(unet), "text": text}).to(
            self.device, memory_format=torch.channels_last)
        edit_vae.float_norms(self.nets)
        self.average = torch.optim.swa_utils.AveragedModel(self.nets, multi_avg_fn=self._ema)
        groups = [{"params": list(unet.parameters())}, {"params": list(text.parameters()), "share": cfg.text_lr}]
        adam = torch.optim.AdamW(groups, cfg.lr, betas=(0.9, 0.99), weight_decay=1e-2)
        self.update = Updates(adam, self, clip=1.0)

    @torch.no_grad()
    def _ema(self, average: list[Tensor], now: list[Tensor], n: Tensor) -> None:
        decay = min(self.cfg.ema, (1 + int(n)) / (10 + int(n)))     # a shorter memory at first
        torch._foreach_lerp_(average, now, 1 - decay)

    def train_step(self) -> dict[str, float]:
        cfg = self.cfg
        rng = np.random.default_rng([cfg.seed, self.done, 5])
        index = batch_indices(len(self.items), cfg.batch, self.done, cfg.seed)
        pairs = torch.tensor([self.items[i][0] for i in index])
        back = torch.tensor([self.items[i][1] for i in index]).long()
        flip = torch.rand(len(index)) < 0.5
        z = self.latents.z[flip.long(), pairs].float().to(self.device)             # (B, 2, C, h, w)
        rows = torch.arange(len(z))
        before, after = z[rows, back], z[rows, 1 - back]
        change = self.latents.change[pairs]
        change = torch.where(flip[:, None, None], change.flip(2), change).to(self.device)
        texts, before = drop_conditions([sentence(self.items[i][2], rng) for i in index], before,
                                        torch.rand(len(z), device=self.device), cfg.drop)
        loss, error, guess = self.loss(self.nets, self.words(texts, rng), before, after, change,
                                       weight=self.weight[pairs])
        stats = {"loss": loss.item(), "error": error.item()}
        seen = before.flatten(1).any(1).nonzero()[:, 0].cpu()[:max(1, round(cfg.shown_share * len(z)))]
        if len(seen) and self.done >= cfg.shown_from * cfg.steps:          # the batch may have lost all its pictures
            sides = as_float(self.pictures[pairs[seen]])
            sides = torch.where(flip[seen][:, None, None, None, None], sides.flip(4), sides).to(self.device)
            x, truth = sides[rows[:len(seen)], back[seen]], sides[rows[:len(seen)], 1 - back[seen]]
            losses = self.picture_losses(self.shown(guess[seen], before[seen], x), x, truth, self.weight[pairs[seen]])
            for name, value in losses.items():
                loss = loss + getattr(cfg, f"lambda_{name}") * value
                stats[name] = value.item()
        self.update(loss, lr=cfg.lr * min(1.0, (self.done + 1) / 200) * max(0.05, 1 - self.done / cfg.steps))
        self.average.update_parameters(self.nets)
        return stats

    def loss(self, nets: nn.ModuleDict, ids: Tensor, before: Tensor, after: Tensor, change: Tensor,
             generator: torch.Generator | None = None, weight: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted loss and plain mean squared error of the prediction, over random times and noises, and the guess
        of x₀ (B, C, h, w). weight (B,): of the pairs; None: all alike."""
        x0 = after * self.latents.scale
        t = noise_times(len(x0), len(self.alpha_bar), self.cfg.noisy, generator).to(self.device)
        noise = torch.randn(x0.shape, generator=generator).to(self.device)
        alpha_bar = self.alpha_bar[t][:, None, None, None]
        noisy = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise             # scheduler.add_noise, written out
        with self.autocast():
            states = nets["text"](ids.to(self.device)).last_hidden_state
            said = nets["unet"](torch.cat([noisy, before], 1), t, states).sample.float()
        error = (said - target_of(self.cfg.prediction, x0, noise, alpha_bar)).square()
        place = edit_vae.place_weight(change, self.cfg.focus)
        if weight is not None:
            place = place * weight.to(self.device)[:, None, None, None]
        return ((error * noise_weight(self.cfg.prediction, alpha_bar) * place).mean(), error.mean(),
                clean_of(self.cfg.prediction, said, noisy, alpha_bar))

    def shown(self, guess: Tensor, before: Tensor, x: Tensor) -> Tensor:
        """A guess of x₀ as ``edit`` shows it. before: the latents of the picture x (B, 3, H, W) that is edited."""
        with self.autocast():
            with torch.no_grad():
                rebuilt = self.vae.decode(before).sample.float()
            decoded = self.vae.decode(guess / self.latents.scale).sample.float()
        return keep_detail(x, rebuilt, decoded)

    def picture_losses(self, shown: Tensor, x: Tensor, truth: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """What the pictures ``shown`` lack of the true edits of x, all (B, 3, H, W): those of "lpips", "change" and
        "reading" that have a weight above 0. weight (B,): of the pairs, in "change"."""
        cfg, out = self.cfg, {}
        with self.autocast():
            if cfg.lambda_lpips:
                out["lpips"] = self.judge(shown, truth).float().mean()
            if cfg.lambda_reading:
                with torch.no_grad():
                    read = self.reader(truth).float()
                out["reading"] = reading_distance(self.reader(shown).float(), read, self.reader.sizes)
        if cfg.lambda_change:
            place = edit_vae.place_weight((truth - x).abs().mean(1) / 2, cfg.focus)
            missed = (place * (shown - truth).abs()).mean((1, 2, 3))
            out["change"] = (missed * weight.to(missed.device)).mean()
        return out

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss on val pairs in their held-out words, at fixed times and noises; an even number of repeats calms it."""
        nets, generator = self.average.module.eval(), torch.Generator().manual_seed(1)
        z = self.val.z[0].float().to(self.device)
        ids = self.words([row.instruction for row in self.val_rows])
        found = [self.loss(nets, ids, z[:, 0], z[:, 1], self.val.change.to(self.device), generator)[0].item()
                 for _ in range(4)]
        copied = ((z[:, 0] - z[:, 1]) * self.latents.scale).square().mean().item()
        return {"val_loss": float(np.mean(found)), "val_nothing_done": copied}

    def pipeline(self):
        """diffusers' pipeline of the averaged weights (a copy, on the CPU)."""
        average = self.average.module
        unet, vae = build_unet(self.size), build_vae(self.size)
        unet.load_state_dict({k: v.cpu() for k, v in average["unet"].state_dict().items()})
        vae.load_state_dict({k: v.cpu() for k, v in self.vae.state_dict().items()})
        vae.register_to_config(scaling_factor=self.latents.scale)
        # a fresh tokenizer: one that has been called keeps how, and would be saved with it
        return assemble(unet.eval(), vae.eval(), self.words.full(average["text"], self.size), load_tokenizer(),
                        build_scheduler(self.cfg.prediction))

    def picture(self) -> np.ndarray:
        """Rows: before, edited by held-out words, after; val pairs."""
        n = min(8, len(self.val_rows))
        before, after = (torch.from_numpy(p[:n]) for p in (self.val_before, self.val_after))
        made = edit_batch([p.permute(1, 2, 0).numpy() for p in before], [row.instruction for row in self.val_rows[:n]],
                          self.cfg.preset, pipe=self.pipeline())
        edited = torch.stack([torch.from_numpy(e.image).permute(2, 0, 1) for e in made])
        rows = torch.cat([before, edited, after]).permute(0, 2, 3, 1).numpy()
        return contact_sheet(rows, columns=n)

    def export(self, out: Path) -> None:
        save_pipeline(self.pipeline(), out / "pipeline")


def slow_attention(unet: nn.Module) -> nn.Module:
    """Plain matrix products instead of PyTorch's fused attention, whose backward is many times slower on CPUs."""
    from diffusers.models.attention_processor import AttnProcessor

    if not torch.cuda.is_available():
        unet.set_attn_processor(AttnProcessor())
    return unet


def train_unet(cfg: UNetConfig) -> Path:
    """Train by ``cfg``; returns ``out/pipeline``, a folder in diffusers' layout (float16, averaged weights)."""
    if not Path(cfg.vae).exists():
        raise WeightsError(f"there is no autoencoder {cfg.vae}: train it first with s2f train-editor --stage vae.")
    Path(cfg.out).mkdir(parents=True, exist_ok=True)
    run_training(UNetTrainer(cfg, make_accelerator(cfg.cpu)))
    return Path(cfg.out) / "pipeline"


def use_decoder(folder: str | Path, vae: str | Path) -> Path:
    """Put a decoder that was trained on (VaeConfig.decoder_only) into the pipeline in ``folder``.

    Raises WeightsError if its encoder is not the pipeline's own, for then the UNet's latents mean something else.
    """
    pipe, tensors = load_pipeline(TINY, folder, "cpu"), edit_vae.vae_tensors(vae)
    own = pipe.vae.state_dict()
    for name, tensor in tensors.items():
        if name.startswith(("encoder.", "quant_conv.")) and not torch.equal(tensor.half(), own[name].half()):
            raise WeightsError(f"{vae} has another encoder than {folder}: train it with --stage decoder from the "
                               "autoencoder that the UNet was trained with.")
    pipe.vae.load_state_dict(tensors)
    return save_pipeline(pipe, folder)
