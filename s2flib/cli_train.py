"""``s2f train`` and ``s2f sweep``."""

from __future__ import annotations

import json
import os
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from s2flib.cli_options import MaxTimeOption, PresetOption, seconds
from s2flib.errors import S2FError

# what → (module, its config, the function that trains by it)
TRAININGS = {
    "generator": ("s2flib.training.pretrain", "GeneratorConfig", "train_generator"),
    "encoder": ("s2flib.training.encoder", "EncoderConfig", "train_encoder"),
    "id": ("s2flib.training.classifiers", "IdentityConfig", "train_identity"),
    "attributes": ("s2flib.training.classifiers", "AttributesConfig", "train_attributes"),
    "edit-judge": ("s2flib.training.editjudge", "JudgeConfig", "train_judge"),
    "edit-reader": ("s2flib.training.editjudge", "ReaderConfig", "train_reader"),
}


def train(
    what: Annotated[str, typer.Option(metavar="NET", help=f"Which net: {', '.join(TRAININGS)}.")] = "encoder",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for checkpoints, samples, logs and weights."),
    ] = None,
    preset: PresetOption = "tiny",
    steps: Annotated[int | None, typer.Option(help="Batches to train, in all.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures per step, all processes together.", min=1)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    lambda4: Annotated[
        float | None,
        typer.Option(help="Encoder: weight of the attention loss (the paper's λ4; 0 is plain pSp).", min=0),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, data order and augmentation.")] = None,
    max_time: MaxTimeOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's checkpoint, if it holds one.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Use only the first training photos.", min=1)] = None,
    generator: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Encoder: the frozen generator, if not the preset's own."),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights to start from: a training.safetensors of the generator's."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--mixed-precision", metavar="KIND", help="auto, no, bf16 or fp16.")
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave the GPU alone.")] = False,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Any further field of the training's config; may be repeated.",
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the config's fields and defaults, and stop.")] = False,
) -> None:
    """Train a net; --list shows everything that can be set.

    Several processes: accelerate launch --num_processes 2 -m s2flib.cli train ... A run that was stopped or
    killed goes on with --resume and the same options, to the same numbers.
    """
    config_class, run = training(what)
    if show:
        typer.echo(describe(config_class))
        return
    if out is None:
        raise S2FError("training needs a folder for its results: add --out DIR.")
    given = dict(
        preset=preset,
        steps=steps,
        batch=batch,
        lr=lr,
        lambda4=lambda4,
        seed=seed,
        max_time=seconds(max_time),
        limit=limit,
        mixed_precision=precision,
        generator=None if generator is None else str(generator),
        init=None if init is None else str(init),
        resume=resume or None,
        cpu=cpu or None,
    )
    config = build_config(config_class, {"out": str(out)} | given, more or [], what)
    path = run(config)
    if int(os.environ.get("RANK", "0")) == 0:
        typer.echo(f"weights: {path}{unfinished(out)}")


def unfinished(out: Path) -> str:
    """ ", step 40 of 100: ..." for a run that --max-time stopped, else nothing."""
    path = out / "run.json"
    run = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    step, steps = run.get("step"), run.get("config", {}).get("steps")
    return f" (step {step} of {steps}: go on with --resume)" if step and steps and step < steps else ""


def training(what: str) -> tuple[type, Any]:
    """The config class and the function that trains ``what``."""
    import importlib

    if what not in TRAININGS:
        raise S2FError(f"there is no net {what!r} to train: choose one of {', '.join(TRAININGS)}.")
    module, config, function = TRAININGS[what]
    module = importlib.import_module(module)
    return getattr(module, config), getattr(module, function)


def build_config(config_class: type, given: dict, more: Sequence[str], what: str) -> Any:
    """The training's config from the options given (None: not given) and ``FIELD=VALUE`` pairs."""
    types_of = typing.get_type_hints(config_class)
    values = {}
    for name, value in given.items():
        if value is None:
            continue
        if name not in types_of:
            if name == "preset":
                continue
            option = {"mixed_precision": "mixed-precision"}.get(name, name)
            raise S2FError(f"--{option} does not apply to --what {what}: see s2f train --what {what} --list.")
        values[name] = value
    for pair in more:
        name, value = parse_pair(pair, types_of, what)
        values[name] = value
    return config_class(**values)


def parse_pair(pair: str, types_of: dict[str, Any], what: str) -> tuple[str, Any]:
    """``FIELD=VALUE`` → the field's name and its value in the field's type."""
    name, equals, text = pair.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or name not in types_of:
        raise S2FError(f"--set {pair!r} names no field of --what {what}: see s2f train --what {what} --list.")
    return name, parse_value(text.strip(), types_of[name], pair)


def parse_value(text: str, kind: Any, pair: str) -> Any:
    """``text`` as the field's type; unions are tried in the order they were written."""
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
    raise S2FError(f"--set {pair!r}: {text!r} is no {getattr(kind, '__name__', kind)}.")


def describe(config_class: type) -> str:
    """The fields of a config, one a line, with their defaults."""
    lines = []
    for field in fields(config_class):
        if field.default is not MISSING:
            default = repr(field.default)
        else:
            default = "needed" if field.default_factory is MISSING else repr(field.default_factory())
        lines.append(f"{field.name:<18} {field.type!s:<16} {default}")
    return "\n".join(lines)


def sweep(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for cells, tables and figures.")],
    preset: PresetOption = "tiny",
    lambdas: Annotated[
        str, typer.Option(metavar="LIST", help="λ4 values, with 0 (plain pSp) among them.")
    ] = "0,1,1e3,1e6,1e9",
    seeds: Annotated[str, typer.Option(metavar="LIST", help="Every λ4 is trained once per seed.")] = "0,1,2",
    steps: Annotated[int | None, typer.Option(help="Of each training; default: the preset's.", min=0)] = None,
    limit: Annotated[int | None, typer.Option(help="Measure only the first test pictures.", min=1)] = None,
    baselines: Annotated[bool, typer.Option(help="Measure mean face and nearest sketch as well.")] = True,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of every training's config; may be repeated."),
    ] = None,
) -> None:
    """Train and measure the λ4 sweep of Table 1, compared paired with λ4 = 0 on the same pictures.

    Finished cells are kept: run the same command again to go on with a sweep that was stopped.
    """
    from s2flib.sweep import sweep as run

    config_class, _ = training("encoder")
    types_of = typing.get_type_hints(config_class)
    fields_set = dict(parse_pair(pair, types_of, "encoder") for pair in more or [])
    result = run(
        preset,
        numbers(lambdas, float),
        numbers(seeds, int),
        steps,
        out,
        limit=limit,
        training=fields_set,
        baselines=baselines,
    )
    typer.echo(result.summary)
    typer.echo(f"results: {result.out}")


def numbers(text: str, kind: type) -> list:
    """ "0, 1, 1e3" → [0.0, 1.0, 1000.0]."""
    try:
        return [kind(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise S2FError(f"{text!r} is no list of numbers: separate them by commas, as in 0,1,2.") from None
