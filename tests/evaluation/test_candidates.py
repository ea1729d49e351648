"""Coverage of candidate sets on simulated drawings: at least 95 %, whatever the scores; fails where it must."""

import numpy as np
import pytest

from s2flib.errors import DataError
from s2flib.evaluation import candidates


def drawings(n, noise, rng, variants=4, dim=8, gallery=40):
    people = rng.normal(size=(gallery, dim))
    seen = people[:n, None] + noise * rng.normal(size=(n, 1, dim)) + 0.3 * rng.normal(size=(n, variants, dim))
    return seen, people


def test_votes_by_hand():
    gallery = np.array([[1.0, 0], [0, 2.0], [-3, 0]])
    variants = np.array([[[5.0, 0], [0, 1]]])
    first, second = (np.exp(2 * np.array(c)) for c in ([1, 0, -1], [0, 1, 0]))
    expected = (first / first.sum() + second / second.sum()) / 2
    np.testing.assert_allclose(candidates.votes(variants, gallery, 2.0)[0], expected)
    assert candidates.votes(variants, gallery, 2000.0).sum() == pytest.approx(1)  # no overflow


def test_the_slope_is_found_again():
    """People sampled from the softmax itself: the likelihood is greatest near the slope that made them."""
    rng = np.random.default_rng(6)
    scores = rng.uniform(-1, 1, (400, 1, 400))
    p = np.exp(7 * scores[:, 0])
    truth = np.array([rng.choice(400, p=row / row.sum()) for row in p])
    assert candidates.fit_slope(scores, truth) == pytest.approx(7, rel=0.1)
    assert candidates.fit_slope(scores, rng.permutation(400)) < 1  # nothing to learn


def test_the_threshold_is_the_conformal_order_statistic():
    own = np.random.default_rng(0).permutation(np.arange(1, 100) / 100)  # 99 votes: floor(0.05 · 100) = the 5th
    assert candidates.conformal_threshold(own) == 0.05
    assert candidates.conformal_threshold(own[:18]) == 0  # too few for 95 %: everybody
    assert candidates.conformal_threshold(own[:19]) == own[:19].min()
    assert candidates.conformal_threshold(own, 0.5) == 0.5


def test_who_has_just_enough_votes_is_in_the_set():
    shares = np.full((39, 50), 0.01)
    shares[np.arange(39), np.arange(39)] = np.arange(1, 40) / 40
    sets = candidates.calibrated_sets(shares, shares)  # τ is the second smallest vote, 2 / 40
    assert sets.threshold == 0.05 and sets.covered.sum() == 38 and (sets.size[1:] == 1).all() and sets.size[0] == 0


def test_coverage_on_exchangeable_drawings():
    """Over many repetitions the mean coverage is 95 to 95 + 1/(n + 1) %, and single ones stay in their range."""
    rng, coverage, inside = np.random.default_rng(1), [], 0
    low, high = candidates.coverage_range(39, 40)
    for _ in range(200):
        calibration, test = (candidates.votes(*drawings(m, 1.0, rng), 5.0) for m in (39, 40))
        sets = candidates.calibrated_sets(calibration, test)
        coverage.append(sets.coverage.value)
        inside += low <= sets.coverage.value <= high
    assert 0.94 <= np.mean(coverage) <= 0.965  # k = 2 of 39: 38 / 40 = 95 %
    assert inside >= 0.92 * 200


def test_everybody_is_the_answer_to_a_drawing_without_information():
    rng = np.random.default_rng(2)
    noise = rng.random((60, 200))
    noise /= noise.sum(axis=1, keepdims=True)
    sets = candidates.calibrated_sets(noise, rng.permuted(noise, axis=1))
    assert sets.mean_size.value > 170 and sets.coverage.value > 0.85
    assert sets.shuffled.value == pytest.approx(sets.mean_size.value / 200)
    few = candidates.calibrated_sets(noise[:10], noise)
    assert few.coverage.value == 1 and (few.size == 200).all() and few.expected == (1, 1)
    assert "all 200 for 100 %" in few.sentence("noise")


def test_a_worse_witness_than_those_of_the_calibration_breaks_the_promise():
    rng, held, broken = np.random.default_rng(3), [], []
    for _ in range(10):
        good, other = (candidates.votes(*drawings(40, 0.4, rng), 5.0) for _ in range(2))
        bad = candidates.votes(*drawings(40, 3.0, rng), 5.0)
        held.append(candidates.calibrated_sets(good, other).coverage.value)
        broken.append(candidates.calibrated_sets(good, bad).coverage.value)
    assert np.mean(held) > 0.92 and max(broken) < 0.6


def test_clear_drawings_get_smaller_sets():
    rng = np.random.default_rng(4)
    sizes = []
    for noise in (0.3, 1.0, 2.0):
        calibration, test = (candidates.votes(*drawings(40, noise, rng), 5.0) for _ in range(2))
        sizes.append(candidates.calibrated_sets(calibration, test).mean_size.value)
    assert sizes == sorted(sizes) and sizes[0] < 5


def test_fixed_lists_have_one_length():
    rng = np.random.default_rng(5)
    calibration, test = (candidates.votes(*drawings(39, 1.0, rng), 5.0) for _ in range(2))
    sets = candidates.fixed_lists(calibration, test)
    assert len(set(sets.size)) == 1
    own = np.sort([(row >= row[i]).sum() for i, row in enumerate(calibration)])
    assert sets.size[0] == own[-2]  # the second worst rank of 39
    everybody = candidates.fixed_lists(calibration[:5], test)
    assert (everybody.size == 40).all() and everybody.coverage.value == 1


def test_the_interval_holds_the_coverage_that_was_promised():
    rng, inside = np.random.default_rng(7), 0
    for _ in range(100):
        got = candidates.coverage_interval(rng.random(80), rng.random(80))
        assert got.low <= got.value <= got.high
        inside += got.low <= 0.95 <= got.high
    assert inside >= 90
    x = rng.random(1000)
    wide, narrow = candidates.coverage_interval(x[:80], x), candidates.coverage_interval(x, x)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)  # few calibration drawings count, too
    assert candidates.coverage_interval(np.ones(10), np.zeros(4))[:3] == (1, 1, 1)


def test_the_range_of_repetitions():
    low, high = candidates.coverage_range(80, 80)
    rng = np.random.default_rng(8)
    seen = [(rng.random(80) >= np.sort(rng.random(80))[3]).mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(np.percentile(seen, [2.5, 97.5]), abs=0.0126)  # one drawing of 80
    low, high = candidates.coverage_range(10_000, 10_000)
    assert 0.94 < low < 0.95 < high < 0.96


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: candidates.votes(np.ones((2, 3)), np.ones((4, 3)), 1.0), "at least one of each"),
        (lambda: candidates.votes(np.ones((2, 1, 3)), np.ones((4, 3)), 0.0), "above 0"),
        (lambda: candidates.votes(np.ones((2, 1, 3)), np.ones((4, 3)), np.nan), "above 0"),
        (lambda: candidates.conformal_threshold(np.empty(0)), "check the network"),
        (lambda: candidates.conformal_threshold(np.array([0.1, np.nan])), "finite"),
        (lambda: candidates.conformal_threshold(np.ones(3), 1.0), "between 0 and 1"),
    ],
)
def test_bad_input_is_a_sentence(call, words):
    with pytest.raises(DataError, match=words):
        call()
