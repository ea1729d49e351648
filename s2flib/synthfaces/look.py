"""A person's appearance on a given day: hair style, beard, make-up, glasses, hat, jewellery, clothes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from s2flib.synthfaces.colours import linear, to_linear
from s2flib.synthfaces.identity import Identity
from s2flib.synthfaces.streams import choose, stream

HAIR_STYLES = ("buzz", "short", "sidepart", "slick", "curly", "afro", "bald", "bangs", "medium", "bob", "long",
               "longwavy", "bangs_long", "ponytail")  # fmt: skip
BEARDS = ("none", "stubble", "short", "goatee", "mustache", "full")
GLASSES = ("round", "rect", "oval")
HATS = ("beanie", "cap", "brim")
_MEN = dict(buzz=0.14, short=0.27, sidepart=0.21, slick=0.09, curly=0.09, afro=0.03, bald=0.07, bangs=0.06, medium=0.04)
_WOMEN = dict(long=0.22, longwavy=0.22, bob=0.15, bangs_long=0.13, ponytail=0.09, curly=0.05, slick=0.02, afro=0.02,
              short=0.03, medium=0.05, sidepart=0.02)  # fmt: skip
_ELDERLY_WOMEN = dict(bob=0.3, short=0.22, medium=0.16, curly=0.12, long=0.07, longwavy=0.08, ponytail=0.05)
_CLOTH = "1c1c1f 23293a 3a3f47 6d7176 d9d6cf efece6 5b4636 47523f 6a2f33 2f4a5e 8a8f9a a98f72".split()
# fields that change together on another day, and how often they do
_CHANGES = {("style", "seed", "part", "length"): 0.2, ("beard",): 0.2, ("glasses",): 0.12, ("makeup", "lip_rgb"): 0.5,
            ("hat",): 0.5}  # fmt: skip


@dataclass(frozen=True)
class Glasses:
    kind: str  # one of GLASSES
    rgb: tuple[float, float, float]
    thickness: float  # dm
    width: float  # half the width of a lens, dm
    height: float  # half the height of a lens, dm
    sun: bool


@dataclass(frozen=True)
class Hat:
    kind: str  # one of HATS
    rgb: tuple[float, float, float]
    tilt: float  # backwards, radians


@dataclass(frozen=True)
class Clothes:
    rgb: tuple[float, float, float]
    second_rgb: tuple[float, float, float]
    pattern: str  # "plain" | "stripes" | "knit"
    height: float  # of the neckline, dm
    depth: float  # of the dip at the front, dm
    width: float  # of the dip, dm
    collar: bool  # shirt collar


@dataclass(frozen=True)
class Look:
    seed: int  # of the strands: another seed gives another arrangement of the same style
    style: str  # one of HAIR_STYLES
    part: float  # position of the parting, dm from the middle
    length: float  # factor on the style's length
    beard: str  # one of BEARDS
    makeup: float  # 0 none … 1 evening
    lip_rgb: tuple[float, float, float]
    earrings: float  # radius in dm, 0 for none
    necklace: bool
    metal_rgb: tuple[float, float, float]
    glasses: Glasses | None
    hat: Hat | None
    clothes: Clothes
    dye: str | None = None  # key of colours.HAIR for dyed hair; brows and beard keep their colour


def sample_look(person: Identity, seed: int, index: int = 0, day: int = 0) -> Look:
    """The person's look on a given day; each part has its own random stream."""

    def rng(part: str) -> np.random.Generator:
        return stream(seed, index, "look", day, part)

    male = person.gender == "male"
    r = rng("hair style")
    styles = _MEN if male else _WOMEN
    if male and person.age > 60:
        styles = {**styles, "bald": 0.15, "slick": 0.15, "bangs": 0.01}
    if not male and person.age > 58:
        styles = _ELDERLY_WOMEN
    style, coily = choose(r, styles), r.random()
    if person.ancestry[1] > 0.6 and coily < 0.5:
        style = choose(r, dict(afro=0.34, buzz=0.38, curly=0.28) if male else dict(afro=0.3, curly=0.4, longwavy=0.3))
    off_centre = r.random() < 0.75
    part = float(r.choice([-1, 1]) * r.uniform(0.1, 0.36)) if off_centre else 0.0
    beards = dict(none=0.46, stubble=0.22, short=0.12, goatee=0.08, mustache=0.04, full=0.08)
    beard = choose(rng("beard"), beards)
    r = rng("makeup")
    wears = r.random() < (0.55 if person.age < 60 else 0.35)
    makeup = float(r.uniform(0.25, 1))
    lip = linear(("a8474b", "96323f", "b8656a", "8a3b4b", "ad5349")[r.integers(5)])
    r = rng("jewellery")
    earrings = float(r.uniform(0.022, 0.04)) if r.random() < 0.3 else 0.0
    necklace = bool(r.random() < 0.18)
    metal = linear(("c9a04a", "b8b8bc", "e6dfd2", "c08a5a")[r.integers(4)])
    r = rng("glasses")
    wears_glasses, glasses = r.random() < (0.15 if person.age < 50 else 0.28), sample_glasses(r)
    r = rng("hat")
    wears_hat, hat = r.random() < 0.045, sample_hat(r)
    return Look(
        seed=int(rng("groom").integers(1 << 30)),
        style=style,
        part=part,
        length=float(np.exp(rng("length").normal(0, 0.14))),
        beard=beard if male and person.age > 19 else "none",
        makeup=makeup if wears and not male else 0.0,
        lip_rgb=_tuple(lip),
        earrings=0.0 if male else earrings,
        necklace=necklace and not male,
        metal_rgb=_tuple(metal),
        glasses=glasses if wears_glasses else None,
        hat=hat if wears_hat else None,
        clothes=sample_clothes(rng("clothes")),
    )


def sample_glasses(r: np.random.Generator, sun: bool | None = None) -> Glasses:
    """Random glasses; ``sun`` decides whether they are sunglasses."""
    kind = GLASSES[r.integers(len(GLASSES))]
    rgb = linear(("171412", "2e2019", "5c5c60", "80693c", "1b2233", "5f2626")[r.integers(6)])
    size = [float(r.uniform(*limits)) for limits in ((0.012, 0.026), (0.225, 0.27), (0.155, 0.205))]
    tinted = bool(r.random() < 0.14)
    return Glasses(kind, _tuple(rgb), *size, sun=tinted if sun is None else sun)


def sample_hat(r: np.random.Generator, kind: str | None = None) -> Hat:
    """A random hat, of the given kind if there is one."""
    sampled = HATS[r.integers(len(HATS))]
    return Hat(kind or sampled, _cloth_colour(r), float(r.normal(0.08, 0.04)))


def sample_clothes(r: np.random.Generator) -> Clothes:
    first, second = _cloth_colour(r), _cloth_colour(r)
    pattern = choose(r, dict(plain=0.62, stripes=0.14, knit=0.24))
    collar = bool(r.random() < 0.3)
    height = float(r.uniform(5.86, 6.02))
    depth, width = float(r.choice([0.02, 0.08, 0.3, 0.5])), float(r.uniform(0.14, 0.32))
    if collar:
        height, depth, width = 6.0, 0.42, 0.16
    return Clothes(first, second, pattern, height, depth, width, collar)


def restyle(look: Look, person: Identity, seed: int, index: int, day: int) -> Look:
    """The look on another day: new clothes and jewellery, possibly other hair, glasses, hat, make-up or beard."""
    fresh = sample_look(person, seed, index, day)
    glasses = None if look.glasses else sample_glasses(stream(seed, index, "look", day, "new glasses"))
    fresh = replace(fresh, glasses=glasses)
    changed = ["clothes", "earrings", "necklace", "metal_rgb"]
    for names, u in zip(_CHANGES, stream(seed, index, "look", day, "what changes").random(5), strict=True):
        if u < _CHANGES[names]:
            changed += names
    return replace(look, **{name: getattr(fresh, name) for name in changed})


def _cloth_colour(r: np.random.Generator) -> tuple[float, float, float]:
    """Mostly muted: black, navy, grey, white, earth tones; sometimes a bright colour."""
    rgb = to_linear(r.uniform(0.1, 0.85, 3)) if r.random() < 0.22 else linear(_CLOTH[r.integers(len(_CLOTH))])
    return _tuple(np.clip(rgb * np.exp(r.normal(0, 0.12, 3)), 0.006, 0.85))


def _tuple(rgb: np.ndarray) -> tuple[float, float, float]:
    return tuple(rgb.tolist())
