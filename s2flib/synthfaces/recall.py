"""Witness noise: the face a witness remembers, at a controlled distance from the truth.

Memory errors affect shape, build and skin tone; what people report reliably (gender, hair colour, beard, glasses)
stays. ``error`` 0 is perfect memory; at 1 nothing of the true shape is left, and the face is just another plausible
person with the same description. In between, the mixture preserves the variance of faces:
x' = μ + √(1 − e²)·(x − μ) + e·σ·n with n ~ N(0, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from s2flib.errors import S2FError
from s2flib.synthfaces.assets import load_head
from s2flib.synthfaces.identity import Identity, sample_identity, shape_sliders, slider_mean
from s2flib.synthfaces.look import sample_look
from s2flib.synthfaces.person import Person
from s2flib.synthfaces.portrait import photograph
from s2flib.synthfaces.shot import sample_shot
from s2flib.synthfaces.streams import stream

_AGE_ERROR, _TONE_ERROR, _BUILD_ERROR = 9.0, 0.8, 0.14  # standard deviations at error 1: years, tones, fraction


def recall(identity: Identity, error: float, rng: np.random.Generator) -> Identity:
    """The identity as remembered with ``error`` in [0, 1]. Error 0 returns the identity itself.

    The state of ``rng`` determines the direction of forgetting: with the same stream and a growing error, the face
    moves continuously away from the truth.
    """
    if not 0 <= error <= 1:
        raise S2FError(f"the recall error must be between 0 (perfect) and 1 (nothing remembered), not {error}.")
    if error == 0:
        return identity
    head = load_head()
    keep = float(np.sqrt(1 - error**2))
    sliders = {}
    for slider in shape_sliders(head):
        invented = float(np.clip(rng.standard_normal(), -2, 2)) * slider.spread
        mean = slider_mean(slider.name, identity.gender)
        truth = identity.sliders.get(slider.name, 0.0)
        value = mean + keep * (truth - mean) + error * invented
        sliders[slider.name] = float(np.clip(value, -1 if slider.low else 0, 1))
    age, tone, muscle, weight = rng.standard_normal(4)
    mix = (1 - 0.5 * error) * np.array(identity.ancestry) + 0.5 * error * rng.dirichlet([0.55, 0.5, 0.5])
    brow = dict(identity.brow)
    for name in brow:
        if name in ("thickness", "density"):
            brow[name] *= float(np.exp(0.2 * error * rng.standard_normal()))
    return replace(
        identity,
        sliders=sliders,
        asymmetry={k: v * keep for k, v in identity.asymmetry.items()},
        brow=brow,
        age=float(np.clip(identity.age + error * _AGE_ERROR * age, 18, 80)),
        tone=float(np.clip(identity.tone + error * _TONE_ERROR * tone, 0, 6.8)),
        muscle=float(np.clip(identity.muscle + error * _BUILD_ERROR * muscle, 0.05, 0.95)),
        weight=float(np.clip(identity.weight + error * _BUILD_ERROR * weight, 0.05, 0.95)),
        ancestry=tuple(float(x) for x in mix / mix.sum()),
    )


@dataclass(frozen=True)
class RecallCurve:
    """errors (E,); similarity (E, N) between truth and recalled face; other (N,) between truth and other people."""

    errors: np.ndarray
    similarity: np.ndarray
    other: np.ndarray


def recall_curve(
    similarity: Callable, errors=(0, 0.25, 0.5, 0.75, 1.0), n: int = 20, seed: int = 0, size: int = 128, progress=iter
) -> RecallCurve:
    """Effect of forgetting on verification: compares the true face in one shot with the recalled face in another.

    similarity(a, b): two arrays (N, H, W, 3) uint8 → (N,), e.g. an identity judge. Both faces have the same look, so
    only the face differs. ``other`` pairs each true face with the next person's.
    """
    truth, recalled = [], [[] for _ in errors]
    for i in progress(range(n)):
        person = sample_identity(seed, i)
        look = replace(sample_look(person, seed, i), glasses=None, hat=None)
        truth.append(photograph(Person(person, look), sample_shot(person, seed, i, 0), size).rgb)
        for e, out in zip(errors, recalled, strict=True):
            face = recall(person, e, stream(seed, i, "recall"))
            out.append(photograph(Person(face, look), sample_shot(person, seed, i, 1), size).rgb)
    truth = np.stack(truth)
    same = np.stack([similarity(truth, np.stack(r)) for r in recalled])
    perfect = np.stack(recalled[int(np.argmin(errors))])
    return RecallCurve(np.array(errors, float), same, similarity(truth, np.roll(perfect, 1, axis=0)))
