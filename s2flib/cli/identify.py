"""``s2f identify``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.options import GeneratorOption, OverwriteOption, PresetOption, RunDirOption, WeightsOption


def identify(
    out: RunDirOption = None,
    preset: PresetOption = "tiny",
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    matcher: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A direct sketch-to-photo matcher, if not the shipped one.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="A SynthFaces folder, instead of the preset's own.")
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Kinds of drawings, separated by semicolons; default: all. 'pencil; recall 1'."
        ),
    ] = None,
    people: Annotated[
        int, typer.Option(help="People of each split with recall errors and candidate sets; about 15 s each.", min=2)
    ] = 80,
    variants: Annotated[int, typer.Option(help="Faces of each drawing, for candidate sets.", min=1, max=64)] = 64,
    seed: Annotated[int, typer.Option(help="Of variants, of the shuffled control and of permutations.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Use only the first photos of each split.", min=8)] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Who is drawn? CMC and DET curves, a direct matcher, several drawings fused, candidate sets, fairness.

    Thresholds and sets are fitted on val people and measured on test people. Writes identification.txt, a CSV for each
    table, per_probe.npz and run.json; a run that was stopped continues from its probes/ folder.
    """
    from s2flib.evaluation.identification import IdentificationTest, report_identification
    from s2flib.evaluation.probes import KINDS

    chosen = KINDS if kinds is None else tuple(k.strip() for k in kinds.split(";"))
    test = IdentificationTest(preset, weights, generator, matcher, data, chosen, people, variants, seed, limit)
    text, folder = report_identification(test, out, overwrite, partial(typer.echo, err=True))
    typer.echo(text)
    typer.echo(f"results: {folder}")
