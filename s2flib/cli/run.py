"""``s2f run``."""

from __future__ import annotations

from typing import Annotated

import typer

from s2flib.cli.options import PresetOption, RunDirOption


def run(
    notebooks: Annotated[
        list[str] | None, typer.Argument(metavar="NOTEBOOK", help="Names or numbers, such as 01; default: all.")
    ] = None,
    out: RunDirOption = None,
    preset: PresetOption = "tiny",
    seed: Annotated[int, typer.Option(help="Passed to every notebook.")] = 0,
    fast: Annotated[bool, typer.Option("--fast", help="Minimal steps and images: tests that every cell runs.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Run every notebook, also those that passed before.")] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Notebooks at a time; default: by cores and memory under tiny, else 1.", min=1)
    ] = None,
) -> None:
    """Run the course's notebooks headless; prints Table 1 and the path of the report.

    After a failure the next run goes on in the same folder: notebooks that passed, and whose text, parameters, package
    and weights are still the same, are not run again.
    """
    from s2flib.course.run import run_course

    raise typer.Exit(run_course(out, preset, notebooks or None, fast, seed, again, jobs))
