"""One random stream per component, so that changing one thing leaves everything else as it was.

A stream is named by a seed and a path of words and numbers, e.g. ``stream(7, 12, "hair")``. Two different
paths give independent generators; the same path gives the same numbers whatever else has been drawn.
"""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *path: int | str) -> np.random.Generator:
    """Generator of the component named by ``path``; ``seed`` and numbers in the path must be ≥ 0."""
    words = [_word(seed)] + [_word(part) for part in path]
    return np.random.default_rng(np.random.SeedSequence(words))


def _word(part: int | str) -> int:
    if isinstance(part, str):
        return (1 << 32) + zlib.crc32(part.encode("utf-8"))  # above 2^32: never equal to a small number
    if part < 0:
        raise ValueError(f"stream paths take numbers from 0 upwards, not {part}.")
    return int(part)


def choose(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """One key of ``weights``, drawn with probability proportional to its value."""
    names = list(weights)
    p = np.array([weights[n] for n in names], float)
    return names[int(np.searchsorted(np.cumsum(p / p.sum()), rng.random() * (1 - 1e-12)))]
