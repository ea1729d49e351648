"""The three presets: one frozen dataclass, so the same classes run on a laptop, on Colab and on a cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from s2flib.errors import S2FError


@dataclass(frozen=True)
class Preset:
    """Everything that differs between a laptop lesson and the paper's experiment.

    Sizes are pixels. ``n_styles`` follows StyleGAN2: two per resolution from 4 px up.
    """

    name: str
    data: str                        # "synthfaces" | "celebamask-hq"
    size: int                        # generator's output, and the photo's size
    encoder_size: int                # sketch as the encoder sees it
    loss_size: int                   # photo and output are pooled to this before every loss
    eval_size: int                   # … and to this before they are measured
    # StyleGAN2: channels(res) = min(channel_max, channel_base / res)
    style_dim: int
    n_mlp: int
    channel_base: int
    channel_max: int
    critic_base: int                 # the discriminator's channel_base (a lighter critic saves CPU-hours)
    # pSp's GradualStyleEncoder (IR-SE-50 is units 3,4,14,3 at widths 64..512)
    encoder_units: tuple[int, int, int, int]
    encoder_widths: tuple[int, int, int, int]
    encoder_head: int                # channels of the feature pyramid and of the map2style heads
    # training
    batch: int
    steps: int
    lr: float
    lambda_l2: float
    lambda_lpips: float
    lambda_id: float
    lambda_reg: float
    lambda4: float                   # attention loss (the paper's λ4)
    # judges: the net that trains is never the net that measures
    perceptual: str                  # "st-lpips" | "lpips"
    id_train: str                    # "synthface-id" | "arcface-ir-se50"
    id_measure: str                  # "dlib" | "facenet-vggface2"
    label: str                       # stands beside every result

    @property
    def n_styles(self) -> int:
        """Rows of a W+ code: 2·log2(size) − 2."""
        return 2 * int(math.log2(self.size)) - 2

    @property
    def sigma(self) -> float:
        """Default σ of the sketch's blur in pixels, a quarter of the image (seed paper, Sec. 3.2)."""
        return self.size / 4


_PUBLISHED = dict(
    style_dim=512, n_mlp=8, channel_base=32768, channel_max=512, critic_base=32768,
    encoder_units=(3, 4, 14, 3), encoder_widths=(64, 128, 256, 512), encoder_head=512,
    lr=1e-4, lambda_l2=1.0, lambda_lpips=0.8, lambda_reg=0.005,
    perceptual="lpips", id_train="arcface-ir-se50", id_measure="facenet-vggface2",
)

TINY = Preset(
    name="tiny", data="synthfaces", size=128, encoder_size=64, loss_size=64, eval_size=128,
    style_dim=160, n_mlp=4, channel_base=2048, channel_max=160, critic_base=1024,
    encoder_units=(2, 2, 3, 2), encoder_widths=(24, 48, 96, 128), encoder_head=64,
    batch=8, steps=1500, lr=1e-3,
    lambda_l2=1.0, lambda_lpips=0.8, lambda_id=0.3, lambda_reg=0.005, lambda4=1.0,
    perceptual="st-lpips", id_train="synthface-id", id_measure="dlib",
    label="tiny preset: not the paper's numbers",
)

COLAB = Preset(
    name="colab", data="celebamask-hq", size=256, encoder_size=256, loss_size=256, eval_size=256,
    batch=8, steps=20_000, lambda_id=0.1, lambda4=1.0,
    label="colab preset: 256 px, not the paper's numbers", **_PUBLISHED,
)

PAPER = Preset(
    name="paper", data="celebamask-hq", size=1024, encoder_size=256, loss_size=256, eval_size=256,
    batch=4, steps=100_000, lambda_id=0.1, lambda4=1.0,
    label="paper preset", **_PUBLISHED,
)

PRESETS: dict[str, Preset] = {p.name: p for p in (TINY, COLAB, PAPER)}


def get_preset(preset: str | Preset) -> Preset:
    """The preset of that name; a Preset passes through. Unknown names raise S2FError."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise S2FError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}.")
    return PRESETS[preset]
