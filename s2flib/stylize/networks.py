"""InstructPix2Pix under every preset: which networks, of which shapes, with which settings.

Brooks, Holynski & Efros, CVPR 2023 (arXiv:2211.09800): Stable Diffusion fine-tuned to follow edit instructions; the
picture to edit is encoded and its latents are concatenated to the noisy ones, so that conv_in has twice the channels.

| preset       | networks                                    | size   | text      | UNet's weights |
|--------------|---------------------------------------------|--------|-----------|----------------|
| tiny         | ours, trained here on SynthFaces edit pairs | 128 px | 32 tokens | 9 M            |
| colab, paper | timbrooks/instruct-pix2pix, published       | 512 px | 77 tokens | 860 M          |

diffusers' StableDiffusionInstructPix2PixPipeline runs all; they lie on disk in its layout (s2flib.stylize.pipeline).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

TINY_FOLDER = "tiny-instruct-pix2pix"
TEXT_TOKENS = 32                       # tiny's longest instruction with start and end; CLIP has 77


class Suited(NamedTuple):
    """Text guidance that suits the change: the edit is made unguided first, and s_T is chosen by how many grey levels
    that moves a pixel on average. A small change needs loud words to be seen at all; a large one they drive beyond its
    mark and over its borders."""

    scales: tuple[float, ...]       # s_T, from the smallest changes to the largest
    limits: tuple[float, ...]       # where one scale gives way to the next, rising; one fewer

    def of(self, moved: float) -> float:
        """s_T for a change of ``moved`` grey levels."""
        return self.scales[bisect_right(self.limits, moved)]

    def __str__(self) -> str:
        below = [f"{s:g} for changes below {m:g} grey levels" for s, m in zip(self.scales, self.limits, strict=False)]
        return ", ".join([*below, f"{self.scales[-1]:g}" + " for larger ones" * bool(below)])


@dataclass(frozen=True)
class EditDefaults:
    """What ``edit`` does unless told otherwise."""

    size: int                # pixels of the shorter side
    steps: int
    guidance: float | Suited                # s_T, of the text
    image_guidance: float    # s_I, of the picture
    interval: tuple[float, float]           # noise times, 0 to 1, at which s_T acts
    keep_detail: bool        # see stylize.keep_detail; measured under tiny only
    batch: int               # pictures at a time


# tiny's guidances are chosen on the validation split by s2f evaluate-editor --grid; there 4, 8 and 20 steps succeeded
# equally often (100 pairs). The published ones are their authors' (README of timothybrooks/instruct-pix2pix); colab
# takes half the steps.
DEFAULTS = {
    "tiny": EditDefaults(128, 8, Suited((7.0, 3.0, 1.5), (0.28, 6.51)), 1.0, (0.2, 0.7), True, 8),
    "colab": EditDefaults(512, 50, 7.5, 1.5, (0.0, 1.0), False, 1),
    "paper": EditDefaults(512, 100, 7.5, 1.5, (0.0, 1.0), False, 1),
}


@dataclass(frozen=True)
class EditorSize:
    """Shapes of the tiny networks. Widths are channels at 128, 64, 32, 16 px (VAE) and 16, 8, 4 (UNet)."""

    vae_widths: tuple[int, ...] = (16, 32, 48, 96)
    latent_channels: int = 16               # at 16×16: eye colour must survive, so more than Stable Diffusion's 4
    unet_widths: tuple[int, ...] = (64, 96, 160)
    unet_layers: tuple[int, ...] = (3, 2, 1)        # residual blocks a level on the way down; one more on the way up
    heads: tuple[int, ...] = (2, 3, 5)
    text_width: int = 96
    text_layers: int = 2
    text_heads: int = 4


SIZE = EditorSize()


# --- networks ---------------------------------------------------------------------------------------------------


def build_vae(size: EditorSize = SIZE) -> nn.Module:
    """AutoencoderKL: (B, 3, H, W) in [−1, 1] ↔ latents (B, latent_channels, H/8, W/8)."""
    from diffusers import AutoencoderKL

    n = len(size.vae_widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
        block_out_channels=size.vae_widths, layers_per_block=1, latent_channels=size.latent_channels,
        norm_num_groups=8, sample_size=128, mid_block_add_attention=False,
    )  # fmt: skip


def build_unet(size: EditorSize = SIZE) -> nn.Module:
    """ResidualUNet: (B, 2·latent_channels, 16, 16), t (B,), words (B, L, text_width) → (B, latent_channels, 16, 16).

    Words enter from 8×8 down; at 16×16 there are convolutions only, which keeps it fast on a CPU.
    """
    from s2flib.stylize.unet import ResidualUNet

    n = len(size.unet_widths)
    return ResidualUNet(
        sample_size=16, in_channels=2 * size.latent_channels, out_channels=size.latent_channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (n - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (n - 1) + ("UpBlock2D",),
        block_out_channels=size.unet_widths, layers_per_block=size.unet_layers, norm_num_groups=8,
        cross_attention_dim=size.text_width, attention_head_dim=size.heads,      # diffusers' name; it counts heads
    )  # fmt: skip


def build_text_encoder(vocabulary: int = 49_408, size: EditorSize = SIZE) -> nn.Module:
    """CLIPTextModel, narrow: ids (B, TEXT_TOKENS) → hidden states (B, TEXT_TOKENS, text_width)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    w = size.text_width
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=w, intermediate_size=4 * w, projection_dim=w,
        num_hidden_layers=size.text_layers, num_attention_heads=size.text_heads,
        max_position_embeddings=TEXT_TOKENS, attn_implementation="eager",
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
    ))  # fmt: skip


def build_scheduler(prediction: str = "sample") -> object:
    """DDIM on Stable Diffusion's β schedule, rescaled so that the last step is pure noise (Lin et al. 2305.08891)."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type=prediction, rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
        set_alpha_to_one=True,
    )  # fmt: skip
