"""DET against brute-force counts; thresholds chosen on val; calibration against known distributions."""

import numpy as np
import pytest

from s2flib.errors import DataError
from s2flib.evaluation import open_set
from s2flib.evaluation.cmc import cosines


def scores(people=50, drawings=2, noise=1.5, seed=0):
    rng = np.random.default_rng(seed)
    gallery = rng.normal(size=(people, 12))
    return cosines(gallery[:, None] + noise * rng.normal(size=(people, drawings, 12)), gallery)


def brute_force(x, threshold, rank=1):
    """Count, search by search, as the standard words it: (FPIR, FNIR)."""
    alarms = misses = n = 0
    for person in range(x.shape[0]):
        for row in x[person]:
            n += 1
            others = [s for g, s in enumerate(row) if g != person]
            alarms += any(s >= threshold for s in others)
            better = sum(s >= row[person] for s in others)
            misses += not (row[person] >= threshold and better < rank)
    return alarms / n, misses / n


@pytest.mark.parametrize("rank", [1, 5])
def test_rates_equal_brute_force_at_every_threshold(rank):
    x = scores()
    found = open_set.searches(x)
    reached = np.sort(found.top.ravel())[[3, 40, 90]]  # a score that equals the threshold counts
    for t in (*np.quantile(x, [0.1, 0.5, 0.9, 0.97, 0.99, 0.999]), *reached, found.mate[5, 1]):
        fpir, fnir = brute_force(x, t, rank)
        assert found.fpir(t).value == pytest.approx(fpir) and found.fnir(t, rank).value == pytest.approx(fnir)


@pytest.mark.parametrize("rank", [1, 5])
def test_det_is_the_fnir_at_the_lowest_threshold_with_this_fpir(rank):
    x = scores()
    found, targets = open_set.searches(x), (0.0, 0.01, 0.03, 0.1, 0.3, 0.999)
    curve = open_set.det(found, targets, rank)
    every = [brute_force(x, t, rank) for t in (*np.unique(x)[:: x.size // 200], np.inf)]
    for target, fnir, low, high in zip(targets, curve.fnir, curve.low, curve.high, strict=True):
        best = min(miss for alarm, miss in every if alarm <= target)
        assert fnir <= best + 1e-12 and low <= fnir <= high
        t = found.threshold(target)
        assert brute_force(x, t, rank)[0] <= target and brute_force(x, t, rank)[1] == pytest.approx(fnir)
    assert (np.diff(curve.fnir) <= 0).all()


def test_det_with_ties_alarms_no_more_than_allowed():
    x = np.round(scores(), 1)
    found = open_set.searches(x)
    for target in (0.05, 0.2, 0.5):
        assert found.fpir(found.threshold(target)).value <= target
        assert open_set.det(found, (target,)).fnir[0] == pytest.approx(found.fnir(found.threshold(target)).value)


def test_det_interval_covers_other_samples_of_people():
    inside, target = 0, (0.1,)
    truth = np.mean([open_set.det(open_set.searches(scores(seed=s)), target, resamples=2).fnir[0] for s in range(60)])
    for s in range(40):
        curve = open_set.det(open_set.searches(scores(seed=s)), target, resamples=200)
        inside += curve.low[0] <= truth <= curve.high[0]
    assert inside >= 33  # 38 expected


def test_a_threshold_of_val_holds_on_test():
    val, test = (open_set.searches(scores(people=300, seed=s)) for s in (1, 2))
    at = val.threshold(0.1)
    realised = test.fpir(at)
    assert realised.low - 0.02 <= 0.1 <= realised.high + 0.02


def test_outcomes_add_up_and_answers_agree():
    x = scores(noise=3.0)
    found = open_set.searches(x)
    at = found.threshold(0.2)
    shares = {k: v.value for k, v in found.outcomes(at).items()}
    assert sum(v for k, v in shares.items() if k.startswith("mated")) == pytest.approx(1)
    assert sum(v for k, v in shares.items() if k.startswith("non-mated")) == pytest.approx(1)
    answered = open_set.answers(x, at)  # with everybody enrolled
    truth = np.arange(len(x))[:, None]
    assert shares["mated: right"] == pytest.approx((answered == truth).mean())
    assert shares["mated: unknown"] == pytest.approx((answered == open_set.UNKNOWN).mean())
    assert shares["non-mated: wrong"] == pytest.approx(found.fpir(at).value)
    assert 1 - shares["mated: right"] == pytest.approx(found.fnir(at).value)


def test_shuffled_mates_are_found_no_more_often_than_false_alarms():
    x = scores(people=200, drawings=1)
    x = x[np.random.default_rng(0).permutation(200)]  # row i is another person's drawing
    found = open_set.searches(x)
    assert found.fnir(found.threshold(0.3)).value > 0.98


def test_logistic_calibration_finds_the_true_log_likelihood_ratio():
    rng = np.random.default_rng(0)
    mated, non_mated = rng.normal(2, 1, 4000), rng.normal(0, 1, 60_000)
    fit = open_set.fit_logistic(mated, non_mated)
    assert fit.slope == pytest.approx(2, abs=0.1) and fit.offset == pytest.approx(-2, abs=0.1)  # log N(2,1)/N(0,1)
    assert fit(np.array([1.0]))[0] == pytest.approx(0, abs=0.1)
    assert np.isfinite(open_set.fit_logistic(np.ones(5), np.zeros(5)).slope)  # classes that do not overlap


def test_pav_rises_and_is_at_least_as_good_on_its_own_scores():
    rng = np.random.default_rng(1)
    mated, non_mated = rng.normal(2, 1, 500), rng.normal(0, 2, 3000)
    pav, logistic = open_set.fit_pav(mated, non_mated), open_set.fit_logistic(mated, non_mated)
    grid = np.linspace(-8, 8, 400)
    assert (np.diff(pav(grid)) >= 0).all() and np.isfinite(pav(grid)).all()
    bits = [open_set.cllr(fit(mated), fit(non_mated)) for fit in (pav, logistic)]
    assert bits[0] < bits[1] < 1
    # in a step, the ratio of the classes' shares (of 500 and 3000, with two more at each end)
    step = (pav.x[1], pav.x[2])
    inside = [((x >= step[0]) & (x < step[1])).sum() / (len(x) + 2) for x in (mated, non_mated)]
    assert pav.y[1] == pytest.approx(np.log(inside[0] / inside[1])) if min(inside) > 0 else True


def test_cllr_of_no_information_is_one_bit_and_of_certainty_zero():
    assert open_set.cllr(np.zeros(3), np.zeros(5)) == pytest.approx(1)
    assert open_set.cllr(np.full(3, 40.0), np.full(5, -40.0)) == pytest.approx(0, abs=1e-12)
    by_hand = 0.5 * (np.log2(1 + np.exp(-1.5)) + np.log2(1 + np.exp(0.3)))
    assert open_set.cllr(np.array([1.5]), np.array([0.3])) == pytest.approx(by_hand)


def test_pair_scores_are_all_pairs():
    x = scores(people=6, drawings=2)
    mated, non_mated = open_set.pair_scores(x)
    assert len(mated) == 12 and len(non_mated) == 60
    assert mated[0] == x[0, 0, 0] and np.isclose(mated.sum() + non_mated.sum(), x.sum())


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: open_set.searches(np.ones((1, 1, 1))), "at least one person"),
        (lambda: open_set.searches(scores()).threshold(1.0), "not including 1"),
        (lambda: open_set.searches(scores()).threshold(-0.1), "not -0.1"),
        (lambda: open_set.fit_logistic(np.empty(0), np.ones(3)), "check the gallery"),
        (lambda: open_set.fit_logistic(np.array([np.nan]), np.ones(3)), "finite"),
        (lambda: open_set.fit_pav(np.ones(3), np.empty(0)), "check the gallery"),
    ],
)
def test_bad_input_is_a_sentence(call, words):
    with pytest.raises(DataError, match=words):
        call()
