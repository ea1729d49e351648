"""How much a drawing reveals about its source photo: a probe for the paper's "information leak".

A sketch computed from a photo contains its shading: a network can read skin tone and light from it, which no forensic
artist would draw. The probe is the simplest possible reader, ridge regression from 32 × 32 pixels: the drawing reveals
at least what this probe can predict for people it has never seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import cv2
import numpy as np

from s2flib.evaluation.intervals import Interval, bootstrap_mean
from s2flib.sketch import sketch
from s2flib.synthfaces.colours import HAIR
from s2flib.synthfaces.identity import sample_identity
from s2flib.synthfaces.shot import sample_shot

TARGETS = ("skin tone", "hair lightness", "light from the side")
PICTURES = ("photo", "pencil sketch", "line drawing")
STRENGTHS = (10.0, 100.0, 1_000.0, 10_000.0, 100_000.0)


def ridge_guess(x: np.ndarray, y: np.ndarray, new: np.ndarray, strength: float = 300.0) -> np.ndarray:
    """Ridge regression (in two lines, without scikit-learn): x (N, D), y (N,) → predictions (M,) for new (M, D).

    Minimises ‖y − Xb‖² + strength · ‖b‖², with X centred and divided by its overall standard deviation.
    """
    mean, scale = x.mean(0), x.std() + 1e-6
    a, b = (x - mean) / scale, (new - mean) / scale
    return b @ np.linalg.solve(a.T @ a + strength * np.eye(a.shape[1]), a.T @ (y - y.mean())) + y.mean()


def best_strength(x: np.ndarray, y: np.ndarray, people: np.ndarray) -> float:
    """The one of STRENGTHS that predicts y (N,) best for every fifth person of the training data, fitted to the others.

    With too weak a ridge, the probe learns the training people by heart and finds less than a drawing reveals.
    """
    held = np.isin(people, np.unique(people)[::5])
    errors = [np.square(ridge_guess(x[~held], y[~held], x[held], s) - y[held]).mean() for s in STRENGTHS]
    return STRENGTHS[int(np.argmin(errors))]


def r_squared(y: np.ndarray, guess: np.ndarray, people: np.ndarray) -> Interval:
    """Share of the variance of y (N,) that the predictions explain; 0: as good as the mean, below 0: worse.

    The 95 % interval resamples people (N,) and treats the variance of y as known.
    """
    unexplained = bootstrap_mean((y - guess) ** 2 / y.var(), people)
    return unexplained._replace(value=1 - unexplained.value, low=1 - unexplained.high, high=1 - unexplained.low)


def leak_targets(dataset) -> dict[str, np.ndarray]:
    """What drawings should not reveal, for each photo of a rendered data set (SynthFaces with render.json).

    Skin tone, 0 … 7; hair lightness, the Rec. 709 luma of the hair colour in sRGB, 0 … 1 (NaN: bald); light from the
    side, the x component of the unit vector towards the key light, −1 … 1.
    """
    seed = json.loads((dataset.root / "render.json").read_text(encoding="utf-8"))["seed"]
    luma = {
        k: float(np.dot([int(v[i : i + 2], 16) / 255 for i in (0, 2, 4)], (0.2126, 0.7152, 0.0722)))
        for k, v in HAIR.items()
    }
    side, people = [], {}
    for name in dataset.names:
        identity, shot = map(int, name.split("_"))
        if identity not in people:
            people[identity] = sample_identity(seed, identity)
        side.append(sample_shot(people[identity], seed, identity, shot).light.key_direction[0])
    rows = dataset.attributes
    return {
        "skin tone": np.array([r["skin_tone"] for r in rows], float),
        "hair lightness": np.array([luma.get(r["hair_color"], np.nan) for r in rows]),
        "light from the side": np.array(side),
    }


def leak_pictures(dataset, progress: Callable[[Iterable], Iterable] = iter) -> dict[str, np.ndarray]:
    """The three PICTURES of each photo as (N, 1024) values in [0, 1]: 32 × 32 px, grey."""
    out: dict[str, list] = {name: [] for name in PICTURES}
    for i in progress(range(len(dataset))):
        photo, mask = dataset.read(i)
        for name, picture in zip(
            PICTURES, (cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), sketch(photo, mask), dataset.drawing(i)), strict=True
        ):
            out[name].append(cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA).ravel() / 255)
    return {name: np.stack(rows) for name, rows in out.items()}


def measure_leaks(train, test, progress: Callable[[Iterable], Iterable] = iter) -> dict[tuple[str, str], Interval]:
    """{(target, picture): R² on the test people with a 95 % interval, resampling people}."""
    x, new = leak_pictures(train, progress), leak_pictures(test, progress)
    y, truth = leak_targets(train), leak_targets(test)
    out = {}
    for target in TARGETS:
        known, judged = np.isfinite(y[target]), np.isfinite(truth[target])
        for picture in PICTURES:
            seen = x[picture][known], y[target][known]
            guess = ridge_guess(*seen, new[picture][judged], best_strength(*seen, train.identities[known]))
            out[target, picture] = r_squared(truth[target][judged], guess, test.identities[judged])
    return out
