"""Trains the stages of the edit pipeline in order: autoencoder, UNet with text encoder, decoder again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s2flib.errors import S2FError
from s2flib.presets import get_preset
from s2flib.training.edit_unet import UNetConfig, train_unet, use_decoder
from s2flib.training.edit_vae import VaeConfig, train_vae

STAGES = ("vae", "unet", "decoder", "all")
TIME_SHARES = {"vae": 0.35, "unet": 0.5, "decoder": 0.15}  # of max_time, when all are trained


@dataclass(frozen=True)
class EditorTraining:
    """What to train; each stage has a folder in ``out``."""

    pairs: str  # folder of edit pairs
    out: str
    stage: str = "all"  # one of STAGES
    vae: str | None = None  # a trained autoencoder; None: OUT/vae/vae.safetensors
    max_time: float | None = None  # seconds for all stages together
    common: dict[str, Any] = field(default_factory=dict)  # fields of every stage's RunConfig
    fields: dict[str, dict] = field(default_factory=dict)  # stage → further fields of its config


def train_editor(cfg: EditorTraining, done: Callable[[str, Path], None] = lambda stage, path: None) -> Path:
    """Train the requested stages and return ``out/unet/pipeline``, a folder in diffusers' layout.

    ``done`` is called with each stage's name and result. Once UNet training has started, the encoder is not changed,
    because the UNet has learned its latents.
    """
    if cfg.stage not in STAGES:
        raise S2FError(f"there is no stage {cfg.stage!r}: choose one of {', '.join(STAGES)}.")
    preset = get_preset(cfg.common.get("preset", "tiny"))
    if not preset.edit.trained_here:
        raise S2FError(f"preset {preset.name} uses the published pipeline: train with preset tiny.")
    out = Path(cfg.out)
    vae, pipeline = cfg.vae or str(out / "vae" / "vae.safetensors"), out / "unet" / "pipeline"

    def fields(stage: str) -> dict[str, Any]:
        share = TIME_SHARES[stage] if cfg.stage == "all" else 1.0
        limit = None if cfg.max_time is None else share * cfg.max_time
        own: dict[str, Any] = dict(pairs=cfg.pairs, out=str(out / stage), max_time=limit)
        return own | cfg.common | cfg.fields.get(stage, {})

    if cfg.stage == "vae" or cfg.stage == "all" and not (cfg.vae or (out / "unet" / "checkpoint.pt").exists()):
        done("vae", train_vae(VaeConfig(**fields("vae"))))
    if cfg.stage in ("unet", "all"):
        done("unet", train_unet(UNetConfig(**dict[str, Any](vae=vae) | fields("unet"))))
    if cfg.stage in ("decoder", "all"):
        decoder = train_vae(VaeConfig(**dict[str, Any](init=vae, decoder_only=True) | fields("decoder")))
        done("decoder", decoder)
        if pipeline.is_dir():
            use_decoder(pipeline, decoder)
    return pipeline
