"""``s2f evaluate-inversions``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.options import OverwriteOption, PresetOption, RunDirOption


def evaluate_inversions(
    out: RunDirOption = None,
    preset: PresetOption = "tiny",
    methods: Annotated[
        str | None, typer.Option(metavar="LIST", help="Methods, separated by commas; default: all. psp,e4e,pti.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="A SynthFaces folder, instead of the preset's own.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    people: Annotated[int, typer.Option(help="People, one photo of each; optimisation takes a minute a photo.")] = 60,
    timed: Annotated[int, typer.Option(help="Photos that are inverted once more, one at a time, for the time.")] = 5,
    faces: Annotated[int, typer.Option(help="Random faces on which the directions are found.", min=100)] = 1000,
    seed: Annotated[int, typer.Option(help="Of random faces, noise and text edits.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """From a photo to its code: time, distortion and editability of every method, on the same photos.

    Writes inversions.txt, inversions.csv, inversions.png (the first six people), claims.csv (what the literature says,
    and whether it holds here), per_photo.npz and run.json. A run that was stopped continues from its methods/ folder.
    Times are taken last, so only then should the machine have nothing else to do.
    """
    from s2flib.evaluation.inversion_study import InversionStudy, report_inversions
    from s2flib.inversion.methods import METHODS

    chosen = METHODS if methods is None else tuple(m.strip() for m in methods.split(","))
    study = InversionStudy(preset, chosen, split, data, people, timed, faces, seed=seed)
    text, folder = report_inversions(study, out, overwrite, partial(typer.echo, err=True))
    typer.echo(text)
    typer.echo(f"results: {folder}")
