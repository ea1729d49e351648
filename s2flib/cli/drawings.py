"""``s2f evaluate-drawings``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.evaluate import DataOption, SplitOption
from s2flib.cli.options import GeneratorOption, OverwriteOption, PresetOption, RunDirOption, WeightsOption
from s2flib.errors import S2FError


def evaluate_drawings(
    out: RunDirOption = None,
    preset: PresetOption = "tiny",
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    split: SplitOption = "test",
    data: DataOption = None,
    people: Annotated[int | None, typer.Option(help="Use only the first people.", min=2)] = None,
    variants: Annotated[int, typer.Option(help="Faces per drawing.", min=2, max=64)] = 16,
    encoders: Annotated[
        list[str] | None,
        typer.Option("--encoder", metavar="NAME=FILE", help="An encoder to compare, named after its training; repeat."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the variants.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """What drawings leave open: variants and how they obey, glasses and hats, training on pencil sketches or lines.

    Writes drawings.txt, variants.csv, accessories.csv and run.json; with --encoder, training.csv in place of both.
    """
    from s2flib.evaluation.drawing_study import Study, report_drawings

    study = Study(preset, weights, generator, split, data, people, variants, _named(encoders or []), seed)
    text, folder = report_drawings(study, out, overwrite, partial(typer.echo, err=True))
    typer.echo(text)
    typer.echo(f"results: {folder}")


def _named(encoders: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in encoders:
        name, equals, path = text.partition("=")
        if not (name and equals and path) or name in found:
            raise S2FError(
                f"--encoder {text!r} is not NAME=FILE with a name of its own: write, for example, lines=a.st."
            )
        if not Path(path).is_file():
            raise S2FError(f"there is no file {path}: name an encoder's .safetensors file.")
        found[name] = Path(path)
    return found
