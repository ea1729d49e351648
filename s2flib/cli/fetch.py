"""``s2f fetch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fetch(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="What to download; none: list all.")] = None,
) -> None:
    """Download published weights: resumed, verified by sha256, and complete under their final name."""
    from s2flib.files import cache_dir
    from s2flib.weights.registry import REGISTRY
    from s2flib.weights.registry import fetch as fetch_one

    if not names:
        typer.echo(weights_table(REGISTRY, cache_dir()))
    for name in names or []:
        typer.echo(f"{name}: {fetch_one(name)}")


def weights_table(registry: dict, cache: Path) -> str:
    """A list of what can be downloaded, with description, licence, and whether it is in the cache."""
    lines = [f"published weights, stored in {cache}:"]
    for name, entry in registry.items():
        here = "here" if (cache / entry.file).exists() else "not fetched"
        lines.append(f"  {name:<20} {here:<12} {entry.what}\n{'':35}{entry.licence}")
    return "\n".join(lines)
