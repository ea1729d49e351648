"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from s2flib.errors import S2FError
from s2flib.presets import PRESETS

PresetOption = Annotated[str, typer.Option("--preset", "-p", metavar="NAME", help=f"One of {', '.join(PRESETS)}.")]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", "-w", metavar="FILE", help="An encoder of this preset, instead of the preset's own."),
]
GeneratorOption = Annotated[
    Path | None,
    typer.Option(
        "--generator",
        metavar="FILE",
        help="The generator that encoder was trained with, if not the preset's own.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")]
MaxTimeOption = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="TIME",
        help="Stop after this long, with a checkpoint: 90s, 15m, 1h30m, or seconds.",
    ),
]


def seconds(text: str | None) -> float | None:
    """ "1h30m", "15m", "90s" or "90" → seconds; None stays None."""
    if text is None:
        return None
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not text.strip() or not found:
        raise S2FError(f"{text!r} is no length of time: write 90s, 15m, 1h30m or a number of seconds.")
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + rest
