"""Facial proportions: measured at fixed skin vertices, and held to what people have.

Sliders are drawn independently, so that some heads come out as wide boxes or as cones. ``settle`` moves a few
global sliders until the classic indices of anthropometry (Farkas, Anthropometry of the Head and Face, 1994, defines
them) lie in plausible ranges. The ranges are ours, set by eye: a choice, not the statistics of a population.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from s2flib.synthfaces.assets import Head

# where the points of anthropometry lie on the neutral head (dm), the person's left for paired ones
_POINTS = {"nasion": (0, 7.32, 1.505), "gnathion": (0, 6.155, 1.36), "vertex": (0, 8.48, 0.45),
           "glabella": (0, 7.47, 1.525), "opisthocranion": (0, 7.55, -0.39), "zygion": (0.71, 7.05, 0.70),
           "gonion": (0.54, 6.50, 0.75), "euryon": (0.745, 7.60, 0.40), "crown": (0.50, 8.22, 0.45)}
_PAIRED = ("zygion", "gonion", "euryon", "crown")


class Proportions(NamedTuple):
    """Ratios of distances on the neutral face."""

    facial: float       # nasion–gnathion over bizygomatic width
    jaw: float          # bigonial over bizygomatic width
    cephalic: float     # cranial breadth over length
    skull: float        # vertex–nasion over nasion–gnathion height
    crown: float        # breadth close to the vertex over cranial breadth: small is pointed


@lru_cache(maxsize=2)
def _landmarks(head: Head) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Landmark positions on the neutral head (13, 3), every target's offsets (T, 13, 3), and target → row."""
    places = [point for point in _POINTS.values()]
    places += [(-x, y, z) for name, (x, y, z) in _POINTS.items() if name in _PAIRED]
    rows = head.subdivide[head.nearest(np.array(places, float))]
    offsets = np.zeros((len(head.names), len(places), 3))
    for i, name in enumerate(head.names):
        index, offset = head.target(name)
        offsets[i] = rows[:, index] @ offset
    return rows @ head.vertices, offsets, {name: i for i, name in enumerate(head.names)}


def measure(head: Head, weights: dict[str, float]) -> Proportions:
    """The proportions of ``head.morph(weights)``, without morphing it."""
    points, offsets, number = _landmarks(head)
    which = [number[name] for name in weights]
    points = points + np.tensordot(np.fromiter(weights.values(), float, len(which)), offsets[which], 1)
    at = {name: points[i] for i, name in enumerate(_POINTS)}
    wide = {name: at[name][0] - points[len(_POINTS) + i][0] for i, name in enumerate(_PAIRED)}
    face = at["nasion"][1] - at["gnathion"][1]
    length = at["glabella"][2] - at["opisthocranion"][2]
    return Proportions(face / wide["zygion"], wide["gonion"] / wide["zygion"], wide["euryon"] / length,
                       (at["vertex"][1] - at["nasion"][1]) / face, wide["crown"] / wide["euryon"])


# proportion → middle of its range, half its width, and what a full slider does to it: (down, up)
_RANGE = {"facial": (0.885, 0.095), "jaw": (0.70, 0.065), "cephalic": (0.79, 0.09), "skull": (0.90, 0.11)}
_WIDENS_JAW = {"head-triangular": 0.127, "head-square": 0.089, "head-rectangular": 0.051, "head-fat": 0.103}
_POINTS_SKULL = {"head-triangular": 0.08, "head-diamond": 0.139, "head-oval": 0.057, "head-round": 0.051}
_CROWN = 0.68
_LIMIT = 0.9


def within(name: str, value: float) -> float:
    """``value`` drawn into the range of a proportion: unchanged in the middle, never beyond the ends."""
    middle, half = _RANGE[name]
    return middle + half * float(np.tanh((value - middle) / half))


def settle(head: Head, sliders: dict[str, float], weigh) -> dict[str, float]:
    """Sliders moved as little as needed for plausible proportions; ``weigh(sliders)`` → target weights."""
    out = dict(sliders)

    def move(name: str, by: float) -> float:
        """Moves a slider as far as it goes; the part of ``by`` that was possible."""
        low = 0.0 if name in _WIDENS_JAW and name != "head-fat" else -_LIMIT
        old = out[name]
        out[name] = min(max(old + by, low), _LIMIT)
        return (out[name] - old) / by if by else 1.0

    first = measure(head, weigh(out))
    excess = max(0.0, _CROWN - first.crown)
    pointed = sum(max(0.0, out[name]) * gain for name, gain in _POINTS_SKULL.items())
    if excess and pointed:
        keep = max(0.0, 1 - excess / pointed)
        out.update({name: out[name] * keep for name in _POINTS_SKULL if out[name] > 0})
    first = measure(head, weigh(out))
    wanted = {name: within(name, getattr(first, name)) for name in _RANGE}
    for _ in range(4):
        now = measure(head, weigh(out))
        narrow = wanted["facial"] - now.facial
        done = 0.45 * move("head-scale-horiz", -0.45 * narrow / 0.165)
        done += 0.45 * move("head-scale-vert", 0.45 * narrow / 0.157)
        move("chin-height", (1 - done) * narrow / (0.145 if narrow > 0 else 0.07))
        jaw = wanted["jaw"] - now.jaw
        wide = sum(max(0.0, out[name]) * gain for name, gain in _WIDENS_JAW.items())
        if jaw > 0:
            move("head-square", jaw / 0.089)
        elif wide > 0:
            keep = max(0.0, 1 + jaw / wide)
            out.update({name: out[name] * keep for name in _WIDENS_JAW if out[name] > 0})
        if jaw < -0.005:        # an oval face is narrow at the jaw; the facial index is settled again
            move("head-oval", min(-0.4 * jaw / 0.082, max(0.0, 0.45 - out["head-oval"])))
        short = wanted["cephalic"] - now.cephalic
        move("head-back-scale-depth", -0.6 * short / 0.115)
        move("head-scale-depth", -0.4 * short / 0.07)
        high = wanted["skull"] - now.skull
        move("forehead-scale-vert", high / (0.323 if out["forehead-scale-vert"] > 0 else 0.186))
    return out
