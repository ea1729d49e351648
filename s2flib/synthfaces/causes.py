"""Causes: everything that the renderer knows of a photo, as one vector.

A SynthFaces photo is a function of its person, look and shot. ``causes`` lists them: shape sliders, build, colours,
hair style, beard, glasses, hat, clothes, expression, pose, light, and the background as 8 × 8 colours. It leaves out
what has a random stream of its own and no parameter (single strands of hair, moles, grain).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from s2flib.synthfaces.assets import load_head
from s2flib.synthfaces.background import background
from s2flib.synthfaces.colours import HAIR, linear
from s2flib.synthfaces.identity import Identity, sample_identity, shape_sliders
from s2flib.synthfaces.look import BEARDS, GLASSES, HAIR_STYLES, HATS, Look, restyle, sample_look
from s2flib.synthfaces.shot import EXPRESSIONS, Shot, sample_shot

BACKGROUND = 8  # the background's side in the vector, pixels
_ACTIONS = sorted({unit for action in EXPRESSIONS.values() for unit in action} | {"eyeBlinkLeft"})


def causes(seed: int, identity: int, shot: int = 0) -> np.ndarray:
    """The causes of photo ``shot`` of person ``identity`` of a seed: (N_CAUSES,) float32, about 2 ms.

    Colours are logarithms of linear RGB, names are one-hot, angles are radians, all other units are the renderer's.
    """
    return np.array(list(named_causes(seed, identity, shot).values()), np.float32)


def named_causes(seed: int, identity: int, shot: int = 0) -> dict[str, float]:
    """:func:`causes` as a dict, in the same order."""
    person = sample_identity(seed, identity)
    look = sample_look(person, seed, identity)
    if shot:
        look = restyle(look, person, seed, identity, day=shot)
    scene = sample_shot(person, seed, identity, shot)
    return _of_person(person) | _of_look(look, person) | _of_shot(scene)


@lru_cache(maxsize=1)
def cause_names() -> tuple[str, ...]:
    """The names of the vector's entries."""
    return tuple(named_causes(0, 0))


def _of_person(p: Identity) -> dict[str, float]:
    head = load_head()
    out = {"male": p.male, "age": p.age, "muscle": p.muscle, "weight": p.weight}
    out |= {f"ancestry {k}": share for k, share in enumerate(p.ancestry)}
    out |= {"skin tone": p.tone, "redness": p.redness, "freckles": p.freckles}
    out |= _colour("hair", p.hair_rgb) | _colour("iris", p.iris_rgb)
    out |= {"receding": p.recede, "hairline": p.hairline} | {f"brow {k}": p.brow[k] for k in sorted(p.brow)}
    out |= {f"shape {s.name}": p.sliders.get(s.name, 0.0) for s in shape_sliders(head)}
    sides = sorted({n[:-2] for n in head.names if n.startswith("asym/")})
    return out | {n: p.asymmetry.get(f"{n}-l", 0.0) - p.asymmetry.get(f"{n}-r", 0.0) for n in sides}


def _of_look(look: Look, person: Identity) -> dict[str, float]:
    glasses, hat, clothes = look.glasses, look.hat, look.clothes
    out = _one_hot("style", look.style, HAIR_STYLES) | {"part": look.part, "length": look.length}
    out |= _one_hot("beard", look.beard, BEARDS) | {"makeup": look.makeup} | _colour("lips", look.lip_rgb)
    out |= {"earrings": look.earrings, "necklace": look.necklace}
    out |= _colour("dye", linear(HAIR[look.dye]) if look.dye else person.hair_rgb)
    out |= {"glasses": glasses is not None} | _one_hot("glasses", glasses and glasses.kind, GLASSES)
    # differences from a typical frame and hat, so that "none" is 0 in every entry
    frame = _colour("frame", glasses.rgb if glasses else (0.05,) * 3, origin=0.05)
    out |= frame | {
        "frame thickness": glasses.thickness * 20 if glasses else 0.0,
        "frame width": glasses.width - 0.25 if glasses else 0.0,
        "frame height": glasses.height - 0.18 if glasses else 0.0,
        "sunglasses": bool(glasses and glasses.sun),
    }
    out |= {"hat": hat is not None} | _one_hot("hat", hat and hat.kind, HATS)
    out |= _colour("hat", hat.rgb if hat else (0.14,) * 3, origin=0.14) | {"hat tilt": hat.tilt if hat else 0.0}
    out |= _colour("clothes", clothes.rgb) | _colour("second", clothes.second_rgb)
    out |= _one_hot("clothes", clothes.pattern, ("stripes", "knit"))
    return out | {f"neckline {k}": getattr(clothes, k) for k in ("height", "depth", "width", "collar")}


def _of_shot(shot: Shot) -> dict[str, float]:
    light = shot.light
    out = {f"action {a}": shot.action.get(a, 0.0) for a in _ACTIONS}
    out |= {k: getattr(shot, k) for k in ("yaw", "pitch", "roll", "distance", "exposure", "warmth")}
    out |= {"gaze x": shot.gaze[0], "gaze y": shot.gaze[1], "key size": light.key_size}
    out |= {f"key {axis}": v for axis, v in zip("xyz", light.key_direction, strict=True)}
    for name in ("key", "sky", "ground", "side"):
        out |= _colour(name, getattr(light, f"{name}_rgb"))
    out |= _colour("rim", light.rim_rgb, floor=0.05) | {"rim side": light.rim_side * (sum(light.rim_rgb) > 0)}
    pixels = background(shot.background, light, BACKGROUND).reshape(-1, 3)
    for k, rgb in enumerate(pixels):
        out |= _colour(f"background {k}", rgb, floor=0.02)
    return out


def _colour(name: str, rgb, origin: float = 1.0, floor: float = 1e-3) -> dict[str, float]:
    """Linear RGB as three logarithms, relative to ``origin``; below ``floor`` everything counts as black."""
    return {f"{name} {c}": float(np.log(max(v, floor) / origin)) for c, v in zip("rgb", rgb, strict=True)}


def _one_hot(name: str, value: str | None, names: tuple[str, ...]) -> dict[str, float]:
    return {f"{name}={n}": float(value == n) for n in names}
