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
    Path | None, typer.Option("--weights", "-w", metavar="FILE", help="Another encoder for this preset.")
]
GeneratorOption = Annotated[
    Path | None,
    typer.Option("--generator", metavar="FILE", help="The generator the encoder was trained with, if another."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
MarkOption = Annotated[bool, typer.Option("--mark", help="Add a visible SYNTHETIC strip to every image.")]
MaxTimeOption = Annotated[
    str | None,
    typer.Option("--max-time", metavar="TIME", help="Stop after 90s, 15m, 1h30m or this many seconds, resumably."),
]
CpuOption = Annotated[bool, typer.Option("--cpu", help="Do not use the GPU.")]
RunDirOption = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results; default: a new runs/<time>.")
]
BaselinesOption = Annotated[bool, typer.Option(help="Also evaluate mean face and nearest sketch.")]
PRECISIONS = "auto, no, bf16 or fp16."


def seconds(text: str | None) -> float | None:
    """ "1h30m", "15m", "90s" or "90" → seconds; None stays None."""
    if text is None:
        return None
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not text.strip() or not found:
        raise S2FError(f"{text!r} is not a length of time: write 90s, 15m, 1h30m or a number of seconds.")
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + rest
