"""The inversion study: what counts as a successful edit, the claims' verdicts, the table, and going on after a stop."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from s2flib.errors import S2FError
from s2flib.evaluation import inversion_study as study
from s2flib.evaluation.inversion_study import Attribute, InversionStudy
from s2flib.judges.edit_judge import HEADS, SCALE
from s2flib.presets import TINY
from s2flib.stylegan2 import Generator


def reading(head, *values):
    """The judge's reading of pictures that it sees as these values."""
    return {head: torch.stack([torch.eye(len(HEADS[head]))[HEADS[head].index(v)] for v in values])}


def test_a_value_must_appear_or_disappear():
    hair = Attribute("black_hair", "hair_color", ("black",))
    before = reading("hair_color", "brown", "brown", "black", "black")
    after = reading("hair_color", "black", "blond", "black", "brown")
    got = study.changed(hair, before, after, np.array([True, True, True, False]))
    assert got.tolist() == [True, False, False, True]
    assert not study.changed(hair, before, after, np.array([False, False, True, True])).any()


def test_a_number_must_move_by_half_of_its_deviation():
    young, step = Attribute("young", "age", (), rises=False), SCALE["age"][1] / 2
    before = {"age": torch.full((4,), 40.0)}
    after = {"age": 40 + torch.tensor([-step, step, -0.9 * step, step])}
    got = study.changed(young, before, after, np.array([True, True, True, False]))  # young again, or older
    assert got.tolist() == [True, False, False, True]
    dark = Attribute("dark_skin", "skin_tone", ())
    now = {"skin_tone": torch.tensor([3.0, 3.0])}
    later = {"skin_tone": 3 + torch.tensor([1.0, -1.0]) * SCALE["skin_tone"][1]}
    assert study.changed(dark, now, later, np.array([True, True])).tolist() == [True, False]


def test_edited_attributes_are_read_by_the_judge():
    from s2flib.datasets.attributes import ATTRIBUTE_NAMES

    for a in study.EDITED:
        assert a.name in ATTRIBUTE_NAMES and set(a.values) <= set(HEADS[a.head])
        assert bool(a.values) == bool(HEADS[a.head])
    for t in study.TEXT_EDITS:
        assert t.attribute in ATTRIBUTE_NAMES and set(t.values) <= set(HEADS[t.head])


def test_means_leave_out_what_was_not_asked():
    columns = {"success_a": np.array([1.0, np.nan, np.nan]), "success_b": np.array([0.0, 1.0, np.nan])}
    got = study.means(columns, "success", ["a", "b"])
    assert got[:2].tolist() == [0.5, 1.0] and np.isnan(got[2])


def figures_of(seed, **shift):
    rng = np.random.default_rng(seed)
    names = (
        "seconds",
        "mse",
        "lpips",
        "similarity",
        "direction_success",
        "direction_kept",
        "text_success",
        "text_kept",
    )
    return {k: 1 + 0.1 * rng.standard_normal(40) + shift.get(k, 0) for k in names}


def test_verdicts_follow_the_intervals_of_paired_differences():
    person = np.arange(40)
    base = figures_of(0)
    better = {k: v - 0.01 if k == "mse" else v for k, v in base.items()}  # paired: seen in spite of the spread
    rows = {r["text"]: r for r in study.check_claims({"w-plus": better, "psp": base}, person)}
    first = rows["optimisation reconstructs better than an encoder"]
    assert first["verdict"] == "holds" and first["difference"] == pytest.approx(-0.01) and first["high"] < 0
    assert rows["an encoder is faster than optimisation"]["verdict"] == "not shown"
    contrary = {r["text"]: r for r in study.check_claims({"w-plus": base, "psp": better}, person)}
    assert contrary["optimisation reconstructs better than an encoder"]["verdict"] == "the contrary"
    more = {k: v + 0.01 if k == "direction_success" else v for k, v in base.items()}
    larger = {r["text"]: r for r in study.check_claims({"e4e": more, "psp": base}, person)}
    assert larger["e4e is edited more often with success than pSp"]["verdict"] == "holds"
    assert len(study.check_claims({"psp": base}, person)) == 0


def test_summary_and_table():
    figures = {"psp": figures_of(1), "pti": figures_of(2)}
    figures["pti"]["text_success"][:30] = np.nan
    rows = study.summary(figures, np.arange(40))
    assert [r["method"] for r in rows] == ["psp", "pti"] and rows[0]["n"] == 40
    assert rows[0]["mse"] == pytest.approx(figures["psp"]["mse"].mean())
    assert rows[0]["seconds"] == pytest.approx(np.median(figures["psp"]["seconds"]))
    assert rows[1]["text_success"] == pytest.approx(figures["pti"]["text_success"][30:].mean())
    judges = SimpleNamespace(perceptual=SimpleNamespace(label="P"), identity=SimpleNamespace(label="I"))
    text = study.table(rows, study.check_claims(figures, np.arange(40)), TINY, judges)
    assert "Pivotal tuning" in text and "n = 40 photos" in text and TINY.label in text
    assert len(text.splitlines()[1].split("[")) == 4, "an interval for each of the three distortions"


def test_directions_come_from_labels_of_random_faces(monkeypatch):
    """A network that labels a face by its brightness: the direction must change the brightness."""
    torch.manual_seed(0)
    g = Generator(16, 16, 2, channel_base=128, channel_max=16).eval()

    class Bright(torch.nn.Module):
        names = ("dark", "bright")

        def forward(self, x):
            level = x.mean((1, 2, 3)) - middle
            return torch.stack([-level, level], 1)

    with torch.no_grad():
        middle = g.synthesis(g.expand(g.random_codes(200, 0))).clamp(-1, 1).mean()
    monkeypatch.setattr(study, "attribute_net", Bright)
    found = study.attribute_directions(g, 200, 0, ["bright"])["bright"]
    w = g.expand(g.random_codes(50, 9))
    with torch.no_grad():
        low, high = (g.synthesis(found.move(w, a)).clamp(-1, 1).mean() for a in (-2.0, 2.0))
    assert found.score > 0.7 and high > low + 0.02


def test_a_stopped_run_goes_on_and_another_study_does_not(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(study, "load_method", lambda name, *a, **k: name)
    monkeypatch.setattr(
        study, "measure", lambda method, bench, progress: calls.append(method) or {"seconds": np.arange(3.0)}
    )

    def bench(**options):
        return SimpleNamespace(study=InversionStudy(**options), preset=TINY, generator=None)

    for _ in range(2):
        got = study.measured_method("psp", bench(), tmp_path, print)
        assert got["seconds"].tolist() == [0, 1, 2] and calls == ["psp"]
    study.measured_method("psp", bench(methods=("psp",)), tmp_path, print)
    assert calls == ["psp"], "the other methods of a study do not matter"
    study.measured_method("psp", bench(people=59), tmp_path, print)
    assert calls == ["psp", "psp"]


def test_unknown_methods_are_refused(tmp_path):
    with pytest.raises(S2FError, match="no inversion method 'pspp'"):
        study.report_inversions(InversionStudy(methods=("psp", "pspp")), tmp_path / "out")
    assert not (tmp_path / "out").exists()
