"""One random stream per component, so that changing one component leaves all others unchanged.

A stream is named by a seed and a path of words and numbers, e.g. ``stream(7, 12, "hair")``. Different paths give
independent generators; the same path always gives the same numbers, whatever else has been sampled.
"""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *path: int | str) -> np.random.Generator:
    """Random generator of the component named by ``path``; ``seed`` and numbers in the path must be ≥ 0."""
    return np.random.default_rng([_word(part) for part in (seed, *path)])


def _word(part: int | str) -> int:
    if isinstance(part, str):
        return (1 << 32) + zlib.crc32(part.encode("utf-8"))  # above 2^32: never equal to a small number
    if part < 0:
        raise ValueError(f"numbers in a stream path must be from 0 upwards, not {part}.")
    return int(part)


def choose(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """One key of ``weights``, sampled with probability proportional to its value."""
    p = np.array(list(weights.values()), float)
    return str(rng.choice(list(weights), p=p / p.sum()))
