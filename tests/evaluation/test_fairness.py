"""Gaps between groups: found where they are, at chance where they are not, corrected for many looks."""

import numpy as np
import pytest

from s2flib.errors import DataError
from s2flib.evaluation.fairness import Figure, by_group, groups, holm, widest_gap, widest_gaps
from s2flib.evaluation.intervals import bootstrap_mean

ROW = {"gender": "male", "age": 40.0, "skin_tone": 1.0, "ethnicity_caucasian": 0.7, "ethnicity_african": 0.2,
       "ethnicity_asian": 0.1}  # fmt: skip


def test_groups_of_the_manifest():
    rows = [
        ROW,
        ROW | {"age": 29.9, "skin_tone": 2.0, "ethnicity_caucasian": 0.4, "ethnicity_african": 0.3},
        ROW | {"gender": "female", "age": 60, "skin_tone": 5, "ethnicity_caucasian": 0.1, "ethnicity_african": 0.8},
    ]
    found = groups(rows)
    assert list(found) == ["gender", "age", "ancestry", "skin tone"]
    assert found["gender"].tolist() == ["male", "male", "female"]
    assert found["age"].tolist() == ["30 to 44", "18 to 29", "60 to 80"]
    assert found["ancestry"].tolist() == ["caucasian", "mixed", "african"]
    assert found["skin tone"].tolist() == ["lighter (0 to 2)", "medium (2 to 4)", "darker (4 to 7)"]
    with pytest.raises(DataError, match="no usable column"):
        groups([{"gender": "male"}])


def people(gap, n=240, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.array(["a", "b", "c"])[rng.integers(3, size=n)]
    return (rng.random(n) < 0.5 + gap * (labels == "b") - gap * (labels == "c")).astype(float), labels


def test_a_real_gap_is_found_and_worded():
    values, labels = people(0.3)
    gap = widest_gap(Figure("rank-1", values), "hat", labels)
    assert gap.best == "b" and gap.worst == "c" and gap.p < 0.001
    assert gap.difference.value == pytest.approx(values[labels == "b"].mean() - values[labels == "c"].mean())
    assert gap.difference.low > 0.3 and gap.difference.low < gap.difference.value < gap.difference.high
    assert "best for b" in gap.sentence and "worst for c" in gap.sentence and "beyond chance" in gap.sentence
    rates = by_group(Figure("rank-1", values), labels)
    assert rates["a"][:3] == pytest.approx(bootstrap_mean(values[labels == "a"], np.flatnonzero(labels == "a"))[:3])


def test_of_an_error_rate_the_lowest_is_best():
    values, labels = people(0.3)
    gap = widest_gap(Figure("FNIR", values, higher=False), "hat", labels)
    assert gap.best == "c" and gap.worst == "b" and gap.difference.value > 0 and gap.difference.low > 0


def test_without_a_gap_p_is_uniform():
    p = []
    for seed in range(120):
        values, labels = people(0.0, 120, seed)
        p.append(widest_gap(Figure("x", values), "hat", labels, permutations=100).p)
    assert 0.35 < np.mean(p) < 0.65 and 0.01 <= (np.array(p) < 0.1).mean() < 0.2


def test_p_equals_every_permutation_of_a_small_example():
    """Six people in two groups: 20 ways to divide them, 2 of which have a gap as wide."""
    values, labels = np.array([0.0, 1, 2, 3, 4, 5]), np.array(list("aaabbb"))
    gap = widest_gap(Figure("x", values, percent=False), "hat", labels, permutations=20_000, small=3)
    assert gap.p == pytest.approx(2 / 20, abs=0.01)
    assert "within what chance gives" in gap.sentence


def test_holm_against_its_definition():
    p = [0.01, 0.04, 0.03, 0.005]
    # sorted: 0.005 · 4, 0.01 · 3, 0.03 · 2, 0.04 · 1, never falling
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []


def test_many_looks_are_corrected():
    rng = np.random.default_rng(3)
    labels = {f"attribute {i}": np.array(["a", "b"])[rng.integers(2, size=100)] for i in range(40)}
    gaps = widest_gaps([Figure("x", rng.random(100))], labels, permutations=500)
    assert len(gaps) == 40 and all(g.corrected >= g.p for g in gaps)
    assert min(g.p for g in gaps) < 0.06 and min(g.corrected for g in gaps) > 0.05
    unlucky = min(gaps, key=lambda g: g.p)
    assert "beyond chance." not in unlucky.sentence


def test_small_groups_are_shown_and_not_compared():
    values = np.concatenate([np.zeros(5), np.tile([0.0, 1.0], 40)])
    labels = np.array(["few"] * 5 + ["a"] * 40 + ["b"] * 40)
    gap = widest_gap(Figure("x", values), "hat", labels)
    assert gap.small == ("few",) and "few" in gap.rates and "few" not in (gap.best, gap.worst)
    assert "Too small to compare: few" in gap.sentence
    assert widest_gap(Figure("x", values), "hat", np.array(["few"] * 5 + ["a"] * 80)) is None


def test_figures_of_fewer_people_and_with_missing_values():
    values, labels = people(0.3)
    some = values.copy()
    some[::7] = np.nan
    gap = widest_gap(Figure("x", some), "hat", labels)
    assert gap.rates["a"].n == (np.isfinite(some) & (labels == "a")).sum()
    short = widest_gaps([Figure("x", values[:150])], {"hat": labels}, permutations=50)[0]
    assert sum(r.n for r in short.rates.values()) == 150
    with pytest.raises(DataError, match="same people"):
        by_group(Figure("x", values), labels[:10])
