"""``s2f benchmark``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.options import GeneratorOption, OverwriteOption, PresetOption, RunDirOption, WeightsOption


def benchmark(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Your copy of the set, unpacked as published.")],
    kind: Annotated[str, typer.Option("--set", metavar="NAME", help="cufs, cufsf or fs2k.")],
    out: RunDirOption = None,
    preset: PresetOption = "tiny",
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    gallery: Annotated[
        Path | None, typer.Option("--gallery", metavar="DIR", help="Further people's photos for a larger gallery.")
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option("--photos", metavar="DIR", help="The set's photos that come separately (AR, XM2VTS, FERET)."),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="test, train or all.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Use only the first pairs.", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Images per batch.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Of the shuffled control.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure an encoder on a published sketch set: whose photo is the generated face? rank-1/10/50, 95 % intervals.

    Beside it: the sketch itself against the photos, faces assigned to other people, and chance. Writes benchmark.txt,
    benchmark.csv and run.json.
    """
    from s2flib.evaluation.sketch_benchmark import BenchmarkTest, report_benchmark

    test = BenchmarkTest(folder, kind, preset, weights, generator, gallery, photos, split, limit, batch, seed)
    table, results = report_benchmark(test, out, overwrite, partial(typer.echo, err=True))
    typer.echo(table.text)
    typer.echo(f"results: {results}")
