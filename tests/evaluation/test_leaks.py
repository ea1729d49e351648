"""The leak probe: its regression against the textbook, its targets against the renderer, its answer on known leaks."""

import numpy as np
import pytest

from s2flib.datasets import SynthFaces
from s2flib.evaluation.leaks import (
    PICTURES,
    STRENGTHS,
    TARGETS,
    best_strength,
    leak_pictures,
    leak_targets,
    measure_leaks,
    r_squared,
    ridge_guess,
)
from s2flib.synthfaces.render import render_dataset, render_shot


def test_ridge_equals_the_normal_equations():
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(40, 6)), rng.normal(size=(5, 6))
    y = x @ rng.normal(size=6) + 3
    a = (x - x.mean(0)) / (x.std() + 1e-6)
    b = np.linalg.solve(a.T @ a + 2.5 * np.eye(6), a.T @ (y - y.mean()))
    expected = (new - x.mean(0)) / (x.std() + 1e-6) @ b + y.mean()
    assert np.allclose(ridge_guess(x, y, new, strength=2.5), expected)


def test_the_strength_is_the_one_that_suits_unseen_people():
    """Much noise and many columns ask for a strong ridge, an exact law for a weak one. Copies of a person's row in
    training would hide it: people are held out, not rows."""
    rng = np.random.default_rng(3)
    people = np.repeat(np.arange(40), 4)
    x = np.repeat(rng.normal(size=(40, 120)), 4, axis=0) + 0.01 * rng.normal(size=(160, 120))
    noise = np.repeat(rng.normal(size=40), 4)  # each person's own: known by heart within a person, useless outside
    assert best_strength(x, x[:, 0] * 0.1 + noise, people) > min(STRENGTHS)
    few = rng.normal(size=(160, 3))
    assert best_strength(few, few @ np.array([1.0, 2, 3]), people) == min(STRENGTHS)


def test_r_squared_is_1_for_the_truth_0_for_the_mean_and_less_for_worse():
    y, people = np.arange(20.0), np.arange(20) // 2
    assert r_squared(y, y, people)[:3] == (1, 1, 1)
    mean = r_squared(y, np.full(20, y.mean()), people)
    assert mean.value == pytest.approx(0) and mean.low < 0 < mean.high and mean.n_identities == 10
    assert r_squared(y, -y, people).value < -1
    rng = np.random.default_rng(1)
    guess = y + rng.normal(size=20)
    assert r_squared(y, guess, people).value == pytest.approx(1 - ((y - guess) ** 2).sum() / ((y - 9.5) ** 2).sum())


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return render_dataset(tmp_path_factory.mktemp("leaks") / "set", 4, 2, size=48, seed=5, workers=1, first_identity=6)


def test_targets_are_the_renderers_inputs(rendered):
    dataset = SynthFaces(rendered, "train", size=48)  # 6 and 7
    targets = leak_targets(dataset)
    assert set(targets) == set(TARGETS) and all(v.shape == (4,) for v in targets.values())
    _, person, shot = render_shot(5, 7, 1, size=32)
    assert targets["skin tone"][3] == pytest.approx(person.identity.tone, abs=0.01)
    assert targets["light from the side"][3] == pytest.approx(shot.light.key_direction[0])
    assert np.nanmin(targets["hair lightness"]) >= 0 and np.nanmax(targets["hair lightness"]) <= 1


def test_pictures_are_grey_and_small(rendered):
    pictures = leak_pictures(SynthFaces(rendered, "test", size=48))
    assert set(pictures) == set(PICTURES)
    for rows in pictures.values():
        assert rows.shape == (2, 1024) and 0 <= rows.min() < rows.max() <= 1
    assert not np.allclose(pictures["pencil sketch"], pictures["line drawing"], atol=0.1)


def test_the_shipped_drawings_leak_less_than_the_sketches():
    """On shipped data, few enough to be quick: the pencil sketch tells how light the hair is and where the light comes
    from, the drawing does not."""
    from s2flib.datasets import open_dataset

    leaks = measure_leaks(open_dataset("tiny", "train", limit=600), open_dataset("tiny", "test", limit=400))
    for target in ("hair lightness", "light from the side"):
        photo, pencil, line = (leaks[target, p] for p in PICTURES)
        assert photo.value > 0.3, target
        assert pencil.low > line.value + 0.1, (target, pencil, line)
