"""``s2f invert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.options import MarkOption, OverwriteOption, PresetOption
from s2flib.inversion import TITLES


def invert(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", help="Images of faces (PNG, JPEG, ...).")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")],
    method: Annotated[
        str, typer.Option("--method", "-m", metavar="NAME", help=f"One of {', '.join(TITLES)}.")
    ] = "w-plus",
    preset: PresetOption = "tiny",
    weights: Annotated[
        Path | None,
        typer.Option("--weights", "-w", metavar="FILE", help="The method's network; for pti: an e4e for its pivot."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Updates, for w-plus, projector and pti; default: the preset's.")
    ] = None,
    align: Annotated[bool, typer.Option("--align", help="Find the face in the photo and crop to it.")] = False,
    which: Annotated[
        int | None, typer.Option("--which", metavar="I", help="With --align: use face I, counted from the left from 0.")
    ] = None,
    mark: MarkOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Find the codes from which the generator makes photos again.

    Writes NAME_METHOD.png (the reconstruction), NAME_METHOD_steps.png (the photo, then the method's steps) and
    NAME_METHOD.safetensors (what was found, for edits). Photos must be square crops framed like the training data;
    --align finds the face and crops to it. Distances are printed for the result and for the method's starting point.
    """
    from s2flib.inversion.invert import invert_files
    from s2flib.inversion.methods import Budget

    invert_files(
        photos,
        out,
        preset=preset,
        method=method,
        weights_file=weights,
        align=align,
        which=which,
        budget=Budget.of(method, steps),
        mark=mark,
        overwrite=overwrite,
        progress=typer.echo,
    )
    typer.echo(f"results: {out} (all faces are synthetic: a lead at most, never evidence)")
