"""``s2f evaluate``, ``s2f lineup`` and ``s2f evaluate-editor``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.edit import (
    GuidanceOption,
    ImageGuidanceOption,
    IntervalOption,
    PairsOption,
    PipelineOption,
    StepsOption,
)
from s2flib.cli.options import (
    BaselinesOption,
    GeneratorOption,
    OverwriteOption,
    PresetOption,
    RunDirOption,
    WeightsOption,
)
from s2flib.errors import S2FError

SplitOption = Annotated[str, typer.Option(metavar="NAME", help="train, val or test.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="A data set's folder, instead of the preset's own.")
]
LimitOption = Annotated[int | None, typer.Option(help="Use only the first images.", min=1)]
BatchOption = Annotated[int, typer.Option(help="Images per batch.", min=1)]
LinesOption = Annotated[
    bool, typer.Option("--lines", help="Line drawings instead of pencil sketches; SynthFaces has them.")
]
ControlSeedOption = Annotated[int, typer.Option(help="Of the line-up's shuffled control.")]


def evaluate(
    out: RunDirOption = None,
    preset: PresetOption = "tiny",
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    split: SplitOption = "test",
    data: DataOption = None,
    limit: LimitOption = None,
    batch: BatchOption = 16,
    baselines: BaselinesOption = True,
    ceiling: Annotated[
        int, typer.Option(metavar="STEPS", min=0, help="Fit every photo's w+, the generator's ceiling. Slow; 0: skip.")
    ] = 0,
    ranks: Annotated[bool, typer.Option(help="Add rank-1/5/10 in a line-up.")] = True,
    seed: ControlSeedOption = 0,
    lines: LinesOption = False,
    what: Annotated[str, typer.Option(metavar="NET", help="encoder, or generator: its random faces.")] = "encoder",
    overwrite: OverwriteOption = False,
) -> None:
    """Table 1 of one encoder: runtime, MSE, LPIPS, similarity, ranks; with n and 95 % intervals.

    Writes table1.txt, table1.csv, table1.png, one scores file per method and run.json. With --what generator: FID, KID,
    precision, recall and variety of random faces beside those of photos (generator.txt, generator.csv; --limit: faces).
    """
    if what not in ("encoder", "generator"):
        raise S2FError(f"there is nothing called {what!r} to evaluate: choose encoder or generator.")
    if what == "generator":
        from s2flib.evaluation.generator import report_generator

        say = partial(typer.echo, err=True)
        text, folder = report_generator(
            preset, generator, split, data, limit or 400, seed=seed, out=out, overwrite=overwrite, progress=say
        )
        typer.echo(text)
        typer.echo(f"results: {folder}")
        return
    from s2flib.evaluation.encoder_report import EncoderTest, report_table1

    test = EncoderTest(preset, weights, generator, split, data, limit, batch, seed, lines)
    log = partial(typer.echo, err=True)
    table, folder = report_table1(test, out, baselines, ceiling, ranks, overwrite, log)
    typer.echo(table.text)
    typer.echo(f"results: {folder}")


def lineup(
    out: RunDirOption = None,
    preset: PresetOption = "tiny",
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    split: SplitOption = "test",
    data: DataOption = None,
    limit: LimitOption = None,
    batch: BatchOption = 16,
    same_shot: Annotated[
        bool, typer.Option("--same-shot", help="Put the sketch's source photo in the gallery (easier; shows the leak).")
    ] = False,
    seed: ControlSeedOption = 0,
    lines: LinesOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Can the faces identify their people? rank-1/5/10 with photo against photo, a shuffled control and chance.

    Writes lineup.txt and run.json.
    """
    from s2flib.evaluation.encoder_report import EncoderTest, report_lineup

    test = EncoderTest(preset, weights, generator, split, data, limit, batch, seed, lines)
    found, folder = report_lineup(test, out, same_shot, overwrite)
    typer.echo(found.text())
    typer.echo(f"results: {folder}")


def evaluate_editor(
    pairs: PairsOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for tables and figures.")],
    pipeline: PipelineOption = None,
    judge: Annotated[Path | None, typer.Option(metavar="FILE", help="The edit judge, if not the shipped one.")] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="val or test.")] = "test",
    grid: Annotated[
        int, typer.Option(metavar="N", help="First evaluate a grid of guidance scales on N validation pairs.", min=0)
    ] = 0,
    faces: Annotated[int, typer.Option(metavar="N", help="Also generate N faces and edit them.", min=0)] = 24,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    image_guidance: ImageGuidanceOption = None,
    interval: IntervalOption = None,
    keep: Annotated[bool, typer.Option(help="Preserve the input's detail where nothing changes.")] = True,
    limit: Annotated[int | None, typer.Option(help="Use only the first pairs.", min=1)] = None,
    preset: PresetOption = "tiny",
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Evaluate edits on held-out people and phrasings: success per kind, distance to the true edit, identity, time.

    With --grid the text guidance is chosen on validation pairs and used for the rest, unless --guidance is set. The
    true edits' latents are also decoded and evaluated, which is the autoencoder's limit. Writes edits.csv, edits.png,
    phrasings.csv, grid.png, faces.png and run.json.
    """
    from s2flib.evaluation.edit_report import EditorTest, report_editor

    test = EditorTest(str(pairs), preset, pipeline, judge, split, limit, seed, steps, guidance, image_guidance,
                      interval, keep)  # fmt: skip
    report = report_editor(test, out, grid, faces, overwrite, typer.echo)
    typer.echo(report.text)
    typer.echo(f"results: {out}")
