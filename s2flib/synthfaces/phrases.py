"""Instructions in words: at least fourteen phrasings for each kind of edit, four of them held out from training.

The phrasings are in ``assets/phrases.toml``. ``{x}`` is the value in words ("blond", "a full beard"). Held-out phrasings
use words and word orders that the training ones do not, so that a model is tested on understanding, not on recall.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

_PHRASES: dict[str, dict[str, list[str]]] = tomllib.loads(
    (Path(__file__).parent / "assets" / "phrases.toml").read_text(encoding="utf-8")
)
KINDS = tuple(_PHRASES)


def templates(kind: str, held_out: bool = False) -> tuple[str, ...]:
    """The phrasings to train on, or the held-out ones."""
    return tuple(_PHRASES[kind]["held_out" if held_out else "train"])


def instruction(kind: str, words: str, number: int, held_out: bool = False) -> str:
    """Phrasing ``number`` of an edit; any integer, modulo the number of phrasings."""
    options = templates(kind, held_out)
    return options[number % len(options)].format(x=words)
