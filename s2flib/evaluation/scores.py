"""One method's results on the test images, and tests of whether two methods differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from s2flib.errors import DataError, S2FError
from s2flib.evaluation.intervals import Interval, Runtime, bootstrap_mean, runtime, t_interval
from s2flib.files import atomic_path

TABLE1 = ("mse", "lpips", "similarity")  # the paper's columns, beside the runtime
COLUMNS = (*TABLE1, "face_mse")
RANKS = ("rank1", "rank10")  # of the line-up
BETTER = {
    "mse": "lower",
    "face_mse": "lower",
    "lpips": "lower",
    "similarity": "higher",
    "rank1": "higher",
    "rank10": "higher",
}


@dataclass
class Scores:
    """One method's results, one entry per test image, in the data set's order.

    runtime_s (N,) seconds per image; mse (N,) mean over pixels and channels of the squared difference in
    [−1, 1] units; face_mse (N,) the same inside the face (evaluate.FACE_LABELS); lpips (N,) the perceptual judge;
    similarity (N,) cosine of the measuring network's embeddings of output and photo; identity (N,) int; name (N,)
    strings; embedding (N,d) of the outputs, for line-ups.
    """

    runtime_s: np.ndarray
    mse: np.ndarray
    face_mse: np.ndarray
    lpips: np.ndarray
    similarity: np.ndarray
    identity: np.ndarray
    name: np.ndarray
    preset: str
    perceptual: str  # the judges' labels
    identifier: str
    embedding: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def __len__(self) -> int:
        return len(self.name)

    def summary(self) -> dict[str, Interval | Runtime]:
        """{"runtime_s": Runtime}, and an Interval for each of COLUMNS."""
        return {
            "runtime_s": runtime(self.runtime_s),
            **{column: bootstrap_mean(getattr(self, column), self.identity) for column in COLUMNS},
        }

    def subset(self, names: Sequence[str] | np.ndarray) -> Scores:
        """The entries of these images, in this order; DataError when one is missing."""
        place = {name: i for i, name in enumerate(self.name)}
        if not all(name in place for name in names):
            raise DataError("the two results are of different test images: evaluate both on the same split.")
        keep = [place[name] for name in names]
        taken: dict[str, Any] = {
            k: v[keep] if isinstance(v, np.ndarray) and len(v) == len(self) else v for k, v in vars(self).items()
        }
        return Scores(**taken)

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write as .npz, atomically."""
        path = Path(path)
        if path.exists() and not overwrite:
            raise S2FError(f"{path} exists already: choose another name or allow overwriting.")
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            arrays: dict[str, Any] = {k: np.asarray(v) for k, v in vars(self).items()}
            np.savez_compressed(file, **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read a file written by :meth:`save`; DataError when it is damaged, incomplete or inconsistent."""
        try:
            with np.load(path, allow_pickle=False) as file:
                fields = {k: file[k] for k in cls.__dataclass_fields__}
        except Exception as error:  # zipfile, zlib and numpy have their own exceptions
            raise DataError(f"{path} is damaged or not a scores file: delete it and evaluate again.") from error
        for k in ("preset", "perceptual", "identifier"):
            fields[k] = str(fields[k])
        lengths = {len(fields[k]) for k in ("runtime_s", *COLUMNS, "identity", "name")}
        if len(lengths) != 1 or not all(np.isfinite(fields[k]).all() for k in COLUMNS):
            raise DataError(f"{path} has columns of unequal length or non-finite values: delete it and evaluate again.")
        return cls(**fields)


def average(scores: Sequence[Scores]) -> Scores:
    """Scores of the same test images over several seeds → per-image means (runtimes: all of them pooled)."""
    first = scores[0]
    for other in scores[1:]:
        same_images(first, other)
    means = {c: np.mean([getattr(s, c) for s in scores], axis=0) for c in COLUMNS}
    seconds = np.median([s.runtime_s for s in scores], axis=0)
    return Scores(
        seconds,
        **means,
        identity=first.identity,
        name=first.name,
        preset=first.preset,
        perceptual=first.perceptual,
        identifier=first.identifier,
    )


def same_images(a: Scores, b: Scores) -> None:
    if len(a) != len(b) or (a.name != b.name).any():
        raise DataError("the two results are of different test images: evaluate both on the same split and limit.")
    if (a.perceptual, a.identifier, a.preset) != (b.perceptual, b.identifier, b.preset):
        raise DataError("the two results use different judges or presets: evaluate both with the same preset.")


@dataclass(frozen=True)
class Comparison:
    """b − a on one column: mean, 95 % interval over people, per-seed means, interval over seeds, verdict."""

    column: str
    heading: str  # the column's name in tables
    difference: Interval
    per_seed: tuple[float, ...]
    seed_interval: tuple[float, float]
    verdict: str

    @property
    def outcome(self) -> str:
        """What both intervals show: "better", "worse", or "open" where one of them includes zero."""
        return outcome(self.column, self.difference, self.seed_interval)


def compare_paired(
    a: Scores | Sequence[Scores],
    b: Scores | Sequence[Scores],
    column: str = "mse",
    name: str = "b",
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Does b differ from a? Both are one Scores per seed, seed by seed, on the same test images.

    For each image the difference b − a is averaged over the seeds; its mean is the effect. There are two sources of
    variation, each with its own 95 % interval:

    * *test people*: the identities are bootstrapped (``difference``), for fixed trainings;
    * *training runs*: Student's t over the seeds' mean differences (``seed_interval``; wide for few seeds; NaN with one
      seed). Two trainings that differ only in their seed also differ on the test people, so the first interval alone
      would report chance as an effect.

    The verdict calls a difference real only when both intervals exclude zero. It is a single comparison: one in twenty
    is significant by chance.
    """
    a, b = ([s] if isinstance(s, Scores) else list(s) for s in (a, b))
    if len(a) != len(b) or not a:
        raise DataError(f"{len(a)} runs are compared with {len(b)}: use the same seeds on both sides.")
    if column not in COLUMNS:
        raise S2FError(f"unknown column {column!r}: choose one of {', '.join(COLUMNS)}.")
    for x in (*a[1:], *b):
        same_images(a[0], x)
    delta = np.stack([getattr(y, column) - getattr(x, column) for x, y in zip(a, b, strict=True)])  # (S,N)
    return compare_values(delta, a[0].identity, column, heading(column, a[0]), name, resamples, seed)


def compare_values(
    delta: np.ndarray,
    identity: np.ndarray,
    column: str,
    heading: str,
    name: str = "b",
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """As :func:`compare_paired`, of differences b − a (S, N), one row per seed. column: a key of BETTER."""
    difference = bootstrap_mean(delta.mean(axis=0), identity, resamples, seed)
    per_seed = delta.mean(axis=1)
    seeds = t_interval(per_seed)
    verdict = _verdict(name, column, heading, difference, seeds, len(per_seed))
    return Comparison(column, heading, difference, tuple(map(float, per_seed)), seeds, verdict)


def outcome(column: str, difference: Interval, seeds: tuple[float, float]) -> str:
    """What a difference with its intervals over people and over seeds shows: "better", "worse", or "open" where one of
    them includes zero."""
    if not (difference.low > 0 or difference.high < 0) or not (seeds[0] > 0 or seeds[1] < 0):
        return "open"
    return "better" if (difference.value < 0) == (BETTER[column] == "lower") else "worse"


def heading(column: str, scores: Scores) -> str:
    """The column's name; for the perceptual one, its judge's label (ST-LPIPS is not LPIPS)."""
    return {"mse": "MSE", "face_mse": "MSE in the face", "lpips": scores.perceptual, "similarity": "Similarity"}[column]


def _verdict(name: str, column: str, heading: str, d: Interval, seeds: tuple[float, float], n_seeds: int) -> str:
    def signed(x: float) -> str:
        return f"{x:.5f}".replace("-", "−")

    if d.value == d.low == d.high == 0:
        return f"{name} leaves {heading} exactly as it is on every one of {d.n} images."
    moves = "lowers" if d.value < 0 else "raises"
    start = f"{name} {moves} {heading} by {abs(d.value):.5f} (difference [{signed(d.low)}, {signed(d.high)}])"
    n = f"n = {d.n} images of {d.n_identities} people, {n_seeds} seed{'s' * (n_seeds > 1)}"
    if not (d.low > 0 or d.high < 0):
        return f"{start}: no difference can be told from noise at {n}."
    if n_seeds == 1:
        return f"{start}: a difference on these people at {n}, but one seed cannot tell it from luck."
    found = outcome(column, d, seeds)
    if found == "open":
        return (
            f"{start}: no difference can be told from training luck at {n}, whose interval over seeds is "
            f"[{signed(seeds[0])}, {signed(seeds[1])}]."
        )
    return f"{start}: {found}, beyond noise of people and of training, at {n}."
