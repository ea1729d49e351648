"""The command ``s2f``: run, sketch, generate, lineup, train, sweep, evaluate, render, fetch.

Every failure is one sentence on stderr and exit code 2; a traceback appears only with ``--debug``. Heavy
modules are imported inside the commands, so that ``s2f --help`` answers at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from s2flib import __version__, cli_edit, cli_measure, cli_render, cli_train
from s2flib.cli_options import GeneratorOption, OverwriteOption, PresetOption, WeightsOption
from s2flib.errors import S2FError

EXIT_FAILED = 2
EXIT_INTERRUPTED = 130


class Group(TyperGroup):
    """Turns failures into sentences, and accepts ``--debug`` anywhere on the line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            ctx.meta["debug"] = True
            args = [arg for arg in args[:end] if arg != "--debug"] + args[end:]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail(
                "stopped; what was finished is kept: train, sweep, sketch and render go on from there when run again.",
                EXIT_INTERRUPTED,
            )
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if hasattr(error, "show") or ctx.meta.get("debug"):  # a usage error shows itself
                raise
            fail(sentence(error))


def weights_table(registry: dict, cache: Path) -> str:
    """What can be fetched, what it is, under which licence, and whether it is here already."""
    lines = [f"published weights, kept in {cache}:"]
    for name, entry in registry.items():
        here = "here" if (cache / entry.file).exists() else "not fetched"
        lines.append(f"  {name:<20} {here:<12} {entry.what}\n{'':35}{entry.licence}")
    return "\n".join(lines)


def sentence(error: Exception) -> str:
    """What went wrong and what to do, on one line."""
    if isinstance(error, S2FError):
        text = str(error)
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text = "the disk is full: free some space and run the command again."
    elif isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {(error.strerror or 'cannot be used').lower()}."
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        text = "memory ran out: try a smaller --batch or fewer pictures at a time."
    elif isinstance(error, ModuleNotFoundError):
        text = f"the package {error.name!r} is missing: run `make setup` (or pip install -e '.[course]')."
    else:
        text = f"{type(error).__name__}: {error} (a bug in s2flib; run again with --debug to see where)."
    return " ".join(text.split())


def fail(text: str, code: int = EXIT_FAILED) -> None:
    """Print ``s2f: text`` to stderr and leave."""
    typer.echo(f"s2f: {text}", err=True)
    raise typer.Exit(code)


def keep_freed_memory() -> None:
    """Ask glibc to keep freed tensors instead of faulting them in again (1.5 to 2 times faster on CPUs).

    The Makefile sets the same through MALLOC_*_ variables; other systems have no mallopt and are left alone.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    trim, top_pad, mmap = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of malloc.h
    for parameter, value in ((trim, 2**31 - 1), (top_pad, 200_000_000), (mmap, 2**31 - 1)):
        mallopt(parameter, value)


app = typer.Typer(
    name="s2f",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a witness's sketch to a face. Every face is synthetic: a lead at most, never evidence.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"s2flib {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (may stand anywhere).")] = False,
) -> None:
    keep_freed_memory()


@app.command()
def run(
    notebooks: Annotated[
        list[str] | None,
        typer.Argument(metavar="NOTEBOOK", help="Names or numbers, such as 01; default: all."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for the results; default: a new runs/<time>."),
    ] = None,
    preset: PresetOption = "tiny",
    seed: Annotated[int, typer.Option(help="Passed to every notebook.")] = 0,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="As few steps and pictures as possible: shows that every cell runs."),
    ] = False,
) -> None:
    """Run the course's notebooks headless; print Table 1 and where the report is."""
    from s2flib.course import run_course

    raise typer.Exit(run_course(out=out, preset=preset, notebooks=notebooks or None, fast=fast, seed=seed))


@app.command()
def sketch(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE", help="Photos, or one folder of them.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DEST", help="Folder for the sketches; for one photo also a file's name."),
    ],
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            metavar="PATH",
            help="A folder of label masks, paired by name (for one photo: its mask).",
        ),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(help="The blur's sigma in pixels; default: a quarter of the picture, as in the paper."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="For a folder: processes; default: all cores.", min=1)] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Turn photos into pencil sketches (paper, Sec. 3.2).

    A folder is done with all cores; run the command again to go on with what is missing. What failed is
    listed with the reason, and the exit code is then 2.
    """
    from s2flib.cli_sketch import sketch_files, sketch_whole_folder

    if len(sources) == 1 and sources[0].is_dir():
        sketch_whole_folder(sources[0], out, masks, sigma, workers, overwrite)
    else:
        sketch_files(sources, out, masks, sigma, overwrite)


@app.command()
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


app.command()(cli_measure.lineup)
app.command()(cli_train.train)
app.command()(cli_train.sweep)
app.command()(cli_measure.evaluate)
app.command()(cli_edit.edit)
app.command("train-editor")(cli_edit.train_editor)
app.command("evaluate-editor")(cli_edit.evaluate_editor)
app.command()(cli_render.render)


@app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="What to download; none: list what there is.")
    ] = None,
) -> None:
    """Download published weights: resumed, verified by sha256, never half a file under the final name."""
    from s2flib import registry

    if not names:
        typer.echo(weights_table(registry.REGISTRY, registry.cache_dir()))
    for name in names or []:
        typer.echo(f"{name}: {registry.fetch(name)}")


def main() -> None:
    """Entry point of ``s2f`` and of ``python -m s2flib.cli``."""
    app(prog_name="s2f")


if __name__ == "__main__":
    main()
