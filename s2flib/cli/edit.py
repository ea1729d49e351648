"""``s2f edit``: text-guided edits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.options import MarkOption, OverwriteOption, PresetOption
from s2flib.cli.outputs import picture_files
from s2flib.errors import S2FError

PairsOption = Annotated[
    Path, typer.Option("--pairs", metavar="DIR", help="A folder with edits.zip and edits.csv (s2f render --edits).")
]
PipelineOption = Annotated[
    Path | None, typer.Option("--pipeline", metavar="DIR", help="Another pipeline, in diffusers' layout.")
]
StepsOption = Annotated[int | None, typer.Option(help="Denoising steps; default: the preset's.")]
GuidanceOption = Annotated[float | None, typer.Option(help="How closely to follow the text, from 1.")]
ImageGuidanceOption = Annotated[float | None, typer.Option(help="How closely to follow the image, from 1.")]
IntervalOption = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOW HIGH", help="Noise levels, 0 to 1, at which --guidance applies; default: the preset's."),
]


def edit(
    image: Annotated[Path | None, typer.Argument(metavar="PICTURE", help="A face (PNG, JPEG, ...).")] = None,
    instructions: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORDS", help="What to change, quoted; several edits are applied in order."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DEST", help="A file; with --n a folder.")] = None,
    preset: PresetOption = "tiny",
    pipeline: PipelineOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    image_guidance: ImageGuidanceOption = None,
    interval: IntervalOption = None,
    negative: Annotated[str | None, typer.Option(metavar="WORDS", help="A negative prompt.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noise; the same seed gives the same image.")] = 0,
    n: Annotated[int, typer.Option("--n", "-n", help="Results, with consecutive seeds from --seed.", min=1)] = 1,
    fetch: Annotated[bool, typer.Option("--fetch", help="Download the published pipeline first (2 GB).")] = False,
    mark: MarkOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Edit a face by text: s2f edit face.png "make the hair blond" "add glasses" -o out.png.

    The tiny preset edits the centre square of any image at 128 px. The metadata of every result states that it is
    synthetic and how it was generated.
    """
    from s2flib.images import as_array
    from s2flib.instruct_pix2pix.pipeline import fetch_published, load_pipeline
    from s2flib.instruct_pix2pix.session import EditSession
    from s2flib.runs import check_seed

    if fetch:
        typer.echo(f"published pipeline: {fetch_published()}")
        if image is None:
            return
    if image is None or not instructions:
        raise S2FError("name an image and an instruction, such as s2f edit face.png 'make the hair blond' -o out.png.")
    if out is None:
        raise S2FError("an edit needs an output: add --out FILE.png (with --n a folder).")
    names = [f"{image.stem}_edit_{i + 1}.png" for i in range(n)]
    files = picture_files(out, names, overwrite, [image])
    check_seed(seed)
    as_array(image)  # an unusable image is an error before weights are read
    pipe = load_pipeline(preset, pipeline)
    for i, path in enumerate(files):
        session = EditSession(
            image,
            preset,
            pipe=pipe,
            steps=steps,
            guidance=guidance,
            image_guidance=image_guidance,
            interval=interval,
            negative=negative,
        )
        made = session.chain(instructions, seed=seed + i)
        for note in dict.fromkeys((*session.notes, *(note for each in made for note in each.notes)) if i == 0 else ()):
            typer.echo(f"  {note}")
        session.save(path, overwrite, mark)
        typer.echo(f"{image}: {' + '.join(instructions)} (seed {seed + i}) -> {path}")
