"""Who a person is: what stays the same in every photo of them.

An identity is a point in slider space (99 shape sliders tied left/right, each in [−1, 1], plus asymmetry),
gender, age, ancestry mix, build, skin, eyes and natural hair. The priors below are choices, not statistics of
any population: ancestries are balanced by design, ages favour adults under 60. A model trained on these
people inherits them; the datasheet says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from s2flib.synthfaces import proportions
from s2flib.synthfaces.assets import Head, load_head
from s2flib.synthfaces.colours import HAIR, IRIS, linear
from s2flib.synthfaces.streams import choose, stream

ANCESTRIES = ("caucasian", "african", "asian")  # the names of MakeHuman's macro targets
_PAIRS = (("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"), ("concave", "convex"),
          ("compress", "uncompress"))
# shapes nobody has, or that only move the head about
_LEFT_OUT = {"head-age", "chin-jaw-drop", "neck-trans-up", "neck-trans-out", "neck-trans-forward", "head-trans-up",
             "head-trans-out", "head-trans-forward", "ear-shape-pointed", "ear-shape-square", "ear-shape-triangle",
             "mouth-trans-out", "nose-trans-out", "head-angle-out", "mouth-angles-up", "forehead-nubian",
             "neck-back-scale-depth", "measure-neck-circ", "measure-neck-height"}
# standard deviation of a category's sliders, and of single ones that are global or turn odd quickly
_SPREAD = {"head": 0.18, "ears": 0.30, "neck": 0.12, "eyes": 0.32, "mouth": 0.31, "nose": 0.33, "chin": 0.30,
           "cheek": 0.31, "forehead": 0.26, "eyebrows": 0.36}
_SPREAD_OF = {"head-scale-vert": 0.12, "head-scale-horiz": 0.12, "head-scale-depth": 0.10, "eye-trans": 0.22,
              "eye-push": 0.15, "eye-height": 0.18, "eye-epicanthus": 0.2, "nose-scale-vert": 0.25,
              "nose-scale-depth": 0.26, "nose-trans": 0.18, "nose-compression": 0.14, "nose-flaring": 0.25,
              "nose-septumangle": 0.2, "nose-volume": 0.26, "mouth-trans": 0.16, "mouth-scale-depth": 0.12,
              "chin-prognathism": 0.14, "chin-prominent": 0.22, "chin-cleft": 0.3, "ear-wing": 0.2,
              "neck-double": 0.08, "mouth-laugh-lines": 0.3, "forehead-scale-vert": 0.12, "head-fat": 0.12,
              "head-diamond": 0.12, "head-triangular": 0.10, "head-oval": 0.13, "head-round": 0.12, "head-square": 0.13}
_MEAN = {
    "all": {"eye-scale": 0.12, "mouth-scale-horiz": 0.2, "head-scale-vert": 0.10, "head-scale-horiz": -0.15,
            "head-back-scale-depth": -0.2, "head-scale-depth": -0.2, "chin-height": 0.05},
    "female": {"chin-width": -0.28, "chin-bones": -0.35, "chin-height": -0.05, "chin-prominent": -0.1,
               "cheek-bones": 0.18, "nose-scale-horiz": -0.2, "nose-scale-vert": -0.12, "nose-volume": -0.18,
               "nose-width1": -0.1, "nose-point-up": 0.1, "eye-scale": 0.14, "mouth-upperlip-volume": 0.22,
               "mouth-lowerlip-volume": 0.18, "mouth-scale-horiz": -0.03, "forehead-trans-forward": 0.06,
               "neck-scale-horiz": -0.22, "head-scale-horiz": -0.06, "eyebrows-trans-up": 0.15},
    "male": {"chin-bones": 0.08, "chin-width": 0.05, "neck-scale-horiz": 0.06},
}


class Slider(NamedTuple):
    """One shape slider: negative values blend ``low`` targets in, positive ones ``high``."""

    name: str
    low: tuple[str, ...]
    high: tuple[str, ...]
    spread: float
    sides: bool          # True: left and right are tied, with a little asymmetry


def identity_split(identity: int) -> str:
    """8:1:1 by identity: the last digit 8 is val, 9 is test, the rest train."""
    return {8: "val", 9: "test"}.get(identity % 10, "train")


@dataclass(frozen=True)
class Identity:
    """A person. Colours are linear RGB. ``seed`` names the streams of what is not worth a field (moles, pores)."""

    seed: int
    male: float                       # 0 woman … 1 man (shape)
    age: float                        # years, 18–80
    ancestry: tuple[float, float, float]   # ANCESTRIES, sums to 1
    muscle: float                     # 0…1
    weight: float                     # 0…1
    sliders: dict[str, float]         # name → [−1, 1]
    asymmetry: dict[str, float]       # target → weight
    tone: float                       # skin, 0 palest … 7 darkest
    redness: float                    # standard normal
    freckles: float                   # 0 none … 1.5
    hair_color: str
    hair_rgb: tuple[float, float, float]
    eye_color: str
    iris_rgb: tuple[float, float, float]
    recede: float                     # dm of receding temples
    hairline: float                   # dm the hairline lies lower than average
    brow: dict[str, float] = field(default_factory=dict)   # thickness, arch, density, lift

    @property
    def gender(self) -> str:
        return "male" if self.male >= 0.5 else "female"


@lru_cache(maxsize=2)
def shape_sliders(head: Head) -> tuple[Slider, ...]:
    """All sliders of the head, in a fixed order. Pairs of targets such as nose-point-down and nose-point-up are
    one slider named after the upper end (nose-point-up); pairs of -decr and -incr carry neither word."""
    found: dict[str, Slider] = {}
    for path in head.names:
        category, target = path.split("/")
        if category in ("macro", "expr", "asym") or target.startswith("r-"):
            continue
        stem, _, end = target.rpartition("-")
        pair = next((p for p in _PAIRS if end in p), None)
        low, high = (f"{stem}-{pair[0]}", f"{stem}-{pair[1]}") if pair else (None, target)
        name = stem if pair and pair[1] == "incr" else high
        sides = target.startswith("l-")
        name = name.removeprefix("l-")
        if name in found or name in _LEFT_OUT:
            continue
        ends = [[f"{category}/{side}" for side in _both_sides(t, sides) if head.has(f"{category}/{side}")]
                for t in (low, high)]
        key = max((k for k in _SPREAD_OF if name.startswith(k)), key=len, default=None)
        spread = _SPREAD_OF[key] if key else _SPREAD[category]
        found[name] = Slider(name, tuple(ends[0]), tuple(ends[1]), spread, sides)
    return tuple(found.values())


def _both_sides(target: str | None, sides: bool) -> list[str]:
    if target is None:
        return []
    return [target, "r-" + target[2:]] if sides else [target]


def shape_weights(head: Head, person: Identity) -> dict[str, float]:
    """Target → weight for ``Head.morph``: gender, age, ancestry and build (macros), sliders, asymmetry."""
    weights = dict(macro_weights(head, person))
    for slider in shape_sliders(head):
        value = min(max(person.sliders.get(slider.name, 0.0), -1.0), 1.0)
        for target in slider.high if value >= 0 else slider.low:
            weights[target] = weights.get(target, 0.0) + abs(value)
    for target, value in person.asymmetry.items():
        weights[target] = weights.get(target, 0.0) + value
    return {name: w for name, w in weights.items() if w > 1e-3}


def macro_weights(head: Head, person: Identity) -> dict[str, float]:
    """MakeHuman's multilinear macro targets: products of gender, age, ancestry, muscle and weight."""
    a = person.age
    if a < 25:
        ages = {"child": (25 - a) / 25, "young": 1 - (25 - a) / 25}
    else:
        ages = {"young": 1 - (a - 25) / 65, "old": (a - 25) / 65}
    genders = {"male": person.male, "female": 1 - person.male}
    muscles = _three_way("muscle", person.muscle)
    builds = _three_way("weight", person.weight)
    out = {}
    for gender, wg in genders.items():
        for age, wa in ages.items():
            for ancestry, we in zip(ANCESTRIES, person.ancestry, strict=True):
                out[f"macro/{ancestry}-{gender}-{age}"] = wg * wa * we
            for muscle, wm in muscles.items():
                for build, wb in builds.items():
                    out[f"macro/universal-{gender}-{age}-{muscle}-{build}"] = wg * wa * wm * wb
    return {name: w for name, w in out.items() if w > 1e-3 and head.has(name)}


def sample_identity(seed: int, index: int = 0, male: bool | None = None, age: float | None = None) -> Identity:
    """The person number ``index`` of a seed. ``male`` and ``age`` fix what is otherwise drawn; everything else
    about the person stays the same, since each component has its own stream."""
    head = load_head()

    def rng(component: str) -> np.random.Generator:
        return stream(seed, index, "identity", component)

    drawn_male = rng("gender").random() < 0.5
    is_male = bool(drawn_male if male is None else male)
    r = rng("age")
    low, high = [(18, 40), (25, 60), (50, 80)][int(np.searchsorted([0.5, 0.85], r.random()))]
    drawn_age = r.uniform(low, high)
    years = float(drawn_age if age is None else age)
    ancestry = rng("ancestry").dirichlet([0.55, 0.5, 0.5])
    r = rng("build")
    muscle = float(np.clip(r.normal(0.55 if is_male else 0.38, 0.13), 0.05, 0.95))
    weight = float(np.clip(r.normal(0.47 if is_male else 0.45, 0.16), 0.05, 0.95))
    masculine = abs(rng("masculine").normal(0, 0.07))
    tone = float(np.clip(ancestry @ np.array([1.05, 5.4, 1.9]) + rng("tone").normal(0, 0.6), 0, 6.8))
    dark = tone > 3.2 or ancestry[2] > 0.6
    hair_color, hair_rgb = _natural_hair(rng("hair"), dark, years)
    eye_color, iris_rgb = _eyes(rng("eyes"), dark)
    r = rng("skin")
    redness, freckles = r.normal(0, 1), r.normal(-0.5, 0.7)
    r = rng("hairline")
    person = Identity(
        seed=int(rng("details").integers(1 << 30)), male=1 - masculine if is_male else masculine * 0.5, age=years,
        ancestry=tuple(ancestry.tolist()), muscle=muscle, weight=weight,
        sliders=_sample_sliders(head, rng("shape"), is_male), asymmetry=_sample_asymmetry(head, rng("asymmetry")),
        tone=tone, redness=float(redness), freckles=float(max(0, freckles)) if tone < 2.8 else 0.0,
        hair_color=hair_color, hair_rgb=hair_rgb, eye_color=eye_color, iris_rgb=iris_rgb,
        recede=float(max(0, r.normal((years - 38) / 220, 0.05))) if is_male else 0.0,
        hairline=float(np.clip(r.normal(0.085, 0.04), -0.03, 0.16)), brow=_brows(rng("brows"), is_male, years),
    )

    def weigh(sliders: dict[str, float]) -> dict[str, float]:
        # at one age for all, so that an older version of a person keeps the sliders
        return shape_weights(head, replace(person, age=35.0, sliders=sliders))

    return replace(person, sliders=proportions.settle(head, person.sliders, weigh))


def slider_mean(name: str, gender: str) -> float:
    """Where a slider's prior is centred for a gender; 0 is MakeHuman's average."""
    return _MEAN["all"].get(name, 0.0) + _MEAN[gender].get(name, 0.0)


def with_sliders(person: Identity, **sliders: float) -> Identity:
    """The same person with some sliders set (underscores stand for dashes: nose_hump=0.5)."""
    changed = {name.replace("_", "-"): value for name, value in sliders.items()}
    return replace(person, sliders={**person.sliders, **changed})


def _sample_sliders(head: Head, rng: np.random.Generator, male: bool) -> dict[str, float]:
    values = {}
    # a normal cut at two standard deviations: variety without caricature
    draws = np.clip(rng.standard_normal(len(shape_sliders(head))), -2, 2).tolist()
    for slider, draw in zip(shape_sliders(head), draws, strict=True):
        x = draw * slider.spread
        if not slider.low:                       # one-sided shapes such as head-oval: mostly off
            x = max(0.0, x * 2 - slider.spread)
            if slider.name in ("head-square", "head-rectangular") and not male:
                x *= 0.3
        values[slider.name] = x + slider_mean(slider.name, "male" if male else "female")
    # plausibility: the whole vector may not lie too far out (chi distribution of independent sliders)
    spreads = [slider.spread for slider in shape_sliders(head)]
    distance = np.sqrt(np.mean((np.array(list(values.values())) / spreads) ** 2))
    shrink = min(1.0, 1.25 / distance)
    return {name: float(min(max(v * shrink, -0.9), 0.9)) for name, v in values.items()}


def _sample_asymmetry(head: Head, rng: np.random.Generator) -> dict[str, float]:
    out = {}
    for name in head.names:
        if name.startswith("asym/") and name.endswith("-l"):
            on, value = rng.random() < 0.5, rng.normal(0, 0.16)
            if on:
                out[name if value > 0 else name[:-1] + "r"] = abs(float(value))
    for slider in shape_sliders(head):
        value = abs(float(rng.normal(0, 0.04)))
        if slider.sides and slider.high:
            out[slider.high[0]] = value
    return out


def _natural_hair(rng: np.random.Generator, dark: bool, age: float) -> tuple[str, tuple]:
    shades = dict(black=0.42, darkbrown=0.42, brown=0.14, auburn=0.02) if dark else dict(
        black=0.07, darkbrown=0.2, brown=0.25, lightbrown=0.19, blond=0.16, platinum=0.02, auburn=0.06, red=0.05)
    name, turns_grey, grey = choose(rng, shades), rng.random() < (age - 42) / 42, rng.random()
    if turns_grey:
        name = "grey" if grey < 0.65 else "white"
    return name, hair_rgb(name, rng)


def hair_rgb(name: str, rng: np.random.Generator | None = None) -> tuple[float, float, float]:
    """Linear RGB of a named hair colour, a little varied if ``rng`` is given."""
    rgb = linear(HAIR[name])
    if rng is not None:
        # warmer or cooler, never green or pink
        tint = rng.normal(0, 0.10, 3) @ np.array([[1, 0.35, -0.4], [0.2, 0.2, 0.2], [0, 0.1, 0.3]])
        tint = tint * (name not in ("grey", "white", "black"))
        rgb = rgb * np.exp(tint + rng.normal(0, 0.12))
    return tuple(np.clip(rgb, 0.002, 0.9).tolist())


def _eyes(rng: np.random.Generator, dark: bool) -> tuple[str, tuple]:
    shades = dict(darkbrown=0.62, brown=0.38) if dark else dict(
        darkbrown=0.14, brown=0.28, hazel=0.13, amber=0.04, green=0.11, blue=0.17, lightblue=0.06, grey=0.07)
    name = choose(rng, shades)
    rgb = np.clip(linear(IRIS[name]) * np.exp(rng.normal(0, 0.1, 3)), 0.005, 0.8)
    return name, tuple(float(x) for x in rgb)


def _brows(rng: np.random.Generator, male: bool, age: float) -> dict[str, float]:
    full = 1 - 0.25 * np.clip((age - 50) / 30, 0, 1)
    return dict(thickness=float(rng.uniform(0.8, 1.25) * (1.0 if male else 0.6)),
                arch=float(np.clip(rng.normal(-0.1 if male else 0.5, 0.35), -0.8, 1.2)),
                density=float(rng.uniform(0.72, 1.0) * (0.97 if male else 0.9) * full),
                lift=float(rng.normal(0 if male else 0.012, 0.012)))


def _three_way(what: str, x: float) -> dict[str, float]:
    return {f"min{what}": max(0.0, 1 - 2 * x), f"average{what}": 1 - abs(2 * x - 1), f"max{what}": max(0.0, 2 * x - 1)}
