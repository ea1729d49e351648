"""``s2f evaluate`` and ``s2f lineup``: one encoder against the baselines, the ceilings and chance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli_options import GeneratorOption, OverwriteOption, PresetOption, WeightsOption

SplitOption = Annotated[str, typer.Option(metavar="NAME", help="train, val or test.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="A data set's folder, instead of the preset's own."),
]
LimitOption = Annotated[int | None, typer.Option(help="Measure only the first pictures.", min=1)]
BatchOption = Annotated[int, typer.Option(help="Pictures at a time.", min=1)]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="Folder for the results; default: a new runs/<time>."),
]


def evaluate(
    out: OutOption = None,
    preset: PresetOption = "tiny",
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    split: SplitOption = "test",
    data: DataOption = None,
    limit: LimitOption = None,
    batch: BatchOption = 16,
    baselines: Annotated[bool, typer.Option(help="Measure mean face and nearest sketch as well.")] = True,
    ceiling: Annotated[
        int,
        typer.Option(
            metavar="STEPS",
            min=0,
            help="Also fit every photo's w+ in that many steps: the generator's ceiling. Slow; 0 leaves it out.",
        ),
    ] = 0,
    ranks: Annotated[bool, typer.Option(help="Add rank-1/5/10 in a line-up.")] = True,
    seed: Annotated[int, typer.Option(help="Of the line-up's shuffled control.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Table 1 of one encoder: runtime, MSE, LPIPS, similarity, ranks; with n and 95 % intervals.

    Writes table1.txt, table1.csv, table1.png, one scores file per method and run.json.
    """
    from s2flib import baselines as base
    from s2flib import evaluation, runs
    from s2flib.datasets import open_dataset
    from s2flib.lineup import lineup as run_lineup
    from s2flib.weights import load_psp

    config = dict(
        weights=weights,
        generator=generator,
        split=split,
        data=data,
        limit=limit,
        batch=batch,
        baselines=baselines,
        ceiling=ceiling,
        ranks=ranks,
    )
    record = runs.run_record(preset, config, seed)
    folder = _folder(out, overwrite, "table1.csv")
    device = _device()
    psp = load_psp(preset, weights, generator)
    test = open_dataset(preset, split, data, limit)
    judges = evaluation.Judges.of(preset, device)
    methods = {"pSp": evaluation.psp_predictor(psp, preset, device)}
    if baselines:
        train = open_dataset(preset, "train", data)
        methods |= {"mean face": base.mean_face(train), "nearest sketch": base.nearest_sketch(train)}
    if ceiling:
        methods["W+ optimisation (ceiling)"] = base.w_plus_optimisation(psp, preset, judges.perceptual, ceiling)
    photos = evaluation.embed_photos(test, judges.identity, preset, batch, device, progress=True)
    rows, rank_rows = {}, {}
    for name, predict in methods.items():
        typer.echo(f"measuring {name} on {len(test)} pictures", err=True)
        rows[name] = evaluation.evaluate(
            predict, test, preset, judges, batch, device=device, progress=True, photo_embeddings=photos
        )
        rows[name].save(folder / f"scores_{name.split(' (')[0].replace(' ', '_')}.npz", overwrite=overwrite)
        if ranks:
            result = run_lineup(rows[name], test, preset, judges.identity, photo_embeddings=photos, seed=seed)
            rank_rows = result.rows(name) | rank_rows if name == "pSp" else {name: result.output} | rank_rows
    table = evaluation.table1(rows, rank_rows or None, seeds=(seed,))
    table.save(folder, overwrite=overwrite)
    runs.write_json(folder / "run.json", runs.finish(record, table=table.records), overwrite=overwrite)
    typer.echo(table.text)
    typer.echo(f"results: {folder}")


def lineup(
    out: OutOption = None,
    preset: PresetOption = "tiny",
    weights: WeightsOption = None,
    generator: GeneratorOption = None,
    split: SplitOption = "test",
    data: DataOption = None,
    limit: LimitOption = None,
    batch: BatchOption = 16,
    same_shot: Annotated[
        bool,
        typer.Option("--same-shot", help="Put the very photo of the sketch into the gallery (easier; shows the leak)."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the shuffled control.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Would the faces find their people? rank-1/5/10 beside photo against photo, a shuffle and chance.

    Writes lineup.txt and run.json.
    """
    from s2flib import evaluation, runs
    from s2flib.datasets import open_dataset
    from s2flib.lineup import lineup as run_lineup
    from s2flib.weights import load_psp

    record = runs.run_record(
        preset,
        dict(
            weights=weights,
            generator=generator,
            split=split,
            data=data,
            limit=limit,
            batch=batch,
            same_shot=same_shot,
        ),
        seed,
    )
    folder = _folder(out, overwrite, "lineup.txt")
    device = _device()
    predict = evaluation.psp_predictor(load_psp(preset, weights, generator), preset, device)
    result = run_lineup(
        predict,
        open_dataset(preset, split, data, limit),
        preset,
        same_shot=same_shot,
        batch=batch,
        device=device,
        seed=seed,
        progress=True,
    )
    rates = {name: {k: rate._asdict() for k, rate in ranks.rates().items()} for name, ranks in result.rows().items()}
    runs.write_text(folder / "lineup.txt", result.text() + "\n", overwrite)
    runs.write_json(folder / "run.json", runs.finish(record, rates=rates, skipped=result.skipped), overwrite)
    typer.echo(result.text())
    typer.echo(f"results: {folder}")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _folder(out: Path | None, overwrite: bool, result: str) -> Path:
    """The results' folder; refuses at once, not after an hour, to write over earlier results."""
    from s2flib.errors import S2FError
    from s2flib.runs import new_run_dir

    if out is None:
        return new_run_dir()
    if (out / result).exists() and not overwrite:
        raise S2FError(f"{out} holds {result} already: choose another folder, or add --overwrite.")
    out.mkdir(parents=True, exist_ok=True)
    return out
