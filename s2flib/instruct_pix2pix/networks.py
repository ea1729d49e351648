"""The networks of InstructPix2Pix in every preset: their shapes and settings.

Brooks, Holynski & Efros, CVPR 2023 (arXiv:2211.09800): Stable Diffusion fine-tuned to follow edit instructions. The
input image is encoded and its latents are concatenated with the noisy ones, so conv_in has twice the channels.

| preset       | networks                                    | size   | text      | UNet's weights |
|--------------|---------------------------------------------|--------|-----------|----------------|
| tiny         | ours, trained here on SynthFaces edit pairs | 128 px | 32 tokens | 9 M            |
| colab, paper | timbrooks/instruct-pix2pix, published       | 512 px | 77 tokens | 860 M          |

diffusers' StableDiffusionInstructPix2PixPipeline runs both; they are stored in its layout (see pipeline.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TEXT_TOKENS = 32  # maximum length of tiny's instructions with start and end tokens; CLIP's is 77


@dataclass(frozen=True)
class EditorSize:
    """Shapes of the tiny networks. Widths are channels at 128, 64, 32, 16 px (VAE) and 16, 8, 4 (UNet)."""

    vae_widths: tuple[int, ...] = (16, 32, 48, 96)
    latent_channels: int = 16  # at 16×16; more than Stable Diffusion's 4, to preserve eye colour
    unet_widths: tuple[int, ...] = (64, 96, 160)
    unet_layers: tuple[int, ...] = (3, 2, 1)  # residual blocks per level of the encoder; one more in the decoder
    heads: tuple[int, ...] = (2, 3, 5)
    text_width: int = 96
    text_layers: int = 2
    text_heads: int = 4


SIZE = EditorSize()


def build_vae(size: EditorSize = SIZE) -> Any:
    """AutoencoderKL: (B, 3, H, W) in [−1, 1] ↔ latents (B, latent_channels, H/8, W/8)."""
    from diffusers import AutoencoderKL

    network: Any = AutoencoderKL  # annotated for tuples of one element only
    n = len(size.vae_widths)
    return network(
        down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
        block_out_channels=size.vae_widths, layers_per_block=1, latent_channels=size.latent_channels,
        norm_num_groups=8, sample_size=128, mid_block_add_attention=False,
    )  # fmt: skip


def build_unet(size: EditorSize = SIZE) -> Any:
    """ResidualUNet: (B, 2·latent_channels, 16, 16), t (B,), text (B, L, text_width) → (B, latent_channels, 16, 16).

    Text enters at 8×8 and below; at 16×16 there are only convolutions, which keeps it fast on a CPU.
    """
    from s2flib.instruct_pix2pix.unet import ResidualUNet  # imports diffusers

    network: Any = ResidualUNet  # its wrapped __init__ shows self as an argument
    n = len(size.unet_widths)
    return network(
        sample_size=16, in_channels=2 * size.latent_channels, out_channels=size.latent_channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (n - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (n - 1) + ("UpBlock2D",),
        block_out_channels=size.unet_widths, layers_per_block=size.unet_layers, norm_num_groups=8,
        cross_attention_dim=size.text_width, attention_head_dim=size.heads,      # diffusers' name for the heads
    )  # fmt: skip


def build_text_encoder(vocabulary: int = 49_408, size: EditorSize = SIZE) -> Any:
    """A narrow CLIPTextModel: ids (B, TEXT_TOKENS) → hidden states (B, TEXT_TOKENS, text_width)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config: Any = CLIPTextConfig  # takes more keywords than it lists
    w = size.text_width
    return CLIPTextModel(config(
        vocab_size=vocabulary, hidden_size=w, intermediate_size=4 * w, projection_dim=w,
        num_hidden_layers=size.text_layers, num_attention_heads=size.text_heads,
        max_position_embeddings=TEXT_TOKENS, attn_implementation="eager",
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
    ))  # fmt: skip


def build_scheduler(prediction: str = "sample") -> Any:
    """DDIM with Stable Diffusion's β schedule, rescaled so that the last step is pure noise (Lin et al. 2305.08891)."""
    from diffusers import DDIMScheduler

    scheduler: Any = DDIMScheduler  # wants a literal prediction_type
    return scheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type=prediction, rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
        set_alpha_to_one=True,
    )  # fmt: skip
