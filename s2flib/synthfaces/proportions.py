"""Facial proportions, measured at fixed skin vertices and kept within plausible ranges.

Sliders are sampled independently, which makes some heads box-like or conical. ``settle`` adjusts a few global
sliders until the classic indices of anthropometry (defined by Farkas, Anthropometry of the Head and Face, 1994) are
in plausible ranges. These ranges were chosen by eye; they are not statistics of a population.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from s2flib.synthfaces.assets import Head

# positions of the anthropometric points on the neutral head (dm), on the person's left if paired
_POINTS = {"nasion": (0, 7.32, 1.505), "gnathion": (0, 6.155, 1.36), "vertex": (0, 8.48, 0.45),
           "glabella": (0, 7.47, 1.525), "opisthocranion": (0, 7.55, -0.39), "zygion": (0.71, 7.05, 0.70),
           "gonion": (0.54, 6.50, 0.75), "euryon": (0.745, 7.60, 0.40), "crown": (0.50, 8.22, 0.45)}  # fmt: skip
_PAIRED = ("zygion", "gonion", "euryon", "crown")


class Proportions(NamedTuple):
    """Ratios of distances on the neutral face."""

    facial: float  # nasion–gnathion height / bizygomatic width
    jaw: float  # bigonial width / bizygomatic width
    cephalic: float  # cranial breadth / length
    skull: float  # vertex–nasion height / nasion–gnathion height
    crown: float  # breadth near the vertex / cranial breadth; small means pointed


@lru_cache(maxsize=2)
def _landmarks(head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Landmark positions on the neutral head (13, 3), and the offsets of all targets (T, 13, 3)."""
    places = list(_POINTS.values()) + [(-x, y, z) for x, y, z in (_POINTS[name] for name in _PAIRED)]
    rows = head.subdivide[head.nearest(np.array(places, float))]
    offsets = np.zeros((len(head.names), len(places), 3))
    for i, name in enumerate(head.names):
        index, offset = head.target(name)
        offsets[i] = rows[:, index] @ offset
    return rows @ head.vertices, offsets


def measure(head: Head, weights: dict[str, float]) -> Proportions:
    """The proportions of ``head.morph(weights)``, without morphing it."""
    points, offsets = _landmarks(head)
    which = [head.number[name] for name in weights]
    points = points + np.tensordot(np.fromiter(weights.values(), float, len(which)), offsets[which], 1)
    at = {name: points[i] for i, name in enumerate(_POINTS)}
    wide = {name: at[name][0] - right[0] for name, right in zip(_PAIRED, points[len(_POINTS) :], strict=True)}
    face = at["nasion"][1] - at["gnathion"][1]
    length = at["glabella"][2] - at["opisthocranion"][2]
    return Proportions(
        facial=face / wide["zygion"],
        jaw=wide["gonion"] / wide["zygion"],
        cephalic=wide["euryon"] / length,
        skull=(at["vertex"][1] - at["nasion"][1]) / face,
        crown=wide["crown"] / wide["euryon"],
    )


# centre and half width of each proportion's range; effect of full sliders on the proportions jaw and crown
_RANGE = {"facial": (0.885, 0.095), "jaw": (0.70, 0.065), "cephalic": (0.79, 0.09), "skull": (0.90, 0.11)}
_WIDENS_JAW = {"head-triangular": 0.127, "head-square": 0.089, "head-rectangular": 0.051, "head-fat": 0.103}
_POINTS_SKULL = {"head-triangular": 0.08, "head-diamond": 0.139, "head-oval": 0.057, "head-round": 0.051}
_CROWN = 0.68
_LIMIT = 0.9


def _within(name: str, value: float) -> float:
    """Compresses ``value`` into the range of a proportion: unchanged at the centre, never beyond the ends."""
    middle, half = _RANGE[name]
    return middle + half * float(np.tanh((value - middle) / half))


def settle(head: Head, sliders: dict[str, float], weigh) -> dict[str, float]:
    """Moves sliders as little as needed for plausible proportions; ``weigh(sliders)`` → target weights."""
    out = dict(sliders)

    def move(name: str, by: float) -> float:
        """Moves a slider, at most to its limit; returns the fraction of ``by`` that was possible."""
        low = 0.0 if name in _WIDENS_JAW and name != "head-fat" else -_LIMIT
        old = out[name]
        out[name] = min(max(old + by, low), _LIMIT)
        return (out[name] - old) / by if by else 1.0

    def reduce(gains: dict[str, float], by: float) -> None:
        """Scales positive sliders down so that their effect on a proportion (slider · gain) shrinks by ``by``."""
        effect = sum(max(0.0, out[name]) * gain for name, gain in gains.items())
        if effect > 0:
            keep = max(0.0, 1 - by / effect)
            out.update({name: out[name] * keep for name in gains if out[name] > 0})

    reduce(_POINTS_SKULL, max(0.0, _CROWN - measure(head, weigh(out)).crown))
    first = measure(head, weigh(out))
    wanted = {name: _within(name, getattr(first, name)) for name in _RANGE}
    for _ in range(4):
        now = measure(head, weigh(out))
        narrow = wanted["facial"] - now.facial
        done = 0.45 * move("head-scale-horiz", -0.45 * narrow / 0.165)
        done += 0.45 * move("head-scale-vert", 0.45 * narrow / 0.157)
        move("chin-height", (1 - done) * narrow / (0.145 if narrow > 0 else 0.07))
        jaw = wanted["jaw"] - now.jaw
        if jaw > 0:
            move("head-square", jaw / 0.089)
        else:
            reduce(_WIDENS_JAW, -jaw)
        if jaw < -0.005:  # an oval face is narrow at the jaw; the next iteration corrects the facial index
            move("head-oval", min(-0.4 * jaw / 0.082, max(0.0, 0.45 - out["head-oval"])))
        short = wanted["cephalic"] - now.cephalic
        move("head-back-scale-depth", -0.6 * short / 0.115)
        move("head-scale-depth", -0.4 * short / 0.07)
        high = wanted["skull"] - now.skull
        move("forehead-scale-vert", high / (0.323 if out["forehead-scale-vert"] > 0 else 0.186))
    return out
