"""``s2f sweep``."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli.options import BaselinesOption, PresetOption
from s2flib.cli.train import parse_pair, training
from s2flib.errors import S2FError


def sweep(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for cells, tables and figures.")],
    preset: PresetOption = "tiny",
    lambdas: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="λ4 values, with 0 (plain pSp); also shares of the gradient (10%), of some maps (10%@0+2), and the "
            "published code's loss (published:1e9).",
        ),
    ] = "0,1,1e3,1e6,1e9",
    seeds: Annotated[str, typer.Option(metavar="LIST", help="Each is trained once per seed.")] = "0,1,2",
    steps: Annotated[int | None, typer.Option(help="Of each training; default: the preset's.", min=0)] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first test images.", min=1)] = None,
    baselines: BaselinesOption = True,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of every training's config; may be repeated."),
    ] = None,
) -> None:
    """Train and evaluate the λ4 sweep of Table 1, compared pairwise with λ4 = 0 on the same images.

    Finished cells are kept: run the same command again to continue a sweep that was stopped.
    """
    from s2flib.lambda4_sweep import sweep as run

    config_class, _ = training("encoder")
    types_of = typing.get_type_hints(config_class)
    fields_set = dict(parse_pair(pair, types_of, "encoder") for pair in more or [])
    result = run(
        preset,
        lambdas.replace(",", " ").split(),
        numbers(seeds),
        steps,
        out,
        limit=limit,
        training=fields_set,
        baselines=baselines,
    )
    typer.echo(result.summary)
    typer.echo(f"results: {result.out}")


def numbers(text: str) -> list[int]:
    """ "0, 1, 2" → [0, 1, 2]."""
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise S2FError(f"{text!r} is not a list of whole numbers: separate them with commas, as in 0,1,2.") from None
