"""The three presets: one frozen dataclass, so the same code runs on a laptop, on Colab and on a cluster."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, NamedTuple

from s2flib.errors import S2FError


class Suited(NamedTuple):
    """Text guidance that depends on the size of the change.

    The edit is first made without guidance; s_T is then chosen by the mean absolute change per pixel in grey levels.
    A small change needs strong guidance to be visible; strong guidance exaggerates a large change.
    """

    scales: tuple[float, ...]  # s_T, from the smallest changes to the largest
    limits: tuple[float, ...]  # increasing grey levels that separate the scales; one fewer than scales

    def of(self, moved: float) -> float:
        """s_T for a change of ``moved`` grey levels."""
        return self.scales[bisect_right(self.limits, moved)]

    def __str__(self) -> str:
        below = [f"{s:g} for changes below {m:g} grey levels" for s, m in zip(self.scales, self.limits, strict=False)]
        return ", ".join([*below, f"{self.scales[-1]:g}" + " for larger ones" * bool(below)])


@dataclass(frozen=True)
class EditSettings:
    """The preset's InstructPix2Pix pipeline and its defaults."""

    shipped: str | None  # the pipeline's folder in the weights directory; None: the published one, downloaded
    size: int  # pixels of the shorter side
    square: bool  # edits the centre square at size × size; otherwise both sides are multiples of 64
    steps: int  # denoising steps
    guidance: float | Suited  # s_T, text guidance
    image_guidance: float  # s_I, image guidance
    interval: tuple[float, float]  # noise levels, 0 to 1, at which s_T applies
    keep_detail: bool  # see instruct_pix2pix.keep_detail
    batch: int  # images per batch
    half_on_gpu: bool  # float16 on a GPU

    @property
    def trained_here(self) -> bool:
        """Whether this repository trains the pipeline, on SynthFaces' vocabulary; the published one saw web text."""
        return self.shipped is not None


@dataclass(frozen=True)
class InversionSettings:
    """The networks of s2flib.inversion that read photos, and the budgets of the methods that optimise."""

    size: int  # pixels of the photos that encoders and hypernetworks read
    units: tuple[int, int, int, int]  # of their IR-SE backbone, as in encoder_units
    widths: tuple[int, int, int, int]
    head: int  # channels of their heads
    rank: int  # numbers for each output channel in the hypernetworks' heads
    passes: int  # of ReStyle and HyperStyle, in training and at inference
    lpips_size: int  # pictures are compared at this size by the perceptual loss of their training
    w_plus_steps: int
    w_plus_lr: float
    projector_steps: int
    projector_l2: float  # weight of the squared error beside the perceptual distance; 0, as published, for LPIPS
    tuning_steps: int  # PTI's
    tuning_lr: float
    tuning_threshold: float  # of the perceptual distance at which PTI stops
    shipped: bool  # whether data/weights has the networks, as tiny-<method>.safetensors
    published: tuple[tuple[str, str], ...] = ()  # (method, registry name)


@dataclass(frozen=True)
class Preset:
    """Everything that differs between a lesson on a laptop and the paper's experiment. Sizes are in pixels."""

    name: str
    data: str  # "synthfaces" | "celebamask-hq"
    size: int  # of the generator's output and of photos
    encoder_size: int  # of the encoder's input
    loss_size: int  # photo and output are pooled to this size for the losses
    eval_size: int  # … and to this size for evaluation
    # StyleGAN2: channels(res) = min(channel_max, channel_base / res)
    style_dim: int
    n_mlp: int
    channel_base: int
    channel_max: int
    critic_base: int  # the discriminator's channel_base (a smaller critic saves CPU hours)
    # pSp's GradualStyleEncoder (IR-SE-50 is units 3,4,14,3 at widths 64..512)
    encoder_units: tuple[int, int, int, int]
    encoder_widths: tuple[int, int, int, int]
    encoder_head: int  # channels of the feature pyramid and the map2style heads
    feature_side: int | None  # side of the feature map that the encoder adds to w+ (F/W+ space); None: w+ only, as pSp
    # training
    batch: int
    steps: int
    lr: float
    lambda_l2: float
    lambda_lpips: float
    lambda_id: float
    lambda_reg: float
    lambda4: float  # attention loss (the paper's λ4)
    # judges: evaluation never uses a network that training uses
    perceptual: str  # "st-lpips" | "lpips"
    id_train: str  # "synthface-id" | "arcface-ir-se50"
    id_measure: str  # "dlib" | "facenet-vggface2"
    # files: names in the weights directory, or published weights (weights.registry)
    shipped_psp: str | None  # the sketch encoder in the weights directory
    published_psp: str | None  # … or its registry name; None and None: train one
    shipped_generator: str | None
    published_generator: str | None
    edit: EditSettings
    inversion: InversionSettings
    cell_timeout_s: int | None  # time limit of a notebook cell; None: no limit
    label: str  # printed with every result

    @property
    def psp_origin(self) -> str:
        """Where the sketch encoder comes from: "shipped", "published", or "trained" by the user (notebook 06)."""
        return "shipped" if self.shipped_psp else "published" if self.published_psp else "trained"

    @property
    def n_styles(self) -> int:
        """Rows of a W+ code: 2·log2(size) − 2."""
        return 2 * int(math.log2(self.size)) - 2


_PUBLISHED: dict[str, Any] = dict(
    style_dim=512,
    n_mlp=8,
    channel_base=32768,
    channel_max=512,
    critic_base=32768,
    encoder_units=(3, 4, 14, 3),
    encoder_widths=(64, 128, 256, 512),
    encoder_head=512,
    feature_side=None,
    lr=1e-4,
    lambda_l2=1.0,
    lambda_lpips=0.8,
    lambda_reg=0.005,
    perceptual="lpips",
    id_train="arcface-ir-se50",
    id_measure="facenet-vggface2",
    shipped_psp=None,
    shipped_generator=None,
    cell_timeout_s=None,
)
# The authors' settings (README of timothybrooks/instruct-pix2pix); colab uses half the steps.
_PUBLISHED_EDITOR: dict[str, Any] = dict(
    shipped=None,
    size=512,
    square=False,
    guidance=7.5,
    image_guidance=1.5,
    interval=(0.0, 1.0),
    keep_detail=False,
    batch=1,
    half_on_gpu=True,
)

# The papers' budgets; encoders and hypernetworks read 256 px.
_PUBLISHED_INVERSION: dict[str, Any] = dict(
    size=256,
    units=(3, 4, 14, 3),
    widths=(64, 128, 256, 512),
    head=512,
    rank=64,
    passes=5,
    lpips_size=256,
    w_plus_steps=5000,
    w_plus_lr=0.01,
    projector_steps=1000,
    projector_l2=0.0,
    tuning_steps=350,
    tuning_lr=3e-4,
    tuning_threshold=0.06,
    shipped=False,
)

TINY = Preset(
    name="tiny",
    data="synthfaces",
    size=128,
    encoder_size=128,
    loss_size=128,
    eval_size=128,
    style_dim=256,
    n_mlp=4,
    channel_base=4096,
    channel_max=256,
    critic_base=4096,
    encoder_units=(2, 2, 3, 2),
    encoder_widths=(24, 64, 128, 192),
    encoder_head=64,
    feature_side=64,
    batch=8,
    steps=1500,
    lr=1e-3,
    lambda_l2=1.0,
    lambda_lpips=0.8,
    lambda_id=0.3,
    lambda_reg=0.005,
    lambda4=1.0,
    perceptual="st-lpips",
    id_train="synthface-id",
    id_measure="dlib",
    shipped_psp="tiny-psp.safetensors",
    published_psp=None,
    shipped_generator="tiny-stylegan2.safetensors",
    published_generator=None,
    # Guidance was chosen on the validation split with s2f evaluate-editor --grid; 4, 8 and 20 steps had the same
    # success rate there (100 pairs).
    edit=EditSettings(
        shipped="tiny-instruct-pix2pix",
        size=128,
        square=True,
        steps=8,
        guidance=Suited((7.0, 3.0, 1.5), (0.28, 6.51)),
        image_guidance=1.0,
        interval=(0.2, 0.7),
        keep_detail=True,
        batch=8,
        half_on_gpu=False,
    ),
    inversion=InversionSettings(
        size=64,
        units=(2, 2, 2, 2),
        widths=(32, 64, 96, 128),
        head=32,
        rank=16,
        passes=3,
        lpips_size=64,
        w_plus_steps=100,
        w_plus_lr=0.1,
        projector_steps=100,
        projector_l2=1.0,
        tuning_steps=60,
        tuning_lr=3e-5,
        tuning_threshold=0.0,
        shipped=True,
    ),
    cell_timeout_s=1800,
    label="tiny preset: not the paper's numbers",
)

COLAB = Preset(
    name="colab",
    data="celebamask-hq",
    size=256,
    encoder_size=256,
    loss_size=256,
    eval_size=256,
    batch=8,
    steps=20_000,
    lambda_id=0.1,
    lambda4=1.0,
    published_psp=None,
    published_generator="stylegan2-ffhq-256",
    edit=EditSettings(steps=50, **_PUBLISHED_EDITOR),
    inversion=InversionSettings(**_PUBLISHED_INVERSION),
    label="colab preset: 256 px, not the paper's numbers",
    **_PUBLISHED,
)

PAPER = Preset(
    name="paper",
    data="celebamask-hq",
    size=1024,
    encoder_size=256,
    loss_size=256,
    eval_size=256,
    batch=4,
    steps=100_000,
    lambda_id=0.1,
    lambda4=1.0,
    published_psp="psp-sketch",
    published_generator="stylegan2-ffhq-1024",
    edit=EditSettings(steps=100, **_PUBLISHED_EDITOR),
    inversion=InversionSettings(
        published=(
            ("psp", "psp-ffhq"),
            ("e4e", "e4e-ffhq"),
            ("restyle-psp", "restyle-psp-ffhq"),
            ("restyle-e4e", "restyle-e4e-ffhq"),
        ),
        **_PUBLISHED_INVERSION,
    ),
    label="paper preset",
    **_PUBLISHED,
)

PRESETS: dict[str, Preset] = {p.name: p for p in (TINY, COLAB, PAPER)}


def get_preset(preset: str | Preset) -> Preset:
    """The preset with this name; a Preset is returned unchanged. Unknown names raise S2FError."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise S2FError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}.")
    return PRESETS[preset]
