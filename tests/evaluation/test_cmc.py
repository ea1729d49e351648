"""CMC against rank_probes and counting; fusion; pairing; the shuffled control at chance."""

import numpy as np
import pytest

from s2flib.errors import DataError
from s2flib.evaluation import cmc
from s2flib.evaluation.intervals import bootstrap_mean
from s2flib.evaluation.lineup import rank_probes


def world(people=60, drawings=3, noise=1.0, dim=16, seed=0):
    """Embeddings of drawings (people, drawings, dim) and of the gallery (people, dim)."""
    rng = np.random.default_rng(seed)
    gallery = rng.normal(size=(people, dim))
    return gallery[:, None] + noise * rng.normal(size=(people, drawings, dim)), gallery


def test_ranks_are_those_of_rank_probes():
    drawn, gallery = world()
    ranks = cmc.ranks(cmc.cosines(drawn, gallery))
    ids = np.arange(60)
    for r in range(3):
        np.testing.assert_array_equal(ranks[:, r], rank_probes(drawn[:, r], ids, gallery, ids).rank)


def test_cmc_at_k_is_rank_k_with_its_interval():
    drawn, gallery = world(noise=2.0)
    ranks = cmc.ranks(cmc.cosines(drawn, gallery))
    curve = cmc.cmc(ranks, 60)
    people = np.repeat(np.arange(60), 3)
    for k in (1, 5, 10, 60):
        expected = bootstrap_mean(ranks.ravel() <= k, people)
        got = curve.at(k)
        assert got.value == pytest.approx((ranks <= k).mean()) and (got.n, got.n_identities) == (180, 60)
        assert got.low == pytest.approx(expected.low, abs=1e-9) and got.high == pytest.approx(expected.high, abs=1e-9)
    assert (np.diff(curve.value) >= 0).all() and curve.value[-1] == 1
    assert (curve.low <= curve.value).all() and (curve.value <= curve.high).all()


def test_intervals_are_those_of_the_cluster_bootstrap():
    values = np.random.default_rng(0).random((30, 4))
    got, expected = cmc.mean_interval(values), bootstrap_mean(values.ravel(), np.repeat(np.arange(30), 4))
    assert got == pytest.approx(expected, abs=1e-9)
    assert np.isnan(cmc.mean_interval(np.ones((1, 3))).low) and cmc.mean_interval(np.ones(7)).n_identities == 7
    with pytest.raises(DataError, match="more people"):
        cmc.mean_interval(np.ones((0, 3)))


def test_bands_are_of_people_and_not_of_drawings():
    """Ten copies of each drawing are no more information than one."""
    ranks = cmc.ranks(cmc.cosines(*world(drawings=1, noise=2.0)))
    one, ten = cmc.cmc(ranks, 60).at(1), cmc.cmc(np.repeat(ranks, 10, axis=1), 60).at(1)
    assert (one.low, one.high) == pytest.approx((ten.low, ten.high))


def test_ties_count_against_the_probe_and_chance_is_k_of_g():
    assert (cmc.ranks(np.ones((3, 2, 5))) == 5).all()
    np.testing.assert_allclose(cmc.chance(4), [0.25, 0.5, 0.75, 1])


def test_shuffled_people_sit_at_chance_at_every_k():
    drawn, gallery = world(people=200, noise=0.2)
    scores = cmc.cosines(drawn, gallery)
    assert (cmc.ranks(scores) == 1).mean() > 0.95
    shuffled = cmc.shuffled_ranks(scores, shuffles=40)
    curve = cmc.cmc(shuffled, 200)
    assert np.abs(curve.value - cmc.chance(200)).max() < 0.02
    for k in (1, 5, 10, 50, 100):
        at = curve.at(k)
        assert at.low - 0.005 <= k / 200 <= at.high + 0.005
    assert (cmc.shuffled_ranks(scores, seed=1, shuffles=40) != shuffled).any()


def test_fusing_identical_composites_changes_nothing():
    drawn, gallery = world(drawings=1, noise=2.0)
    copies = np.repeat(drawn, 4, axis=1)
    alone = cmc.ranks(cmc.cosines(drawn, gallery))
    for name, scores in cmc.fused(copies, gallery).items():
        np.testing.assert_array_equal(cmc.ranks(scores), alone, err_msg=name)
        d = cmc.paired(alone, cmc.ranks(scores), 1)
        assert d[:3] == (0, 0, 0) and "exactly as it is" in cmc.verdict(name, "one", 1, d)


def test_fusing_independent_drawings_helps():
    drawn, gallery = world(people=150, drawings=5, noise=2.5)
    alone = cmc.ranks(cmc.cosines(drawn, gallery))
    for name, scores in cmc.fused(drawn, gallery).items():
        d = cmc.paired(alone, cmc.ranks(scores), 1)
        assert d.low > 0.05, name
        assert "raises rank-1" in cmc.verdict(name, "one", 1, d) and "better, beyond" in cmc.verdict(name, "one", 1, d)


def test_mean_of_embeddings_orders_people_as_the_mean_of_scores():
    drawn, gallery = world(noise=2.0)
    by_embedding = cmc.ranks(cmc.cosines(cmc.fuse_embeddings(drawn), gallery))
    by_score = cmc.ranks(cmc.cosines(drawn, gallery).mean(axis=1, keepdims=True))
    np.testing.assert_array_equal(by_embedding, by_score)


def test_score_and_rank_fusion_by_hand():
    scores = np.array([[[3.0, 1, 2], [0, 30, 60]], [[1.0, 2, 3], [1, 2, 3]], [[0.0, 1, 1], [5, 5, 0]]])
    z = [(s - s.mean()) / s.std() for s in scores[0]]
    np.testing.assert_allclose(cmc.fuse_scores(scores)[0, 0], np.mean(z, axis=0))
    # Borda: worst place at ties
    np.testing.assert_allclose(cmc.fuse_ranks(scores)[:, 0], -np.array([[2, 2.5, 1.5], [3, 2, 1], [2.5, 2, 2.5]]))


def test_paired_differences_are_of_the_same_people():
    one, other = np.array([[1, 3], [2, 2], [1, 1]]), np.array([[1], [1], [5]])
    d = cmc.paired(one, other, 1)
    assert d.value == pytest.approx(((1 - 0.5) + 1 + (0 - 1)) / 3)
    assert "no difference can be told" in cmc.verdict("b", "a", 1, d)
    worse = cmc.paired(np.ones((9, 1)), np.full((9, 1), 4), 1)
    assert "lowers rank-1 by 100.0 points" in cmc.verdict("b", "a", 1, worse)
    with pytest.raises(DataError, match="same people"):
        cmc.paired(one, other[:2], 1)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: cmc.cosines(np.ones((2, 3)), np.ones((2, 4))), "one network for both"),
        (lambda: cmc.cosines(np.full((2, 3), np.nan), np.ones((2, 3))), "finite"),
        (lambda: cmc.ranks(np.ones((2, 3))), "middle axis"),
        (lambda: cmc.ranks(np.ones((5, 1, 3))), "photo of each person"),
        (lambda: cmc.ranks(np.full((2, 1, 3), np.inf)), "finite"),
        (lambda: cmc.cmc(np.array([[0]]), 3), "from 1 to 3"),
        (lambda: cmc.cmc(np.array([[4]]), 3), "from 1 to 3"),
    ],
)
def test_bad_input_is_a_sentence(call, words):
    with pytest.raises(DataError, match=words):
        call()
