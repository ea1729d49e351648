"""``s2f render``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def render(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the data set.")],
    people: Annotated[int, typer.Option(help="How many; a number ending in 8 is val, in 9 test.")] = 3000,
    shots: Annotated[int, typer.Option(help="Photos per person.")] = 4,
    size: Annotated[int, typer.Option(help="Pixels, 32 to 1024.")] = 128,
    seed: Annotated[int, typer.Option(help="Every seed gives other people; 1 gives the shipped ones.")] = 1,
    edits: Annotated[int, typer.Option(help="Number of edit pairs: before, after, mask, instruction.")] = 0,
    drawings: Annotated[bool, typer.Option("--drawings/--no-drawings", help="A line drawing of every photo.")] = True,
    first: Annotated[int, typer.Option(metavar="ID", help="First person, to render part of a data set.")] = 0,
    split: Annotated[str | None, typer.Option(help="Only people of train, val or test.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: all cores.", min=1)] = None,
) -> None:
    """Render faces of people who do not exist: photos, masks, landmarks, line drawings, attributes.

    s2flib.datasets reads the folder. Run the same command again to continue a run that was stopped; on the same
    machine the same options give the same pixels.
    """
    from tqdm import tqdm

    from s2flib.synthfaces.render import render_dataset

    def bar(done, total):
        return tqdm(done, total=total, unit=" people", smoothing=0)

    path = render_dataset(
        out,
        people,
        shots,
        size=size,
        seed=seed,
        workers=workers,
        edits=edits,
        drawings=drawings,
        first_identity=first,
        split=split,
        progress=bar,
    )
    typer.echo(f"{path}: every face is synthetic, CC0; open it with s2flib.datasets.faces.SynthFaces")


def render_people(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the people.")],
    people: Annotated[int, typer.Option(help="How many.")] = 60_000,
    size: Annotated[int, typer.Option(help="Pixels, 32 to 1024.")] = 128,
    seed: Annotated[int, typer.Option(help="Every seed gives other people; 1 gives the shipped ones.")] = 777,
    workers: Annotated[int, typer.Option(help="Processes, one core each.", min=1)] = 1,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="Take the photos of the shipped train split instead of rendering.")
    ] = False,
) -> None:
    """People for training: one photo each, with its mask, line drawing and causes (all that the renderer knows of it).

    A training reads the folder while it grows: run this command beside s2f train --what renderer --set people=DIR. A
    stopped run continues. All people are train people, so none of the val and test splits can occur.
    """
    from tqdm import tqdm

    from s2flib.datasets.faces import SynthFaces, open_dataset
    from s2flib.datasets.live import pack_people, render_people

    if shipped:
        dataset = open_dataset("tiny", "train")
        assert isinstance(dataset, SynthFaces)
        pack_people(dataset, out)
    else:
        render_people(out, people, size, seed, workers, lambda done, left: tqdm(done, total=left, unit=" people"))
    typer.echo(f"{out}: train on it with s2f train --what renderer --set people={out}")
