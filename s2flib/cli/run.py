"""``s2f run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.options import PresetOption


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
    from s2flib.course.run import run_course

    raise typer.Exit(run_course(out=out, preset=preset, notebooks=notebooks or None, fast=fast, seed=seed))
