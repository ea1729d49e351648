"""``s2f generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.options import GeneratorOption, MarkOption, OverwriteOption, PresetOption, WeightsOption


def generate(
    sketches: Annotated[list[Path], typer.Argument(metavar="SKETCH", help="Images of drawings (PNG, JPEG, ...).")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the faces.")],
    n: Annotated[int, typer.Option("--n", "-n", help="Faces per sketch.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the random styles; the same seed gives the same faces.")] = 0,
    preset: PresetOption = "tiny",
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    from_photo: Annotated[
        bool, typer.Option("--from-photo", help="The images are photos: convert them to sketches first.")
    ] = False,
    align: Annotated[bool, typer.Option("--align", help="Find the face in the photo and crop to it.")] = False,
    which: Annotated[
        int | None, typer.Option("--which", metavar="I", help="With --align: use face I, counted from the left from 0.")
    ] = None,
    mark: MarkOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Generate faces from drawings.

    Writes NAME_face_1.png (the encoder's reconstruction), NAME_face_2.png ... (the same coarse styles, random
    fine ones) and overview.png. Drawings may be scans, photos of paper, light on dark, coloured, and of any
    shape; the changes made to them first are printed.
    """
    from s2flib.generate import generate as run

    results = run(
        sketches,
        out,
        preset=preset,
        n=n,
        seed=seed,
        weights_file=weights,
        generator_file=generator,
        from_photo=from_photo,
        align=align,
        which=which,
        mark=mark,
        overwrite=overwrite,
        progress=typer.echo,
    )
    for result in results:
        for note in result.notes:
            typer.echo(f"  {result.source.name}: {note}")
    typer.echo(f"overview: {out / 'overview.png'} (all faces are synthetic: a lead at most, never evidence)")
