"""``s2f case``: a case file from the drawing to the line-up."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.edit import GuidanceOption, ImageGuidanceOption, StepsOption
from s2flib.cli.options import GeneratorOption, OverwriteOption, PresetOption, WeightsOption
from s2flib.errors import S2FError, printable

EXIT_DIFFERENT = 1

app = typer.Typer(
    name="case",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A case file (.s2fcase): drawing, faces, choice, edits and line-up, in a record that others can replay.",
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A case file.")]
WhoOption = Annotated[str | None, typer.Option("--who", metavar="TEXT", help="Who does this step; free text.")]
log = partial(typer.echo, err=True)


@app.command()
def new(
    drawing: Annotated[Path, typer.Argument(metavar="DRAWING", help="An image of a drawing (PNG, JPEG, ...).")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The case to create: NAME.s2fcase.")],
    n: Annotated[int, typer.Option("--n", "-n", help="Faces.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the random styles; the same seed gives the same faces.")] = 0,
    preset: PresetOption = "tiny",
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    who: WhoOption = None,
) -> None:
    """Generate faces from a drawing, and store both in a new case."""
    from s2flib.case import new_case

    case = new_case(drawing, out, preset, n, seed, weights, generator, who, log)
    for note in case.first["notes"]:
        typer.echo(f"  {drawing.name}: {note}")
    typer.echo(f"{out}: {n} face{'s' * (n > 1)}, all synthetic; look at them with s2f case export {out} -o DIR")


@app.command()
def choose(
    file: FileArgument,
    face: Annotated[int, typer.Argument(metavar="I", help="The face chosen, counted from 1.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why this one.")],
    rejected: Annotated[
        list[str] | None, typer.Option("--rejected", metavar="J=TEXT", help="Why not face J; may be repeated.")
    ] = None,
    who: WhoOption = None,
) -> None:
    """Record which face was chosen and why. The others count as rejected, with or without a reason."""
    from s2flib.case import choose_face

    why = {}
    for text in rejected or []:
        number, equals, words = text.partition("=")
        if not equals or not number.strip().isdecimal():
            raise S2FError(f"{text!r} is no rejection: write the face's number and why, such as 2='too old'.")
        why[int(number)] = words.strip()
    choose_face(file, face, reason, why, who)
    typer.echo(f"{file}: face {face} chosen")


@app.command()
def edit(
    file: FileArgument,
    words: Annotated[str, typer.Argument(metavar="WORDS", help="What to change, quoted.")],
    seed: Annotated[int, typer.Option(help="Of the noise; the same seed gives the same image.")] = 0,
    guidance: GuidanceOption = None,
    image_guidance: ImageGuidanceOption = None,
    steps: StepsOption = None,
    who: WhoOption = None,
) -> None:
    """Edit the chosen face, or the last edit's result, by text: s2f case edit FILE "make the hair blond"."""
    from s2flib.case import edit_face

    case = edit_face(file, words, seed, guidance, image_guidance, steps, who, log)
    for note in case.entries[-1].data["notes"]:
        typer.echo(f"  {note}")
    typer.echo(f"{file}: {' + '.join(case.entries[-1].data['wishes'])} (seed {seed})")


@app.command()
def lineup(
    file: FileArgument,
    gallery: Annotated[
        Path | None, typer.Option("--gallery", metavar="DIR", help="A folder of photos; a subfolder is one person.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Or a split of the preset's data set; default: test.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the split's first photos.", min=1)] = None,
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    who: WhoOption = None,
) -> None:
    """Compare the case's current face with a gallery; with shuffled control, photo against photo, and chance."""
    from s2flib.case import run_lineup
    from s2flib.case.summary import told

    case = run_lineup(file, gallery, split, limit, weights, generator, who, log)
    for line in told(case.entries[-1]):
        typer.echo(printable(line, 1000))  # names of files
    typer.echo("similarity is not identification: a line-up always has a first place")


@app.command()
def show(file: FileArgument) -> None:
    """What was done, step by step, and what the case must not be used for."""
    from s2flib.case import read_case, summary

    typer.echo(summary(read_case(file)))


@app.command()
def verify(
    file: FileArgument,
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    gallery: Annotated[
        Path | None, typer.Option("--gallery", metavar="DIR", help="The photos that its line-ups used.")
    ] = None,
    lineups: Annotated[bool, typer.Option(help="Also repeat the line-ups.")] = True,
    head: Annotated[
        str | None, typer.Option("--head", metavar="HASH", help="The last step's hash, as it was noted elsewhere.")
    ] = None,
    max_difference: Annotated[
        float | None, typer.Option(help="Grey levels by which one pixel may differ; default: 8.", min=0)
    ] = None,
    mean_difference: Annotated[
        float | None, typer.Option(help="Grey levels by which a picture may differ on average; default: 0.5.", min=0)
    ] = None,
) -> None:
    """Check every hash of a case, make all of its pictures again, and compare.

    Exit code 0: verified. 1: something differs; every difference is listed. 2: the file is no case, or weights or a
    gallery are missing.
    """
    from s2flib.case import verify_case

    limits = {"max_difference": max_difference, "mean_difference": mean_difference}
    limits = {name: value for name, value in limits.items() if value is not None}
    found = verify_case(file, weights, generator, gallery, lineups, head, progress=log, **limits)
    for check in found.checks:
        how = "identical" if check.identical else f"largest difference {check.largest:.0f}, mean {check.mean:.3f}"
        typer.echo(f"  {check.name}: {how}")
    if found.checks and all(check.identical for check in found.checks):
        typer.echo(f"{len(found.checks)} pictures are equal to the byte")
    for note in found.notes:
        typer.echo(f"note: {note}")
    for problem in found.problems:
        typer.echo(f"DIFFERENT: {problem}", err=True)
    if not found.verified:
        raise typer.Exit(EXIT_DIFFERENT)
    allowed = "differences up to {:g}, {:g} on average, of 255 grey levels are allowed".format(*found.allowed)
    lines = f"{found.lineups} line-up{'s' * (found.lineups != 1)}"
    typer.echo(f"{file}: verified, {len(found.checks)} pictures and {lines} ({allowed})")


@app.command()
def export(
    file: FileArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for pictures, log and summary.")],
    overwrite: OverwriteOption = False,
) -> None:
    """Write the case's drawing, pictures, log and summary to a folder; signed (C2PA) if c2pa-python is installed."""
    from s2flib.case import export_case

    files, how = export_case(file, out, overwrite)
    typer.echo(f"{len(files)} files: {out}")
    typer.echo(how)
