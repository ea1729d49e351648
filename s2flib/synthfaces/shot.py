"""What differs between photos of a person: expression, pose, gaze, light, background, camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from s2flib.synthfaces.identity import Identity
from s2flib.synthfaces.mesh import unit
from s2flib.synthfaces.streams import choose, stream


def _both(**units: float) -> dict[str, float]:
    """Action units of the left and right side of the face."""
    return {f"{name}{side}": value for name, value in units.items() for side in ("Left", "Right")}


# facial action units (0…1) of each expression, named like ARKit's blend shapes
EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": _both(mouthSmile=0.13),  # a resting face in front of a camera has slightly raised mouth corners
    "smile": _both(mouthSmile=0.62, cheekSquint=0.45, mouthDimple=0.15),
    "grin": _both(mouthSmile=0.75)
    | {"jawOpen": 0.13}
    | _both(mouthUpperUp=0.36, mouthLowerDown=0.12, cheekSquint=0.55, eyeSquint=0.2),
    "open": {"jawOpen": 0.16, "browInnerUp": 0.2} | _both(mouthSmile=0.12),
    "surprise": {"jawOpen": 0.24, "browInnerUp": 0.6} | _both(browOuterUp=0.5, eyeWide=0.35),
    "frown": _both(browDown=0.6, mouthFrown=0.28, mouthPress=0.25),
    "pout": {"mouthPucker": 0.38, "browInnerUp": 0.15},
    "smirk": {"mouthSmileLeft": 0.55, "cheekSquintLeft": 0.3, "browOuterUpLeft": 0.25},
}
_EXPRESSION_ODDS = dict(neutral=0.33, smile=0.33, grin=0.17, open=0.04, surprise=0.025, frown=0.025, pout=0.02,
                        smirk=0.06)  # fmt: skip
# key: strength, warmth, angular size (radians), elevation range (degrees); sky: strength; rim: probability
LIGHTS: dict[str, dict[str, Any]] = {
    "window": dict(odds=0.30, key=(1.05, 1.4), warm=0.02, size=(0.14, 0.28), high=(12, 40), sky=(0.24, 0.4), rim=0.25),
    "overcast": dict(odds=0.26, key=(0.65, 0.95), warm=0.0, size=(0.28, 0.42), high=(36, 62), sky=(0.42, 0.6), rim=0.1),
    "studio": dict(odds=0.22, key=(1.05, 1.4), warm=0.01, size=(0.10, 0.2), high=(22, 46), sky=(0.24, 0.42), rim=0.6),
    "golden": dict(odds=0.10, key=(1.1, 1.45), warm=0.14, size=(0.06, 0.12), high=(12, 28), sky=(0.26, 0.4), rim=0.5),
    "indoor": dict(odds=0.12, key=(0.85, 1.2), warm=0.08, size=(0.16, 0.28), high=(32, 56), sky=(0.3, 0.46), rim=0.2),
}


@dataclass(frozen=True)
class Light:
    """Key, ambient and rim light. Colours are the irradiance on a surface facing the source, 1 is exposed as white."""

    name: str
    key_direction: tuple[float, float, float]  # unit vector towards the light
    key_rgb: tuple[float, float, float]
    key_size: float  # radians: 0 hard … 0.5 very soft
    sky_rgb: tuple[float, float, float]  # from above
    ground_rgb: tuple[float, float, float]  # from below
    side_rgb: tuple[float, float, float]  # fill light from the side opposite to the key light
    rim_rgb: tuple[float, float, float]  # from behind
    rim_side: float  # −1 right, 1 left


@dataclass(frozen=True)
class Shot:
    expression: str
    action: dict[str, float]  # facial action unit → 0…1
    yaw: float  # radians, positive turns the face to the right of the picture
    pitch: float  # radians, positive looks up
    roll: float  # radians
    gaze: tuple[float, float]  # radians, relative to the head
    distance: float  # camera to face, dm
    light: Light
    background: int  # seed of the background scene
    grain: int  # seed of the sensor noise
    exposure: float  # factor
    warmth: float  # white balance, log scale


def sample_shot(person: Identity, seed: int, index: int = 0, number: int = 0) -> Shot:
    """Photo ``number`` of a person; expression, pose, light, background and camera have separate random streams."""

    def rng(part: str) -> np.random.Generator:
        return stream(seed, index, "shot", number, part)

    r = rng("expression")
    name = choose(r, _EXPRESSION_ODDS)
    blink = max(0.0, r.normal(0.11, 0.06))
    action = sample_action(name, r) | _both(eyeBlink=blink)
    r = rng("pose")
    yaw, pitch, roll = np.clip(r.normal(0, 10), -26, 26), np.clip(r.normal(0, 4.5), -11, 11), r.normal(0, 3.5)
    dx, dy = r.normal(0, [5, 3])
    at_camera = r.random() < 0.7
    gaze = (-yaw, -pitch) if at_camera else (-yaw * 0.5 + dx, -pitch * 0.5 + dy)
    r = rng("camera")
    # slightly more exposure for darker skin, like cameras and photographers
    meter = np.exp(0.055 * (person.tone - 2))
    yaw, pitch, roll, *gaze = np.radians([yaw, pitch, roll, *gaze]).tolist()
    return Shot(
        expression=name,
        action=action,
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        gaze=tuple(gaze),
        distance=float(r.uniform(15, 28)),
        exposure=float(meter * np.exp(r.normal(0, 0.09))),
        warmth=float(r.normal(-0.01, 0.035)),
        light=sample_light(rng("light")),
        background=int(rng("background").integers(1 << 30)),
        grain=int(rng("grain").integers(1 << 30)),
    )


def sample_action(name: str, r: np.random.Generator) -> dict[str, float]:
    """Action units of a named expression, with slightly varied strength."""
    strength = r.uniform(0.65, 1.2)
    return {action: float(np.clip(v * strength, 0, 1)) for action, v in EXPRESSIONS[name].items()}


def sample_light(r: np.random.Generator, name: str | None = None) -> Light:
    """A random light, of the given kind if there is one."""
    sampled = choose(r, {k: v["odds"] for k, v in LIGHTS.items()})
    name = name or sampled
    kind = LIGHTS[name]
    side = r.choice([-1.0, 1.0])
    azimuth, height = np.radians(side * r.uniform(12, 58)), np.radians(r.uniform(*kind["high"]))
    direction = unit(np.array([np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)]))
    warm = kind["warm"] + r.normal(0, 0.03)
    key = r.uniform(*kind["key"]) * np.exp(warm * np.array([1, 0.1, -1.3]))
    sky = r.uniform(*kind["sky"]) * np.exp((-0.35 * warm + r.normal(0, 0.025)) * np.array([1, 0.1, -1.2]))
    ground = sky * r.uniform(0.45, 0.8) * np.exp(r.normal(0.03, 0.03) * np.array([1, 0, -1]))
    fill = sky * r.uniform(0.65, 1.05) * np.exp(r.normal(0, 0.03, 3))
    rim = float(r.random() < kind["rim"]) * r.uniform(0.25, 0.8) * np.exp(r.normal(0.03, 0.05) * np.array([1, 0, -1]))
    size, rim_side = float(r.uniform(*kind["size"])), float(r.choice([-1, 1]))
    direction, key, sky, ground, fill, rim = (tuple(v.tolist()) for v in (direction, key, sky, ground, fill, rim))
    return Light(name, direction, key, size, sky, ground, fill, rim, rim_side)
