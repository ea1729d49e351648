"""``s2f train`` and ``s2f train-editor``."""

from __future__ import annotations

import importlib
import json
import os
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from s2flib.cli.edit import PairsOption
from s2flib.cli.options import PRECISIONS, CpuOption, MaxTimeOption, PresetOption, seconds
from s2flib.errors import S2FError

# what → (module, config, training function)
TRAININGS = {
    "generator": ("s2flib.training.generator", "GeneratorConfig", "train_generator"),
    "renderer": ("s2flib.training.neural_renderer", "RendererConfig", "train_renderer"),
    "mapping": ("s2flib.training.mapping", "MappingConfig", "train_mapping"),
    "encoder": ("s2flib.training.encoder", "EncoderConfig", "train_encoder"),
    "photo-psp": ("s2flib.training.inversion", "PhotoPSPConfig", "train_photo_psp"),
    "e4e": ("s2flib.training.inversion", "E4EConfig", "train_e4e"),
    "restyle-psp": ("s2flib.training.inversion_refining", "RefiningConfig", "train_restyle_psp"),
    "restyle-e4e": ("s2flib.training.inversion_refining", "RefiningConfig", "train_restyle_e4e"),
    "hyperstyle": ("s2flib.training.inversion_refining", "RefiningConfig", "train_hyperstyle"),
    "hyperinverter": ("s2flib.training.inversion_refining", "InversionConfig", "train_hyperinverter"),
    "id": ("s2flib.training.classifiers", "IdentityConfig", "train_identity"),
    "attributes": ("s2flib.training.classifiers", "AttributesConfig", "train_attributes"),
    "matcher": ("s2flib.training.matcher", "MatcherConfig", "train_matcher"),
    "edit-judge": ("s2flib.training.edit_judge", "JudgeConfig", "train_judge"),
    "edit-reader": ("s2flib.training.edit_judge", "ReaderConfig", "train_reader"),
}


def train(
    what: Annotated[str, typer.Option(metavar="NET", help=f"Which network: {', '.join(TRAININGS)}.")] = "encoder",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for checkpoints, logs and weights.")
    ] = None,
    preset: PresetOption = "tiny",
    steps: Annotated[int | None, typer.Option(help="Total number of batches.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step, over all processes.", min=1)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    lambda4: Annotated[
        float | None, typer.Option(help="Encoder: weight of the attention loss, the paper's λ4; 0: pSp.", min=0)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, data order and augmentation.")] = None,
    max_time: MaxTimeOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the folder's checkpoint, if any.")] = False,
    limit: Annotated[int | None, typer.Option(help="Use only the first training photos.", min=1)] = None,
    generator: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Encoder: the frozen generator, if not the preset's own.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Initial weights: a .safetensors file of an earlier training.")
    ] = None,
    precision: Annotated[str | None, typer.Option("--mixed-precision", metavar="KIND", help=PRECISIONS)] = None,
    cpu: CpuOption = False,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any other field of the training's config; may be repeated."),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the config's fields and defaults, and exit.")] = False,
) -> None:
    """Train a network; --list shows all settings.

    Several processes: accelerate launch --num_processes 2 -m s2flib train ... A stopped or killed run
    continues with --resume and the same options, and gives the same results.
    """
    config_class, run = training(what)
    if show:
        typer.echo(describe(config_class))
        return
    if out is None:
        raise S2FError("training needs a folder for its results: add --out DIR.")
    given = dict(
        out=str(out), preset=preset, steps=steps, batch=batch, lr=lr, lambda4=lambda4, seed=seed,
        max_time=seconds(max_time), limit=limit, mixed_precision=precision, generator=generator and str(generator),
        init=init and str(init), resume=resume or None, cpu=cpu or None,
    )  # fmt: skip
    config = build_config(config_class, given, more or [], what)
    path = run(config)
    if int(os.environ.get("RANK", "0")) == 0:
        typer.echo(f"weights: {path}{unfinished(out)}")


def unfinished(out: Path) -> str:
    """ " (step 40 of 100: ...)" for a run stopped by --max-time, else nothing."""
    path = out / "run.json"
    run = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    step, steps = run.get("step"), run.get("config", {}).get("steps")
    return f" (step {step} of {steps}: continue with --resume)" if step and steps and step < steps else ""


def training(what: str) -> tuple[type, Any]:
    """The config class and the training function of ``what``."""
    if what not in TRAININGS:
        raise S2FError(f"there is no network {what!r} to train: choose one of {', '.join(TRAININGS)}.")
    module, config, function = TRAININGS[what]
    module = importlib.import_module(module)
    return getattr(module, config), getattr(module, function)


def build_config(config_class: type, given: dict, more: Sequence[str], what: str) -> Any:
    """The training's config from the options (None: not set) and ``FIELD=VALUE`` pairs."""
    types_of = typing.get_type_hints(config_class)
    values = {}
    for name, value in given.items():
        if value is None:
            continue
        if name not in types_of:
            option = name.replace("_", "-")
            raise S2FError(f"--{option} does not apply to --what {what}: see s2f train --what {what} --list.")
        values[name] = value
    return config_class(**values | dict(parse_pair(pair, types_of, what) for pair in more))


def parse_pair(pair: str, types_of: dict[str, Any], what: str) -> tuple[str, Any]:
    """``FIELD=VALUE`` → the field's name and its value in the field's type."""
    name, equals, text = pair.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or name not in types_of:
        raise S2FError(f"--set {pair!r} is not a field of --what {what}: see s2f train --what {what} --list.")
    return name, parse_value(text.strip(), types_of[name], pair)


def parse_value(text: str, kind: Any, pair: str) -> Any:
    """``text`` converted to the field's type; the members of a union are tried in order."""
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    for option in typing.get_args(kind) if union else (kind,):
        if option is type(None) and text.lower() == "none":
            return None
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if option in (int, float):
            try:
                return option(text)
            except ValueError:
                continue
        if option in (str, Path):
            return option(text)
        if typing.get_origin(option) is tuple:
            element = typing.get_args(option)[0]
            return tuple(parse_value(part.strip(), element, pair) for part in text.split(","))
    raise S2FError(f"--set {pair!r}: {text!r} is not a valid {getattr(kind, '__name__', kind)}.")


def describe(config_class: type) -> str:
    """The fields of a config with their defaults, one per line."""
    lines = []
    for field in fields(config_class):
        if field.default is not MISSING:
            default = repr(field.default)
        else:
            default = "needed" if field.default_factory is MISSING else repr(field.default_factory())
        lines.append(f"{field.name:<18} {field.type!s:<16} {default}")
    return "\n".join(lines)


def train_editor(
    pairs: PairsOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for all stages and the pipeline.")],
    stage: Annotated[str, typer.Option(metavar="NAME", help="vae, unet, decoder or all (in order).")] = "all",
    vae: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A trained autoencoder; default: OUT/vae/vae.safetensors.")
    ] = None,
    preset: PresetOption = "tiny",
    seed: Annotated[int, typer.Option(help="Of weights, data order, noise and words.")] = 0,
    max_time: MaxTimeOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the folder's checkpoints.")] = False,
    precision: Annotated[str, typer.Option("--mixed-precision", metavar="KIND", help=PRECISIONS)] = "auto",
    cpu: CpuOption = False,
    limit: Annotated[int | None, typer.Option(help="Use only the first pairs.", min=1)] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="A field of a stage's config: vae.steps=4000."),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the configs' fields and defaults, and exit.")] = False,
) -> None:
    """Train the tiny InstructPix2Pix: autoencoder, UNet with text encoder, decoder again; export in diffusers' layout.

    With --stage all, --max-time is divided: 35 % for the autoencoder, 15 % for the decoder. A stopped or killed run
    continues with --resume; once UNet training has started, the encoder is not changed. The result is
    OUT/unet/pipeline.
    """
    from s2flib.training.edit_stages import EditorTraining, train_editor
    from s2flib.training.edit_unet import UNetConfig
    from s2flib.training.edit_vae import VaeConfig

    if show:
        typer.echo(f"vae and decoder\n{describe(VaeConfig)}\n\nunet\n{describe(UNetConfig)}")
        return
    fields: dict[str, dict] = {"vae": {}, "unet": {}, "decoder": {}}
    for pair in more or []:
        name, dot, rest = pair.partition(".")
        if not dot or name not in fields:
            raise S2FError(f"--set {pair!r} has no stage: write vae.FIELD=VALUE, unet.… or decoder.….")
        types_of = typing.get_type_hints(UNetConfig if name == "unet" else VaeConfig)
        field, value = parse_pair(rest, types_of, name)
        fields[name][field] = value
    common = dict(preset=preset, seed=seed, resume=resume, mixed_precision=precision, cpu=cpu, limit=limit)
    cfg = EditorTraining(str(pairs), str(out), stage, vae and str(vae), seconds(max_time), common, fields)
    train_editor(cfg, lambda what, path: typer.echo(f"{what}: {path}{unfinished(out / what)}"))
