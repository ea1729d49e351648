"""``s2f generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.options import GeneratorOption, OverwriteOption, PresetOption, WeightsOption


def generate(
    sketches: Annotated[list[Path], typer.Argument(metavar="SKETCH", help="Pictures of drawings (PNG, JPEG, ...).")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the faces.")],
    n: Annotated[int, typer.Option("--n", "-n", help="Faces per sketch.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the styles drawn by chance; the same seed gives the same faces.")] = 0,
    preset: PresetOption = "tiny",
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    from_photo: Annotated[
        bool, typer.Option("--from-photo", help="The pictures are photos: sketch them first.")
    ] = False,
    align: Annotated[
        bool, typer.Option("--align", help="Find the face in the photo and frame it as in training.")
    ] = False,
    which: Annotated[
        int | None,
        typer.Option("--which", metavar="I", help="With --align: take face I, from the left, 0 the first."),
    ] = None,
    mark: Annotated[bool, typer.Option("--mark", help="Draw a visible SYNTHETIC strip into every face.")] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Turn drawings into faces.

    Writes NAME_face_1.png (the encoder's own reading), NAME_face_2.png ... (the same coarse styles, fine
    ones by chance) and overview.png. Drawings may be scans, photos of paper, light on dark, coloured, of any
    shape; whatever is done to them first is printed.
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
