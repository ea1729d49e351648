"""Identities: what is the same in every photo of a person.

An identity consists of shape sliders (99, tied left/right, each in [−1, 1], plus asymmetry), gender, age, ancestry mix,
build, skin, eyes and natural hair. The priors below are design choices, not population statistics: ancestries are
balanced, and ages favour adults under 60. Models trained on these people inherit them, as the datasheet states.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from s2flib.files import read_toml
from s2flib.synthfaces import proportions
from s2flib.synthfaces.assets import Head, load_head
from s2flib.synthfaces.colours import HAIR, IRIS, linear
from s2flib.synthfaces.streams import choose, stream

ANCESTRIES = ("caucasian", "african", "asian")  # the names of MakeHuman's macro targets
_PAIRS = (("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"), ("concave", "convex"),
          ("compress", "uncompress"))  # fmt: skip
_PRIORS = read_toml(Path(__file__).parent / "assets" / "priors.toml")


class Slider(NamedTuple):
    """One shape slider: negative values blend in the ``low`` targets, positive values the ``high`` ones."""

    name: str
    low: tuple[str, ...]
    high: tuple[str, ...]
    spread: float
    sides: bool  # True: left and right are tied, with a little asymmetry


def identity_split(identity: int) -> str:
    """8:1:1 by identity: the last digit 8 is val, 9 is test, the rest train."""
    return {8: "val", 9: "test"}.get(identity % 10, "train")


@dataclass(frozen=True)
class Identity:
    """A person. Colours are linear RGB. ``seed`` selects the random streams of minor details (moles, pores)."""

    seed: int
    male: float  # 0 woman … 1 man (shape)
    age: float  # years, 18–80
    ancestry: tuple[float, float, float]  # ANCESTRIES, sums to 1
    muscle: float  # 0…1
    weight: float  # 0…1
    sliders: dict[str, float]  # name → [−1, 1]
    asymmetry: dict[str, float]  # target → weight
    tone: float  # skin, 0 palest … 7 darkest
    redness: float  # standard normal
    freckles: float  # 0 none … 1.5
    hair_color: str
    hair_rgb: tuple[float, float, float]
    eye_color: str
    iris_rgb: tuple[float, float, float]
    recede: float  # dm of receding temples
    hairline: float  # dm by which the hairline is lower than average
    brow: dict[str, float] = field(default_factory=dict)  # thickness, arch, density, lift

    @property
    def gender(self) -> str:
        return "male" if self.male >= 0.5 else "female"


@lru_cache(maxsize=2)
def shape_sliders(head: Head) -> tuple[Slider, ...]:
    """All sliders of the head, in a fixed order. A pair of targets such as nose-point-down and nose-point-up is one
    slider, named after the upper end (nose-point-up); for -decr and -incr the suffix is omitted."""
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
        if name in found or name in _PRIORS["left_out"]:
            continue
        ends = [
            [f"{category}/{side}" for side in _both_sides(t, sides) if head.has(f"{category}/{side}")]
            for t in (low, high)
        ]
        key = max((k for k in _PRIORS["spread_of"] if name.startswith(k)), key=len, default=None)
        spread = _PRIORS["spread_of"][key] if key else _PRIORS["spread"][category]
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
    """Person number ``index`` of a seed. ``male`` and ``age`` override the sampled values; everything else about the
    person stays the same, because each component has its own random stream."""
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
        seed=int(rng("details").integers(1 << 30)),
        male=1 - masculine if is_male else masculine * 0.5,
        age=years,
        ancestry=tuple(ancestry.tolist()),
        muscle=muscle,
        weight=weight,
        sliders=_sample_sliders(head, rng("shape"), is_male),
        asymmetry=_sample_asymmetry(head, rng("asymmetry")),
        tone=tone,
        redness=float(redness),
        freckles=float(max(0, freckles)) if tone < 2.8 else 0.0,
        hair_color=hair_color,
        hair_rgb=hair_rgb,
        eye_color=eye_color,
        iris_rgb=iris_rgb,
        recede=float(max(0, r.normal((years - 38) / 220, 0.05))) if is_male else 0.0,
        hairline=float(np.clip(r.normal(0.085, 0.04), -0.03, 0.16)),
        brow=_brows(rng("brows"), is_male, years),
    )

    def weigh(sliders: dict[str, float]) -> dict[str, float]:
        # at the same age for everybody, so that an older version of a person keeps the sliders
        return shape_weights(head, replace(person, age=35.0, sliders=sliders))

    return replace(person, sliders=proportions.settle(head, person.sliders, weigh))


def slider_mean(name: str, gender: str) -> float:
    """The mean of a slider's prior for a gender; 0 is MakeHuman's average."""
    return _PRIORS["mean"]["all"].get(name, 0.0) + _PRIORS["mean"][gender].get(name, 0.0)


def with_sliders(person: Identity, **sliders: float) -> Identity:
    """The same person with some sliders set (underscores stand for dashes: nose_hump=0.5)."""
    changed = {name.replace("_", "-"): value for name, value in sliders.items()}
    return replace(person, sliders={**person.sliders, **changed})


def _sample_sliders(head: Head, rng: np.random.Generator, male: bool) -> dict[str, float]:
    values = {}
    # a normal distribution clipped at two standard deviations: variety without caricature
    draws = np.clip(rng.standard_normal(len(shape_sliders(head))), -2, 2).tolist()
    for slider, draw in zip(shape_sliders(head), draws, strict=True):
        x = draw * slider.spread
        if not slider.low:  # one-sided shapes such as head-oval: mostly off
            x = max(0.0, x * 2 - slider.spread)
            if slider.name in ("head-square", "head-rectangular") and not male:
                x *= 0.3
        values[slider.name] = x + slider_mean(slider.name, "male" if male else "female")
    # plausibility: limit the norm of the whole vector (chi distribution of independent sliders)
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
    shades = (
        dict(black=0.42, darkbrown=0.42, brown=0.14, auburn=0.02)
        if dark
        else dict(
            black=0.07, darkbrown=0.2, brown=0.25, lightbrown=0.19, blond=0.16, platinum=0.02, auburn=0.06, red=0.05
        )
    )
    name, turns_grey, grey = choose(rng, shades), rng.random() < (age - 42) / 42, rng.random()
    if turns_grey:
        name = "grey" if grey < 0.65 else "white"
    return name, hair_rgb(name, rng)


def hair_rgb(name: str, rng: np.random.Generator | None = None) -> tuple[float, float, float]:
    """Linear RGB of a named hair colour, varied slightly if ``rng`` is given."""
    rgb = linear(HAIR[name])
    if rng is not None:
        # warmer or cooler, never green or pink
        tint = rng.normal(0, 0.10, 3) @ np.array([[1, 0.35, -0.4], [0.2, 0.2, 0.2], [0, 0.1, 0.3]])
        tint = tint * (name not in ("grey", "white", "black"))
        rgb = rgb * np.exp(tint + rng.normal(0, 0.12))
    return tuple(np.clip(rgb, 0.002, 0.9).tolist())


def _eyes(rng: np.random.Generator, dark: bool) -> tuple[str, tuple]:
    shades = (
        dict(darkbrown=0.62, brown=0.38)
        if dark
        else dict(darkbrown=0.14, brown=0.28, hazel=0.13, amber=0.04, green=0.11, blue=0.17, lightblue=0.06, grey=0.07)
    )
    name = choose(rng, shades)
    rgb = np.clip(linear(IRIS[name]) * np.exp(rng.normal(0, 0.1, 3)), 0.005, 0.8)
    return name, tuple(float(x) for x in rgb)


def _brows(rng: np.random.Generator, male: bool, age: float) -> dict[str, float]:
    full = 1 - 0.25 * np.clip((age - 50) / 30, 0, 1)
    return dict(
        thickness=float(rng.uniform(0.8, 1.25) * (1.0 if male else 0.6)),
        arch=float(np.clip(rng.normal(-0.1 if male else 0.5, 0.35), -0.8, 1.2)),
        density=float(rng.uniform(0.72, 1.0) * (0.97 if male else 0.9) * full),
        lift=float(rng.normal(0 if male else 0.012, 0.012)),
    )


def _three_way(what: str, x: float) -> dict[str, float]:
    return {f"min{what}": max(0.0, 1 - 2 * x), f"average{what}": 1 - abs(2 * x - 1), f"max{what}": max(0.0, 2 * x - 1)}
