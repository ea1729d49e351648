"""``s2f sketch``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.options import OverwriteOption
from s2flib.cli.outputs import picture_files
from s2flib.errors import S2FError


def sketch(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE", help="Photos, or one folder of photos.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DEST", help="Folder for the sketches, or for one photo a file name.")
    ],
    masks: Annotated[
        Path | None,
        typer.Option("--masks", metavar="PATH", help="A folder of label masks, matched by name, or one photo's mask."),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(help="The blur's sigma in pixels; default: size / 26.5, the paper's code; its text: size / 4."),
    ] = None,
    background: Annotated[
        str, typer.Option(metavar="white|black", help="Behind the person, before the blur; the paper's code: black.")
    ] = "white",
    workers: Annotated[int | None, typer.Option(help="For a folder: threads; default: all cores.", min=1)] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert photos to pencil sketches.

    The method is the paper's (Sec. 3.2). A folder is processed on all cores; run the command again to continue with
    what is missing. Failures are listed with the reason, and the exit code is then 2.
    """
    if len(sources) == 1 and sources[0].is_dir():
        sketch_whole_folder(sources[0], out, masks, sigma, background, workers, overwrite)
    else:
        sketch_files(sources, out, masks, sigma, background, overwrite)


def sketch_files(
    sources: Sequence[Path], out: Path, masks: Path | None, sigma: float | None, background: str, overwrite: bool
) -> None:
    """Sketch single photos: into the folder ``out``, or one photo into that file (:mod:`s2flib.cli.outputs`)."""
    folder = [source for source in sources if source.is_dir()]
    if folder:
        raise S2FError(f"{folder[0]} is a folder: pass either one folder or single photos.")
    targets = picture_files(out, [f"{source.stem}.png" for source in sources], overwrite, sources)
    from s2flib.datasets.sketch_folder import fit_mask
    from s2flib.images import inherited, load_image, load_mask, save_image
    from s2flib.sketch import sketch

    for source, target in zip(sources, targets, strict=True):
        photo, mask = load_image(source), None
        if masks is not None:
            mask = fit_mask(load_mask(masks / f"{source.stem}.png" if masks.is_dir() else masks), photo)
        about, synthetic = inherited(source)
        drawn = sketch(photo, mask, sigma, background)
        save_image(target, drawn, about, overwrite=overwrite, synthetic=synthetic)
        typer.echo(str(target))


def sketch_whole_folder(
    source: Path,
    out: Path,
    masks: Path | None,
    sigma: float | None,
    background: str,
    workers: int | None,
    overwrite: bool,
) -> None:
    """Sketch a folder on all cores, list failures with their reasons, and exit with code 2 if there are any."""
    if overwrite:
        raise S2FError("--overwrite is only for single photos: remove it; in a folder, changed photos are redone.")
    from s2flib.datasets.sketch_folder import sketch_folder

    report = sketch_folder(source, out, masks=masks, sigma=sigma, background=background, workers=workers)
    typer.echo(f"{len(report.done)} sketched, {len(report.skipped)} there already, {len(report.failed)} failed: {out}")
    for path, why in report.failed:
        typer.echo(f"s2f: {why}" if str(path) in why else f"s2f: {path}: {why}", err=True)
    if report.failed:
        raise typer.Exit(2)
