"""Instructions: at least fourteen phrasings for each kind of edit, four of them held out from training.

The phrasings are in ``assets/phrases.toml``. ``{x}`` is the value in words ("blond", "a full beard"). Held-out
phrasings use other words and word orders than the training ones, so they test understanding rather than recall.
"""

from __future__ import annotations

from pathlib import Path

from s2flib.files import read_toml

_PHRASES: dict[str, dict[str, list[str]]] = read_toml(Path(__file__).parent / "assets" / "phrases.toml")
KINDS = tuple(_PHRASES)


def templates(kind: str, held_out: bool = False) -> tuple[str, ...]:
    """The phrasings to train on, or the held-out ones."""
    return tuple(_PHRASES[kind]["held_out" if held_out else "train"])


def instruction(kind: str, words: str, number: int, held_out: bool = False) -> str:
    """Phrasing ``number`` of an edit; any integer, taken modulo the number of phrasings."""
    options = templates(kind, held_out)
    return options[number % len(options)].format(x=words)
