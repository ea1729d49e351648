"""Witness noise: zero is perfect, more is further, one is somebody else of the same description."""

import numpy as np
import pytest

from s2flib.errors import S2FError
from s2flib.synthfaces import recall
from s2flib.synthfaces.assets import load_head
from s2flib.synthfaces.identity import sample_identity, shape_sliders, shape_weights
from s2flib.synthfaces.recall import recall_curve
from s2flib.synthfaces.streams import stream


def test_zero_is_perfect_and_bad_errors_are_refused():
    person = sample_identity(1, 0)
    assert recall(person, 0, stream(0)) is person
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(S2FError, match="between 0"):
            recall(person, wrong, stream(0))


def test_distance_grows_with_error_and_description_stays():
    head = load_head()
    growth = []
    for i in range(6):
        person = sample_identity(2, i)
        truth = head.morph(shape_weights(head, person))
        distances = []
        for error in (0.2, 0.5, 1.0):
            face = recall(person, error, stream(2, i))
            assert face == recall(person, error, stream(2, i))
            assert (face.gender, face.hair_color, face.eye_color, face.seed) == (
                person.gender,
                person.hair_color,
                person.eye_color,
                person.seed,
            )
            assert 18 <= face.age <= 80 and sum(face.ancestry) == pytest.approx(1)
            distances.append(np.linalg.norm(head.morph(shape_weights(head, face)) - truth, axis=1).mean())
        growth.append(distances)
    growth = np.mean(growth, 0)
    assert growth[0] < growth[1] < growth[2]


def test_recalled_faces_stay_as_varied_as_true_ones():
    """x' = μ + √(1−e²)(x−μ) + eσn keeps the spread of the sliders, and at 1 nothing of the truth is left."""
    names = [s.name for s in shape_sliders(load_head()) if s.low]
    people = [sample_identity(3, i, male=True) for i in range(120)]
    truth = np.array([[p.sliders[n] for n in names] for p in people])
    for error, expected in ((0.6, 0.8), (1.0, 0.0)):
        faces = [recall(p, error, stream(3, i)) for i, p in enumerate(people)]
        noisy = np.array([[face.sliders[n] for n in names] for face in faces])
        ratio = noisy.std(0) / truth.std(0)
        assert 0.85 < np.median(ratio) < 1.2
        a, b = truth - truth.mean(0), noisy - noisy.mean(0)
        correlation = (a * b).mean() / np.sqrt((a**2).mean() * (b**2).mean())
        assert correlation == pytest.approx(expected, abs=0.07)


def test_curve_pairs_truth_with_recalled_face():
    """With similarity = minus mean pixel distance of a crop, forgetting must not look better than remembering."""

    def similarity(a, b):
        assert a.shape == b.shape == (3, 32, 32, 3)
        return -np.abs(a.astype(float) - b).mean((1, 2, 3))

    curve = recall_curve(similarity, errors=(0, 1.0), n=3, seed=5, size=32)
    assert curve.similarity.shape == (2, 3) and curve.other.shape == (3,)
    assert curve.similarity[0].mean() > curve.other.mean()
