"""The inversion study: what counts as a successful edit, the claims' verdicts, the table, and going on after a stop."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from s2flib.errors import S2FError
from s2flib.evaluation import inversion_study as study
from s2flib.evaluation import inversion_tables as tables
from s2flib.evaluation.intervals import bootstrap_mean
from s2flib.evaluation.inversion_study import InversionStudy
from s2flib.evaluation.inversion_tables import EDITED, TEXT_EDITS, Attribute
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

    for a in EDITED:
        assert a.name in ATTRIBUTE_NAMES and set(a.values) <= set(HEADS[a.head])
        assert bool(a.values) == bool(HEADS[a.head])
    for t in TEXT_EDITS:
        assert t.attribute in ATTRIBUTE_NAMES and set(t.values) <= set(HEADS[t.head])


def test_means_leave_out_what_was_not_asked():
    columns = {"success_a": np.array([1.0, np.nan, np.nan]), "success_b": np.array([0.0, 1.0, np.nan])}
    got = tables.means(columns, "success", ["a", "b"])
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
    rows = {r["text"]: r for r in tables.check_claims({"w-plus": better, "psp": base}, person)}
    first = rows["optimisation reconstructs better than an encoder"]
    assert first["verdict"] == "holds" and first["difference"] == pytest.approx(-0.01) and first["high"] < 0
    assert rows["an encoder is faster than optimisation"]["verdict"] == "not shown"
    contrary = {r["text"]: r for r in tables.check_claims({"w-plus": base, "psp": better}, person)}
    assert contrary["optimisation reconstructs better than an encoder"]["verdict"] == "the contrary"
    more = {k: v + 0.01 if k == "direction_success" else v for k, v in base.items()}
    larger = {r["text"]: r for r in tables.check_claims({"e4e": more, "psp": base}, person)}
    assert larger["e4e is edited more often with success than pSp"]["verdict"] == "holds"
    assert len(tables.check_claims({"psp": base}, person)) == 0


def test_summary_and_table():
    figures = {"psp": figures_of(1), "pti": figures_of(2)}
    figures["pti"]["text_success"][:30] = np.nan
    rows = tables.summary(figures, np.arange(40))
    assert [r["method"] for r in rows] == ["psp", "pti"] and rows[0]["n"] == 40
    assert rows[0]["mse"] == pytest.approx(figures["psp"]["mse"].mean())
    assert rows[0]["seconds"] == pytest.approx(np.median(figures["psp"]["seconds"]))
    assert rows[1]["text_success"] == pytest.approx(figures["pti"]["text_success"][30:].mean())
    judges = SimpleNamespace(perceptual=SimpleNamespace(label="P"), identity=SimpleNamespace(label="I"))
    text = tables.table(rows, tables.check_claims(figures, np.arange(40)), TINY, judges)
    assert "Pivotal tuning" in text and "n = 40 photos" in text and TINY.label in text
    assert len(text.splitlines()[1].split("[")) == 4, "an interval for each of the three distortions"
    assert "Seconds: of 40 photos" in text


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
    monkeypatch.setattr(
        study, "measure", lambda method, bench, progress: calls.append(method) or {"mse": np.arange(3.0)}
    )

    def bench(**options):
        return SimpleNamespace(study=InversionStudy(**options), preset=TINY, remembering=lambda name: name)

    for _ in range(2):
        got = study.measured_method("psp", bench(), tmp_path, print)
        assert got["mse"].tolist() == [0, 1, 2] and calls == ["psp"]
    study.measured_method("psp", bench(methods=("psp",), timed=2), tmp_path, print)
    assert calls == ["psp"], "neither the other methods of a study nor the timing matter"
    study.measured_method("psp", bench(people=59), tmp_path, print)
    assert calls == ["psp", "psp"]


def test_seconds_are_those_of_the_first_photos():
    figures = {name: figures_of(k) for k, name in enumerate(("w-plus", "psp"))}
    for name, offset in (("w-plus", 9.0), ("psp", 0.0)):
        figures[name]["seconds"] = offset + np.arange(3.0)
    rows = {r["method"]: r for r in tables.summary(figures, np.arange(40))}
    assert (rows["w-plus"]["seconds"], rows["w-plus"]["timed"], rows["w-plus"]["n"]) == (10, 3, 40)
    claims = {r["text"]: r for r in tables.check_claims(figures, np.arange(40))}
    faster = claims["an encoder is faster than optimisation"]
    assert faster["verdict"] == "holds" and faster["difference"] == pytest.approx(-9)
    pairs, person = np.array([-1.0, -2.0, -9.0]), np.array([0, 0, *range(1, 39)])  # two photos of the first person
    figures["psp"]["seconds"] = figures["w-plus"]["seconds"] + pairs
    (row,) = (r for r in tables.check_claims(figures, person) if r["figure"] == "seconds")
    expected = bootstrap_mean(pairs, person[:3])
    assert (row["low"], row["high"]) == (expected.low, expected.high) != tuple(bootstrap_mean(pairs, person[-3:])[1:3])


def test_one_photo_at_a_time_is_timed_and_networks_are_warmed():
    sizes = []

    class Method:
        def __init__(self, name):
            self.name = name

        def invert(self, photos):
            sizes.append(len(photos))
            return SimpleNamespace(seconds=float(len(sizes)))

    photos = torch.zeros(3, 3, 8, 8)
    assert study.time_method(Method("w-plus"), photos, print).tolist() == [1, 2, 3]
    sizes.clear()
    assert study.time_method(Method("e4e"), photos, print).tolist() == [2, 4, 6] and set(sizes) == {1}


def test_a_photo_is_measured_alike_in_any_batch(monkeypatch):
    """A method that darkens photos, a judge that reads brightness: figures do not depend on the batch."""
    torch.manual_seed(0)
    g = Generator(16, 16, 2, channel_base=128, channel_max=16).eval().requires_grad_(False)
    g.register_buffer("latent_avg", torch.zeros(16))
    photos = torch.rand(5, 3, 16, 16) * 2 - 1
    names = [a.name for a in EDITED]
    w = g.random_codes(50, 3)
    bench = object.__new__(study.Bench)
    bench.study, bench.preset, bench.photos, bench.generator = InversionStudy(), TINY, photos, g
    bench.shows = {name: np.arange(5) % (k + 2) == 0 for k, name in enumerate(names)}
    bench.directions = {n: study.interfacegan(w, w[:, k] > w[:, k].median(), n) for k, n in enumerate(names)}
    flat = torch.nn.functional.normalize
    bench.judges = SimpleNamespace(
        perceptual=lambda x, y: (x - y).abs().mean((1, 2, 3)),
        identity=SimpleNamespace(similarity=lambda x, y: (flat(x.flatten(1)) * flat(y.flatten(1))).sum(1)),
    )

    def read(pictures):
        level = pictures.mean((1, 2, 3))
        heads = {h: torch.stack([level * (k + 1) for k in range(len(v))], 1) if v else 100 * level
                 for h, v in HEADS.items()}  # fmt: skip
        return heads

    bench.read = read
    monkeypatch.setattr(study, "measure_text_edits", lambda pictures, bench: {"success_text": pictures.mean((1, 2, 3))})

    class Method:
        name = "psp"

        def invert(self, photos):
            codes = g.expand(torch.stack([p.flatten()[:16] for p in photos]))
            made = g.synthesis(codes)
            start, end = (SimpleNamespace(reconstruction=y) for y in (made / 2, made))
            return SimpleNamespace(w_plus=codes, reconstruction=made, trace=[start, end], generate=g.synthesis)

    one, all_ = (study.measure(Method(), bench, lambda line: None, batch) for batch in (1, 3))
    assert set(one) == set(all_) and len(one["mse"]) == 5 and one["picture"].shape == (5, 16, 16, 3)
    for name in one:
        np.testing.assert_allclose(one[name].astype(float), all_[name].astype(float), atol=1e-4, err_msg=name)
    k = EDITED[0]
    by_hand = g.synthesis(bench.directions[k.name].move(g.expand(photos[1:2].flatten(1)[:, :16]), study.STRENGTH))
    expected = bench.compare(by_hand, photos[1:2])["similarity"][0]
    assert not bench.shows[k.name][1] and one[f"kept_{k.name}"][1] == pytest.approx(expected, abs=1e-4)
    assert one["start_mse"][0] != one["mse"][0]


def test_pti_tunes_at_the_pivots_that_were_measured(monkeypatch):
    """The projector runs once for each batch, and again only for the time."""
    made = []

    class Method:
        def __init__(self, name, pivot):
            self.name, self.pivot = name, pivot

        def invert(self, photos, watch=None):
            made.append((self.name, len(photos)))
            return self.pivot.invert(photos) if self.name == "pti" else object()

    def load(name, preset, generator, pivot, budget):
        return Method(name, pivot or (Method("projector", None) if name == "pti" else None))

    monkeypatch.setattr(study, "load_method", load)
    bench = object.__new__(study.Bench)
    bench.study, bench.preset, bench.generator, bench.projector = InversionStudy(), TINY, None, None
    a, b = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    found = [bench.remembering("projector").invert(x) for x in (a, b)]
    assert bench.remembering("pti").invert(b.clone()) is found[1] is not found[0]
    assert made == [("projector", 2), ("projector", 2), ("pti", 2)]
    bench.method("pti").invert(a)
    assert made[3:] == [("pti", 2), ("projector", 2)]


def test_the_sheet_has_every_method_of_each_person():
    photos = torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, 3, 128, 128)
    black, white = (np.full((3, 128, 128, 3), v, np.uint8) for v in (0, 255))
    page = study.sheet(photos, {"psp": {"picture": black}, "pti": {"picture": white}}, n=9)
    assert page.shape == (4 + 3 * (128 + 20 + 4), 4 + 3 * 132, 3)
    middle = [[int(page[88 + 152 * row, 68 + 132 * column, 0]) for column in range(3)] for row in range(3)]
    assert middle == [[0, 0, 255], [128, 0, 255], [255, 0, 255]]


@pytest.mark.parametrize("timed", [0, 6])
def test_photos_to_time_are_among_the_people(tmp_path, timed):
    with pytest.raises(S2FError, match="cannot be timed: choose 1 to 5"):
        study.Bench(InversionStudy(people=5, timed=timed), print)


def test_unknown_methods_are_refused(tmp_path):
    with pytest.raises(S2FError, match="no inversion method 'pspp'"):
        study.report_inversions(InversionStudy(methods=("psp", "pspp")), tmp_path / "out")
    assert not (tmp_path / "out").exists()
