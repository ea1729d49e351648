"""Ranks against brute force; who stands in the gallery; control and ceiling behave."""

import numpy as np
import pytest
import torch
from fake_faces import Cells, Faces, fake_judges

from s2flib.errors import DataError
from s2flib.evaluation import evaluate, table1
from s2flib.evaluation.lineup import (
    Chance,
    Ranks,
    compare_ranks,
    gallery_indices,
    lineup,
    lineup_examples,
    rank_probes,
    shots,
)
from s2flib.presets import TINY

SIZE = TINY.size


def brute_force(probe, ids, gallery, gallery_ids):
    """Sort everyone by their best photo, worst case among equals; the slow, plain way."""
    ranks = []
    for p, who in zip(probe, ids, strict=True):
        best = {}
        for g, person in zip(gallery, gallery_ids, strict=True):
            cosine = float(np.dot(p, g) / np.sqrt(np.dot(p, p) * np.dot(g, g)))
            best[person] = max(best.get(person, -2), cosine)
        ranks.append(sum(1 for s in best.values() if s >= best[who] - 1e-12))
    return np.array(ranks)


@pytest.mark.parametrize("photos_each", [1, 3])
def test_ranks_equal_brute_force(photos_each):
    rng = np.random.default_rng(photos_each)
    gallery_ids = rng.permutation(np.repeat(np.arange(40) * 7, photos_each))
    gallery, probe = rng.normal(size=(len(gallery_ids), 6)), rng.normal(size=(60, 6))
    ids = rng.choice(np.arange(40) * 7, 60)
    ranks = rank_probes(probe, ids, gallery, gallery_ids)
    np.testing.assert_array_equal(ranks.rank, brute_force(probe, ids, gallery, gallery_ids))
    assert ranks.gallery == 40
    rates = ranks.rates()
    for k in (1, 5, 10):
        assert rates[k].value == pytest.approx((ranks.rank <= k).mean())
        assert rates[k].low <= rates[k].value <= rates[k].high


def test_ties_count_against_the_probe():
    gallery = np.tile([1.0, 0.0], (5, 1))
    assert (rank_probes(gallery, np.arange(5), gallery, np.arange(5)).rank == 5).all()


def test_bad_input_is_named():
    with pytest.raises(DataError, match="identity 9"):
        rank_probes(np.ones((1, 2)), [9], np.ones((2, 2)), [1, 2])
    with pytest.raises(DataError, match="finite"):
        rank_probes(np.full((1, 2), np.nan), [1], np.ones((2, 2)), [1, 2])
    with pytest.raises(DataError, match="two photos"):
        lineup(lambda s: s, Faces(5, 1), "tiny", Cells())


def test_gallery_is_another_shot_of_everybody_once():
    identities = np.array([4, 4, 4, 7, 7, 7, 2, 2, 9])
    names = np.array(["4_2", "4_0", "4_1", "7_0", "7_1", "7_2", "2_0", "2_1", "9_0"])
    shot = shots(identities, names)
    np.testing.assert_array_equal(shot, [2, 0, 1, 0, 1, 2, 0, 1, 0])
    galleries, probes = gallery_indices(identities, names)
    np.testing.assert_array_equal(probes, np.arange(8))  # person 9 has one photo: no probe
    for gallery in galleries.values():
        assert sorted(identities[gallery]) == [2, 4, 7, 9]
    for p in probes:
        own = [g for g in galleries[shot[p]] if identities[g] == identities[p]]
        assert own and own[0] != p
    same, probes = gallery_indices(identities, names, same_shot=True)
    assert len(probes) == 9 and all(p in same[shot[p]] for p in range(9))


@pytest.fixture(scope="module")
def faces():
    return Faces(people=40, shots=3, seed=5)


def photo_of(sketches, photos):
    return photos


photo_of.needs_photo = True


def test_ceiling_control_and_chance(faces):
    result = lineup(photo_of, faces, "tiny", Cells())
    np.testing.assert_array_equal(result.output.rank, result.ceiling.rank)  # its output is the photo
    assert result.ceiling.rate(1).value > 0.9 and result.skipped == 0 and len(result.probes) == 120
    control = result.shuffled.rate(10)
    assert control.value < 0.5 and abs(control.value - result.chance.rate(10).value) < 0.15
    assert result.chance.rate(10).value == 0.25 and Chance(4).rate(10).value == 1
    assert "rank-1" in result.text() and "a different shot" in result.text()
    assert lineup(photo_of, faces, "tiny", Cells(), same_shot=True).output.rate(1).value == 1.0


def test_noise_is_at_chance_and_seeded(faces):
    def noise(sketches):
        return torch.rand(len(sketches), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1

    a, b = (lineup(noise, faces, "tiny", Cells(), batch=120) for _ in range(2))
    np.testing.assert_array_equal(a.shuffled.rank, b.shuffled.rank)
    assert a.output.rate(1).value < 0.15
    other = lineup(noise, faces, "tiny", Cells(), batch=120, seed=1)
    assert (other.shuffled.rank != a.shuffled.rank).any()


def test_scores_give_the_same_line_up_as_their_predictor(faces):
    def half(sketches):
        return sketches.expand(-1, 3, -1, -1) * 2 - 1

    judges = fake_judges()
    scores = evaluate(half, faces, "tiny", judges)
    direct, reused = (lineup(p, faces, "tiny", judges.identity) for p in (half, scores))
    np.testing.assert_array_equal(direct.output.rank, reused.output.rank)
    with pytest.raises(DataError, match="not of this data set"):
        lineup(scores, Faces(40, 2), "tiny", judges.identity)
    table = table1({"half": scores}, reused.rows("half"))
    assert [r["method"] for r in table.records] == [
        "half",
        "photo against photo (ceiling)",
        "shuffled people (control)",
        "chance",
    ]
    assert table.records[0]["rank1"] == pytest.approx((direct.output.rank == 1).mean())
    assert table.records[3]["rank5"] == 5 / 40 and table.records[3]["rank5_low"] == ""


def test_examples_show_the_true_order(faces):
    result = lineup(photo_of, faces, "tiny", Cells())
    for p, example in zip((0, 17), lineup_examples(result, photo_of, faces, (0, 17), k=40), strict=True):
        assert example["correct"] + 1 == example["rank"] == result.output.rank[p]
        own = faces.photos[result.gallery_of[p][example["correct"]]]
        assert torch.equal(example["gallery"][example["correct"]], own)


def test_ranks_are_compared_probe_by_probe():
    """rank-5 of b is better by one probe of six in the first seed, by none in the second: 1/12 on average."""
    people = np.repeat([1, 2, 3], 2)
    a = [Ranks(np.array([1, 5, 6, 2, 9, 5]), people, 9), Ranks(np.array([6, 6, 6, 6, 6, 6]), people, 9)]
    b = [Ranks(np.array([5, 1, 5, 5, 9, 1]), people, 9), a[1]]
    found = compare_ranks(a, b, 5, "b")
    assert found.difference.value == pytest.approx(1 / 12) and found.per_seed == pytest.approx((1 / 6, 0))
    assert (found.column, found.heading, found.outcome) == ("rank5", "rank-5", "open")
    assert (found.difference.n, found.difference.n_identities) == (6, 3)
    assert compare_ranks(a, a, 1).difference[:3] == (0, 0, 0)
    for wrong in (b[:1], [], [Ranks(a[0].rank, people[::-1], 9), a[1]]):
        with pytest.raises(DataError, match="same seeds and people"):
            compare_ranks(a, wrong, 1)
