"""``s2f render``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def render(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the data set.")],
    people: Annotated[int, typer.Option(help="How many; the last digit decides the split (8 val, 9 test).")] = 3000,
    shots: Annotated[int, typer.Option(help="Photos of each.")] = 4,
    size: Annotated[int, typer.Option(help="Pixels, 32 to 1024.")] = 128,
    seed: Annotated[int, typer.Option(help="Other people for every seed; 1 gives the shipped ones.")] = 1,
    edits: Annotated[int, typer.Option(help="Edit pairs besides: before, after, mask, instruction.")] = 0,
    drawings: Annotated[bool, typer.Option("--drawings/--no-drawings", help="A line drawing of every photo.")] = True,
    first: Annotated[int, typer.Option(metavar="ID", help="The first person's number: slices of one data set.")] = 0,
    split: Annotated[str | None, typer.Option(help="Only the people of train, val or test.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: all cores.", min=1)] = None,
) -> None:
    """Render faces of people who do not exist: photos, masks, landmarks, line drawings, attributes.

    The folder is what s2flib.datasets reads. A run that was stopped goes on when the command is given again; on one
    machine the same numbers give the same pixels.
    """
    from tqdm import tqdm

    from s2flib.synthfaces.render import render_dataset

    def bar(done, total):
        return tqdm(done, total=total, unit=" people", smoothing=0)

    path = render_dataset(out, people, shots, size=size, seed=seed, workers=workers, edits=edits, drawings=drawings,
                          first_identity=first, split=split, progress=bar)
    typer.echo(f"{path}: every face is synthetic, CC0; open it with s2flib.datasets.faces.SynthFaces")
