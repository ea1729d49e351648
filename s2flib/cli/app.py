"""The command ``s2f``. Every failure prints one sentence and exits with code 2; ``--debug`` shows the traceback.

Heavy modules are imported inside the commands, so that ``s2f --help`` is fast.
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from s2flib import __version__
from s2flib.cli import (
    benchmark,
    case,
    drawings,
    edit,
    evaluate,
    fetch,
    generate,
    identify,
    inversions,
    invert,
    render,
    run,
    sketch,
    sweep,
    train,
)
from s2flib.errors import S2FError
from s2flib.files import thread_settings

EXIT_FAILED = 2
EXIT_INTERRUPTED = 130


class Group(TyperGroup):
    """Prints failures as one sentence, and accepts ``--debug`` anywhere on the command line."""

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
                "stopped; finished work is kept: run train, sweep, sketch or render again to continue.",
                EXIT_INTERRUPTED,
            )
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if hasattr(error, "show") or ctx.meta.get("debug"):  # click prints usage errors
                raise
            fail(sentence(error))


def sentence(error: Exception) -> str:
    """The error and what to do about it, on one line."""
    if isinstance(error, S2FError):
        text = str(error)
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text = "the disk is full: free some space and run the command again."
    elif isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {(error.strerror or 'cannot be used').lower()}."
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        text = "memory ran out: try a smaller --batch or fewer images at a time."
    elif isinstance(error, ModuleNotFoundError):
        text = f"the package {error.name!r} is missing: run `make setup` (or pip install -e '.[course]')."
    else:
        text = f"{type(error).__name__}: {error} (a bug in s2flib; run again with --debug to see where)."
    return " ".join(text.split())


def fail(text: str, code: int = EXIT_FAILED) -> None:
    """Print ``s2f: text`` to stderr and exit."""
    typer.echo(f"s2f: {text}", err=True)
    raise typer.Exit(code)


def keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system (1.5 to 2 times faster on CPUs).

    The Makefile does the same with MALLOC_*_ variables; other systems have no mallopt.
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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (allowed anywhere).")] = False,
) -> None:
    keep_freed_memory()
    for name, value in thread_settings().items():
        os.environ.setdefault(name, value)


for command in (
    run.run, generate.generate, edit.edit, invert.invert, sketch.sketch, render.render, render.render_people,
    evaluate.evaluate, evaluate.lineup, identify.identify, inversions.evaluate_inversions, evaluate.evaluate_editor,
    drawings.evaluate_drawings, benchmark.benchmark,
    train.train, sweep.sweep, train.train_editor, fetch.fetch,
):  # fmt: skip
    app.command(command.__name__.replace("_", "-"))(command)
app.add_typer(case.app)


def main() -> None:
    """Entry point of ``s2f`` and of ``python -m s2flib``."""
    for stream in (sys.stdout, sys.stderr):  # λ, arrows and any byte of a file name survive every terminal's encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app(prog_name="s2f")
