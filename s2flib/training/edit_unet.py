"""Stage 2 of the edit pipeline: the UNet and its text encoder, with InstructPix2Pix's recipe (2211.09800, Sec. 3.2).

    z_t = √ᾱ_t · s · E(after) + √(1 − ᾱ_t) · ε          noisy latents of the image after the edit
    UNet input: z_t ⊕ E(before)                         concatenated; the condition is neither noised nor scaled
    5 % of the time no text, 5 % no image, 5 % neither, so that both can be guided at inference; EMA of the weights

Differences from the published training: the network predicts the clean latents ("sample") instead of ε. This makes no
difference to guidance (ε, v and x₀ are affine in each other with the same coefficients), but it helps learning: an edit
leaves most of the image unchanged, and with x₀ the network only has to predict the change, because the input image is
added to its output (s2flib.instruct_pix2pix.unet). The loss is weighted by SNR truncated to [1, 5] (Salimans & Ho
2202.00512; Hang et al. 2303.09556), and half of its weight is on the pixels where the images differ, because most do
not. Pairs with small differences get a larger weight: in squared error new eyes are a hundredth of new hair, but they
matter as much to the witness.

Equal errors of latents are not equally visible after decoding, and the mean of two possible edits is blurred. In the
last part of the training, some predictions of x₀ are therefore converted to images as in ``edit``, decoded and with the
input's detail where nothing changed, and compared with the true edit (as in Berrada et al. 2411.04873, who use the
decoder's features instead):

    lpips    perceptual distance, by ST-LPIPS as in stage 1
    change   L1, half of it where the images differ, with larger weights for pairs with small differences: wrinkles are
             faint, and ST-LPIPS is insensitive to them
    reading  the readings of an attribute network (s2flib.judges.edit_judge.EditReader) for the two: KL divergence of
             its classes, Huber loss of age and skin tone. Evaluation uses another network.

The latents of the pairs and their mirror images are cached; instructions are cheap, so every step samples new ones, and
pairs are also used in reverse ("remove the hat") where words describe the original. Kinds that are learned slowly are
sampled more often.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from s2flib.training.trainer import RunConfig, Stats, Trainer, Updates, make_accelerator

KIND = "editor-unet"
Tensors = tuple[Tensor, ...] | list[Tensor]
PREDICTIONS = ("sample", "v_prediction", "epsilon")


@dataclass(frozen=True, kw_only=True)
class UNetConfig(RunConfig):
    """One run of the UNet's training."""

    pairs: str  # folder of edit pairs
    vae: str  # vae.safetensors of stage 1, or a pipeline's folder
    init: str | None = None  # a pipeline's folder, to start from its UNet and text encoder
    steps: int = 12_000
    batch: int = 32  # pairs per step
    lr: float = 1e-3  # AdamW; falls linearly to a twentieth over ``steps``
    text_lr: float = 0.3  # the text encoder's learning rate relative to lr
    prediction: str = "sample"  # what the UNet predicts: sample (x₀), v_prediction or epsilon
    drop: float = 0.05  # probability of each: no text, no image, neither
    focus: float = 1.0  # weight of the pixels where the images differ, relative to 1 everywhere
    small: float = 1.0  # pairs are weighted by (mean change)^−small; 0: equally
    # pairs of these kinds are sampled this many times as often as others
    often: str = "hair_color=2,eye_color=2,makeup=2,hat=2,age=2,expression=3"
    noisy: float = 1.25  # times t/1000 are sampled as u^(1/noisy); 1: uniform, larger: noisier
    reader: str | None = None  # edit-reader.safetensors of s2f train --what edit-reader, for lambda_reading
    lambda_lpips: float = 1.0  # weights of the image losses described at the top of the module, …
    lambda_change: float = 0.0
    lambda_reading: float = 0.0
    shown_from: float = 0.7  # … used after this share of the steps, since they take as long as the rest, …
    shown_share: float = 0.25  # … for this share of each batch
    backwards: bool = True  # also use pairs from after to before
    pretrain_text: int = 300  # batches of the text encoder's pretraining
    ema: float = 0.999
    save_every: float = 300.0


def drop_conditions(texts: list[str], picture: Tensor, u: Tensor, share: float) -> tuple[list[str], Tensor]:
    """Conditioning dropout. u (B,) uniform: below share no text, below 2·share no picture, below 3·share neither."""
    no_text = (u < share) | ((u >= 2 * share) & (u < 3 * share))
    no_picture = (u >= share) & (u < 3 * share)
    texts = ["" if gone else text for text, gone in zip(texts, no_text.tolist(), strict=True)]
    return texts, picture * (~no_picture).to(picture.dtype)[:, None, None, None]


def target_of(prediction: str, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The UNet's target: x₀, ε, or v = √ᾱ ε − √(1 − ᾱ) x₀; alpha_bar (B, 1, 1, 1)."""
    if prediction == "sample":
        return x0
    return noise if prediction == "epsilon" else alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0


def clean_of(prediction: str, said: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """The x₀ of a prediction: the inverse of :func:`target_of`, given the noisy latents."""
    if prediction == "sample":
        return said
    if prediction == "epsilon":
        return (noisy - (1 - alpha_bar).sqrt() * said) / alpha_bar.sqrt().clamp(min=1e-3)
    return alpha_bar.sqrt() * noisy - (1 - alpha_bar).sqrt() * said


def noise_weight(prediction: str, alpha_bar: Tensor) -> Tensor:
    """Weight of the squared error such that the weight of an error of x₀ is SNR truncated to [1, 5]."""
    snr = alpha_bar / (1 - alpha_bar)
    weight = snr.clamp(1.0, 5.0)
    return {"sample": weight, "epsilon": weight / snr.clamp(min=0.05), "v_prediction": weight / (snr + 1)}[prediction]


def denoising_loss(
    prediction: str, said: Tensor, x0: Tensor, noise: Tensor, alpha_bar: Tensor, place: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """The loss of a diffusion model, and the plain mean squared error of its prediction ``said`` (B, C, h, w).

    alpha_bar (B, 1, 1, 1); place: weights of the positions, (B, 1, h, w), with which the loss is multiplied.
    """
    error = (said - target_of(prediction, x0, noise, alpha_bar)).square()
    return (error * noise_weight(prediction, alpha_bar) * place).mean(), error.mean()


def noise_times(n: int, steps: int, noisy: float, generator: torch.Generator | None = None) -> Tensor:
    """Times (n,) from 0 to steps − 1, with density ∝ t^(noisy − 1): noisy steps determine most of an edit."""
    u = torch.rand(n, generator=generator) ** (1 / noisy)
    return (u * steps).long().clamp(max=steps - 1)


def reading_distance(read: Tensor, truth: Tensor, sizes: list[int]) -> Tensor:
    """The difference between a FaceReader's outputs for two batches (B, sum(sizes)): sum over heads, mean over images.

    Heads with values: KL(truth ‖ read). Numbers: Huber loss, in units of SCALE's spread, times 16, because ten years
    are less than one such unit and the gradient would be a twentieth of the other heads'.
    """
    lost = []
    for said, true, values in zip(read.split(sizes, 1), truth.split(sizes, 1), HEADS.values(), strict=True):
        lost.append(
            F.kl_div(said.log_softmax(1), true.log_softmax(1), reduction="batchmean", log_target=True)
            if values
            else 16 * F.smooth_l1_loss(said, true)
        )
    return torch.stack(lost).sum()


class UNetTrainer(Trainer):
    """Trains UNet and text encoder on cached latents; exports their moving averages."""

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
            raise S2FError(
                "lambda_reading needs a reader network: add --set unet.reader=FILE, trained with s2f train "
                "--what edit-reader."
            )
        self.reader = load_edit_reader(cfg.reader).to(self.device) if cfg.lambda_reading and cfg.reader else None
        train, val = EditPairs(cfg.pairs, "train", side, cfg.limit), EditPairs(cfg.pairs, "val", side, cfg.limit or 64)
        often = times_drawn(cfg.often)
        self.items: list[tuple[int, bool, Edits]] = []  # pair, backwards, requested edits
        for i, (there, back) in enumerate(train.both_ways()):
            for backwards, edits in ((False, there), (True, back if cfg.backwards else None)):
                if edits:
                    self.items += [(i, backwards, edits)] * max(often.get(edit.kind, 1) for edit in edits)
        self.latents = cached_latents(out / "latents-train.safetensors", self.vae, train, self.autocast)
        self.weight = edit_vae.pair_weight(self.latents.change, cfg.small)
        self.pictures = torch.stack(edit_vae.masked(train.arrays()), 1)  # (N, 2, 3, H, W) uint8
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
                raise WeightsError(
                    f"{cfg.init} contains another UNet than this version trains: use a pipeline written "
                    "by this version of s2f train-editor."
                ) from None
            text.load_state_dict(self.words.compacted(pipe.text_encoder))
            self.latents.scale = self.val.scale = pipe.vae.config.scaling_factor
        elif cfg.pretrain_text and not (cfg.resume and (out / CHECKPOINT).exists()):
            edits = [edits for _, _, edits in self.items]
            self.pretrained = pretrain_text_encoder(text, self.words, edits, cfg.pretrain_text, cfg.seed)
            found = "  ".join(f"{k} {v:.3f}" for k, v in self.pretrained.items())
            accelerator.print(f"text encoder pretrained: {found}", flush=True)
        unet.picture_scale.fill_(self.latents.scale if cfg.prediction == "sample" else 0)  # ε and v: add nothing
        nets: Any = nn.ModuleDict({"unet": slow_attention(unet), "text": text})
        self.nets = nets.to(self.device, memory_format=torch.channels_last)
        edit_vae.float_norms(self.nets)
        self.average = torch.optim.swa_utils.AveragedModel(self.nets, multi_avg_fn=self._ema)
        groups = [{"params": list(unet.parameters())}, {"params": list(text.parameters()), "share": cfg.text_lr}]
        adam = torch.optim.AdamW(groups, cfg.lr, betas=(0.9, 0.99), weight_decay=1e-2)
        self.update = Updates(adam, self, clip=1.0)

    @torch.no_grad()
    def _ema(self, average: Tensors, now: Tensors, n: Tensor | int) -> None:
        decay = min(self.cfg.ema, (1 + int(n)) / (10 + int(n)))  # a shorter average at first
        torch._foreach_lerp_(average, now, 1 - decay)

    def train_step(self) -> Stats:
        cfg = self.cfg
        rng = np.random.default_rng([cfg.seed, self.done, 5])
        index = batch_indices(len(self.items), cfg.batch, self.done, cfg.seed)
        pairs = torch.tensor([self.items[i][0] for i in index])
        back = torch.tensor([self.items[i][1] for i in index]).long()
        flip = torch.rand(len(index)) < 0.5
        z = self.latents.z[flip.long(), pairs].float().to(self.device)  # (B, 2, C, h, w)
        rows = torch.arange(len(z))
        before, after = z[rows, back], z[rows, 1 - back]
        change = self.latents.change[pairs]
        change = torch.where(flip[:, None, None], change.flip(2), change).to(self.device)
        texts, before = drop_conditions(
            [sentence(self.items[i][2], rng) for i in index], before, torch.rand(len(z), device=self.device), cfg.drop
        )
        loss, error, guess = self.loss(
            self.nets, self.words(texts, rng), before, after, change, weight=self.weight[pairs]
        )
        stats = {"loss": loss.detach(), "error": error.detach()}
        seen = before.flatten(1).any(1).nonzero()[:, 0].cpu()[: max(1, round(cfg.shown_share * len(z)))]
        if len(seen) and self.done >= cfg.shown_from * cfg.steps:  # dropout may have removed all images
            sides = as_float(self.pictures[pairs[seen]])
            sides = torch.where(flip[seen][:, None, None, None, None], sides.flip(4), sides).to(self.device)
            x, truth = sides[rows[: len(seen)], back[seen]], sides[rows[: len(seen)], 1 - back[seen]]
            losses = self.picture_losses(self.shown(guess[seen], before[seen], x), x, truth, self.weight[pairs[seen]])
            for name, value in losses.items():
                loss = loss + getattr(cfg, f"lambda_{name}") * value
                stats[name] = value.detach()
        self.update(loss, lr=cfg.lr * min(1.0, (self.done + 1) / 200) * max(0.05, 1 - self.done / cfg.steps))
        self.average.update_parameters(self.nets)
        return stats

    def loss(
        self,
        nets: Any,
        ids: Tensor,
        before: Tensor,
        after: Tensor,
        change: Tensor,
        generator: torch.Generator | None = None,
        weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted loss and mean squared error of the prediction at random times and noise, and its x₀ (B, C, h, w).
        weight (B,): of the pairs; None: equal."""
        x0 = after * self.latents.scale
        t = noise_times(len(x0), len(self.alpha_bar), self.cfg.noisy, generator).to(self.device)
        noise = torch.randn(x0.shape, generator=generator).to(self.device)
        alpha_bar = self.alpha_bar[t][:, None, None, None]
        noisy = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise  # scheduler.add_noise
        with self.autocast():
            states = nets["text"](ids.to(self.device)).last_hidden_state
            said = nets["unet"](torch.cat([noisy, before], 1), t, states).sample.float()
        place = edit_vae.place_weight(change, self.cfg.focus)
        if weight is not None:
            place = place * weight.to(self.device)[:, None, None, None]
        loss, error = denoising_loss(self.cfg.prediction, said, x0, noise, alpha_bar, place)
        return loss, error, clean_of(self.cfg.prediction, said, noisy, alpha_bar)

    def shown(self, guess: Tensor, before: Tensor, x: Tensor) -> Tensor:
        """A prediction of x₀ as the image that ``edit`` returns. before: the latents of the input x (B, 3, H, W)."""
        with self.autocast():
            with torch.no_grad():
                rebuilt = self.vae.decode(before).sample.float()
            decoded = self.vae.decode(guess / self.latents.scale).sample.float()
        return keep_detail(x, rebuilt, decoded)

    def picture_losses(self, shown: Tensor, x: Tensor, truth: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The losses between the images ``shown`` and the true edits of x, all (B, 3, H, W): those of "lpips", "change"
        and "reading" with a weight above 0. weight (B,): of the pairs, in "change"."""
        cfg, out = self.cfg, {}
        with self.autocast():
            if cfg.lambda_lpips:
                out["lpips"] = self.judge(shown, truth).float().mean()
            if self.reader is not None:
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
        """Loss on val pairs with held-out phrasings, at fixed times and noise, averaged over four repeats."""
        nets, generator = self.average.module.eval(), torch.Generator().manual_seed(1)
        z = self.val.z[0].float().to(self.device)
        ids = self.words([row.instruction for row in self.val_rows])
        found = [
            self.loss(nets, ids, z[:, 0], z[:, 1], self.val.change.to(self.device), generator)[0].item()
            for _ in range(4)
        ]
        copied = ((z[:, 0] - z[:, 1]) * self.latents.scale).square().mean().item()
        return {"val_loss": float(np.mean(found)), "val_nothing_done": copied}

    def pipeline(self):
        """diffusers' pipeline of the averaged weights (a copy, on the CPU)."""
        average: Any = self.average.module
        unet, vae = build_unet(self.size), build_vae(self.size)
        unet.load_state_dict({k: v.cpu() for k, v in average["unet"].state_dict().items()})
        vae.load_state_dict({k: v.cpu() for k, v in self.vae.state_dict().items()})
        vae.register_to_config(scaling_factor=self.latents.scale)
        # a new tokenizer: a used one keeps its call options, which would be saved
        return assemble(
            unet.eval(),
            vae.eval(),
            self.words.full(average["text"], self.size),
            load_tokenizer(),
            build_scheduler(self.cfg.prediction),
        )

    def picture(self) -> np.ndarray:
        """Rows of val pairs: before, edited with held-out phrasings, after."""
        n = min(8, len(self.val_rows))
        before, after = (torch.from_numpy(p[:n]) for p in (self.val_before, self.val_after))
        made = edit_batch(
            [p.permute(1, 2, 0).numpy() for p in before],
            [row.instruction for row in self.val_rows[:n]],
            self.cfg.preset,
            pipe=self.pipeline(),
        )
        edited = torch.stack([torch.from_numpy(e.image).permute(2, 0, 1) for e in made])
        rows = torch.cat([before, edited, after]).permute(0, 2, 3, 1).numpy()
        return contact_sheet(rows, columns=n)

    def export(self, out: Path) -> None:
        save_pipeline(self.pipeline(), out / "pipeline")


def slow_attention(unet: Any) -> Any:
    """Plain matrix products instead of PyTorch's fused attention, whose backward pass is much slower on CPUs."""
    from diffusers.models.attention_processor import AttnProcessor

    if not torch.cuda.is_available():
        unet.set_attn_processor(AttnProcessor())
    return unet


def train_unet(cfg: UNetConfig) -> Path:
    """Run the training; returns ``out/pipeline``, a folder in diffusers' layout (float16, averaged weights)."""
    if not Path(cfg.vae).exists():
        raise WeightsError(f"there is no autoencoder {cfg.vae}: train it first with s2f train-editor --stage vae.")
    Path(cfg.out).mkdir(parents=True, exist_ok=True)
    run_training(UNetTrainer(cfg, make_accelerator(cfg.cpu)))
    return Path(cfg.out) / "pipeline"


def use_decoder(folder: str | Path, vae: str | Path) -> Path:
    """Put a fine-tuned decoder (VaeConfig.decoder_only) into the pipeline in ``folder``.

    Raises WeightsError if its encoder is not the pipeline's, because the UNet was trained on that encoder's latents.
    """
    pipe, tensors = load_pipeline(TINY, folder, "cpu"), edit_vae.vae_tensors(vae)
    own = pipe.vae.state_dict()
    for name, tensor in tensors.items():
        if name.startswith(("encoder.", "quant_conv.")) and not torch.equal(tensor.half(), own[name].half()):
            raise WeightsError(
                f"{vae} has another encoder than {folder}: train it with --stage decoder from the "
                "autoencoder that the UNet was trained with."
            )
    pipe.vae.load_state_dict(tensors)
    return save_pipeline(pipe, folder)
