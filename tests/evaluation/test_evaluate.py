"""Table 1's numbers against closed forms and scipy; nothing dropped, nothing confused."""

import csv
import io
import time

import numpy as np
import pytest
import scipy.stats
import torch
from fake_faces import Cells, Faces, MeanAbsolute, fake_judges

from s2flib import evaluation
from s2flib.errors import DataError, S2FError, WeightsError
from s2flib.evaluation import COLUMNS, Scores, bootstrap_mean, compare_paired, evaluate, table1
from s2flib.evaluation.evaluate import masked_mse, runtimes_in_turn
from s2flib.evaluation.intervals import runtime, t_interval
from s2flib.presets import TINY
from s2flib.synthfaces.labels import LABELS

SIZE = TINY.size


def offset(amount):
    """A predictor that repeats the sketch in three channels, in [−1, 1], plus an amount."""
    return lambda sketches: sketches.expand(-1, 3, -1, -1) * 2 - 1 + amount


@pytest.fixture(scope="module")
def faces():
    return Faces(people=7, shots=3)


def scores_of(values, identity=None, column="mse", name=None, **changes) -> Scores:
    n = len(values)
    base = {c: np.full(n, 0.5) for c in ("runtime_s", *COLUMNS)}
    base[column] = np.asarray(values, float)
    labels = {"preset": "tiny", "perceptual": "ST-LPIPS (alex)", "identifier": "dlib", **changes}
    return Scores(
        **base,
        identity=np.arange(n) if identity is None else np.asarray(identity),
        name=np.array(name or [f"{i}" for i in range(n)]),
        **labels,
    )


# -- evaluate -------------------------------------------------------------------------------------------
def test_columns_by_hand_and_no_dropped_tail(faces):
    scores = evaluate(offset(0.1), faces, "tiny", fake_judges(), batch=4)  # 21 = 5 · 4 + 1
    assert len(scores) == 21 and list(scores.name) == faces.names
    np.testing.assert_array_equal(scores.identity, faces.identities)
    for i in (0, 13, 20):
        x, y = faces[i]["photo"][:1].expand(3, -1, -1).double() + 0.1, faces[i]["photo"].double()
        assert scores.mse[i] == pytest.approx(((x - y) ** 2).mean().item(), rel=1e-5)
        assert scores.face_mse[i] == pytest.approx(scores.mse[i], rel=1e-5)  # these items have no mask
        assert scores.lpips[i] == pytest.approx((x - y).abs().mean().item(), rel=1e-5)
        a, b = x[:, :: SIZE // 4, :: SIZE // 4].flatten(), y[:, :: SIZE // 4, :: SIZE // 4].flatten()
        assert scores.similarity[i] == pytest.approx((a @ b / a.norm() / b.norm()).item(), abs=1e-5)
    assert scores.embedding.shape == (21, 48) and (scores.runtime_s > 0).all()
    assert (scores.perceptual, scores.identifier, scores.preset) == (MeanAbsolute.label, Cells.label, "tiny")


def test_the_face_is_what_the_mask_calls_skin_eyes_nose_and_mouth():
    x, y = torch.zeros(3, 3, 4, 4), torch.zeros(3, 3, 4, 4)
    y[:, :, :2], y[:, :, 2:] = 0.5, 2.0  # an error of 0.25 above, of 4 below
    masks = torch.zeros(3, 8, 8, dtype=torch.uint8)
    masks[0, :4] = LABELS.index("nose")
    masks[1, 4:], masks[1, :4] = LABELS.index("u_lip"), LABELS.index("hair")
    masks[2] = LABELS.index("cloth")  # no face at all: the whole picture
    assert masked_mse(x, y, [{"mask": m} for m in masks]).tolist() == pytest.approx([0.25, 4.0, 2.125])


def test_the_face_has_its_own_error_in_the_scores_and_under_the_table(faces):
    class Masked:
        """The upper half of every picture is face."""

        def __len__(self):
            return len(faces)

        def __getitem__(self, i):
            mask = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
            mask[: SIZE // 2] = LABELS.index("skin")
            return faces[i] | {"mask": mask}

    scores = evaluate(offset(0.1), Masked(), "tiny", fake_judges(), batch=4)
    x, y = faces[5]["photo"][:1].expand(3, -1, -1).double() + 0.1, faces[5]["photo"].double()
    assert scores.face_mse[5] == pytest.approx(((x - y) ** 2)[:, : SIZE // 2].mean().item(), rel=1e-5)
    assert scores.face_mse[5] != pytest.approx(scores.mse[5], rel=1e-3)
    table = table1({"ours": scores})
    assert table.records[0]["face_mse"] == pytest.approx(scores.face_mse.mean())
    assert f"MSE inside the face alone: ours {scores.face_mse.mean():.4f} [" in " ".join(table.text.split())


def test_batch_size_changes_nothing(faces):
    a, b = (evaluate(offset(0.2), faces, "tiny", fake_judges(), batch=n) for n in (1, 16))
    for column in COLUMNS:
        np.testing.assert_allclose(getattr(a, column), getattr(b, column), rtol=1e-5)


def test_photo_embeddings_are_the_same_thing(faces):
    judges = fake_judges()
    photos = evaluation.embed_photos(faces, judges.identity, "tiny", batch=4)
    a = evaluate(offset(0.2), faces, "tiny", judges, photo_embeddings=photos)
    b = evaluate(offset(0.2), faces, "tiny", judges)
    np.testing.assert_allclose(a.similarity, b.similarity, atol=1e-6)
    shifted = evaluate(offset(0.2), faces, "tiny", judges, photo_embeddings=photos[::-1].copy())
    assert np.abs(shifted.similarity - b.similarity).max() > 0.1


def test_larger_outputs_are_pooled_to_the_eval_size(faces):
    def predict(sketches):
        return torch.nn.functional.interpolate(offset(0)(sketches), scale_factor=2)

    big = evaluate(predict, faces, "tiny", fake_judges())
    np.testing.assert_allclose(big.mse, evaluate(offset(0), faces, "tiny", fake_judges()).mse, rtol=1e-5)


def test_warm_up_calls_come_before_the_timed_ones_and_photos_go_to_ceilings_only(faces):
    calls = []

    def predict(*arguments):
        calls.append(len(arguments[0]))
        return arguments[-1] if len(arguments) == 2 else offset(0)(arguments[0])

    evaluate(predict, faces, "tiny", fake_judges(), batch=16, warmup=3)
    assert calls == [16, 16, 16, 16, 5]
    predict.needs_photo = True
    assert evaluate(predict, faces, "tiny", fake_judges(), batch=16).mse.max() == 0


def test_broken_predictors_are_named(faces):
    with pytest.raises(S2FError, match="NaN or infinite"):
        evaluate(offset(float("nan")), faces, "tiny", fake_judges())
    with pytest.raises(S2FError, match=r"\(16, 3, H, W\)"):
        evaluate(lambda s: s, faces, "tiny", fake_judges())
    with pytest.raises(DataError):
        evaluate(offset(0), torch.utils.data.Subset(faces, []), "tiny", fake_judges())


# -- statistics -----------------------------------------------------------------------------------------
def test_bootstrap_equals_scipys_when_every_cluster_is_one():
    values = np.random.default_rng(1).gamma(2, size=80)
    ours = bootstrap_mean(values, np.arange(80), resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert ours.value == values.mean() and (ours.n, ours.n_identities) == (80, 80)
    np.testing.assert_allclose(ours[1:3], theirs, atol=0.03 * (theirs.high - theirs.low))


def test_bootstrap_draws_people_not_images():
    people = np.repeat(np.random.default_rng(2).normal(size=50), 4)  # four equal images of each person
    identity = np.repeat(np.arange(50), 4)
    clustered, naive = bootstrap_mean(people, identity), bootstrap_mean(people, np.arange(200))
    one_each = bootstrap_mean(people[::4], np.arange(50))
    assert (clustered.high - clustered.low) == pytest.approx(2 * (naive.high - naive.low), rel=0.1)
    assert clustered[1:3] == pytest.approx(one_each[1:3]) and clustered.n == 200


def test_bootstrap_weighs_people_by_their_images():
    values, identity = np.array([0.0, 0.0, 0.0, 1.0]), np.array([5, 5, 5, 9])
    interval = bootstrap_mean(values, identity, resamples=4000)
    assert interval.value == 0.25 and (interval.low, interval.high) == (0.0, 1.0)
    draws = [bootstrap_mean(values, identity, resamples=1, seed=s).low for s in range(400)]
    assert set(np.round(draws, 6)) == {0.0, 0.25, 1.0}  # both people: 1 of 4 images, not 1/2


def test_bootstrap_is_seeded_and_says_when_it_cannot():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_mean(values, np.arange(30)) == bootstrap_mean(values, np.arange(30))
    assert bootstrap_mean(values, np.arange(30)) != bootstrap_mean(values, np.arange(30), seed=1)
    assert np.isnan(bootstrap_mean(values, np.zeros(30)).low)
    for v, c in (([], []), ([1.0], [1, 2])):
        with pytest.raises(DataError):
            bootstrap_mean(v, c)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        people = rng.normal(size=(40, 1)) + rng.normal(size=(40, 3)) * 0.3
        interval = bootstrap_mean(people.ravel(), np.repeat(np.arange(40), 3), resamples=400)
        hits += interval.low <= 0 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


def test_runtime_ignores_a_slow_first_call():
    seconds = [9.0] + [1.0, 1.2] * 20
    assert runtime(seconds).median == 1.2 and runtime(seconds).spread == pytest.approx(0.1)


def test_t_interval_is_scipys():
    values = [0.3, 0.1, 0.25]
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((low, high))
    assert np.isnan(t_interval([1.0])).all()


# -- comparisons ----------------------------------------------------------------------------------------
def runs_of(shift_per_seed, noise, n=100, column="mse"):
    rng = np.random.default_rng(4)
    base = rng.normal(size=n)  # hard and easy images, shared by both sides
    a = [scores_of(base, column=column) for _ in shift_per_seed]
    b = [scores_of(base + s + rng.normal(size=n) * noise, column=column) for s in shift_per_seed]
    return a, b


def test_pairing_finds_what_unpaired_intervals_hide():
    a, b = runs_of([-0.020, -0.021, -0.019], noise=0.01)
    c = compare_paired(a, b, "mse", "λ4 = 1e3")
    assert c.difference.value == pytest.approx(-0.02, abs=0.003) and c.difference.high < 0
    unpaired = a[0].summary()["mse"]
    assert unpaired.high - unpaired.low > 10 * (c.difference.high - c.difference.low)
    assert "λ4 = 1e3 lowers MSE" in c.verdict and "better, beyond noise" in c.verdict
    assert "n = 100 images of 100 people, 3 seeds" in c.verdict


def test_difference_equals_the_mean_of_all_paired_differences():
    a, b = runs_of([0.1, 0.3], noise=0.5)
    c = compare_paired(a, b, "mse")
    deltas = [y.mse - x.mse for x, y in zip(a, b, strict=True)]
    assert c.difference.value == pytest.approx(np.mean(deltas))
    assert c.per_seed == pytest.approx([d.mean() for d in deltas])
    expected = scipy.stats.ttest_1samp(c.per_seed, 0).confidence_interval(0.95)
    assert c.seed_interval == pytest.approx(tuple(expected))


@pytest.mark.parametrize(
    "shifts, noise, column, words",
    [
        ([0.0, 0.0, 0.0], 1.0, "mse", "no difference can be told from noise at n ="),
        ([-0.1, 0.3, 0.02], 0.01, "mse", "no difference can be told from training luck"),
        ([0.1], 0.01, "mse", "one seed cannot tell it from luck"),
        ([0.1, 0.11, 0.1], 0.01, "mse", "worse, beyond noise"),
        ([0.1, 0.11, 0.1], 0.01, "similarity", "better, beyond noise"),
        ([-0.1, -0.11, -0.1], 0.01, "lpips", "lowers ST-LPIPS (alex) by 0.10"),
    ],
)
def test_verdicts_in_words(shifts, noise, column, words):
    assert words in compare_paired(*runs_of(shifts, noise, column=column), column).verdict


def test_what_cannot_be_compared_is_refused():
    a = scores_of([0.1, 0.2])
    for b in (
        scores_of([0.1, 0.2], name=["0", "x"]),
        scores_of([0.1]),
        [a, a],
        scores_of([0.1, 0.2], perceptual="LPIPS (alex)"),
    ):
        with pytest.raises(DataError):
            compare_paired(a, b)
    with pytest.raises(S2FError, match="unknown column"):
        compare_paired(a, a, "ssim")


# -- files and the table --------------------------------------------------------------------------------
def test_scores_survive_the_disk_and_damage_is_noticed(tmp_path, faces):
    scores = evaluate(offset(0.1), faces, "tiny", fake_judges())
    path = scores.save(tmp_path / "a" / "scores.npz")
    back = Scores.load(path)
    for key, value in vars(scores).items():
        np.testing.assert_array_equal(getattr(back, key), value)
    with pytest.raises(S2FError, match="exists"):
        scores.save(path)
    data = path.read_bytes()
    for damaged in (data[:-100], b"", b"x" * 500, data[:300] + bytes(40) + data[340:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="delete it"):
            Scores.load(path)


def test_table_text_csv_and_figure_agree(tmp_path):
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(20), 3)
    rows = {
        "pSp (λ4 = 0)": [scores_of(rng.normal(0.08, 0.01, 60), identity) for _ in range(3)],
        "mean face": scores_of(rng.normal(0.2, 0.01, 60), identity),
    }
    subset = rows["mean face"].subset(["3", "7", "30"])
    rows["W+ optimisation (ceiling)"] = subset
    table = table1(rows, seeds=(0, 1, 2))
    records = list(csv.DictReader(io.StringIO(table.csv)))
    mean = np.mean([s.mse for s in rows["pSp (λ4 = 0)"]])
    assert float(records[0]["mse"]) == pytest.approx(mean) and records[0]["runs"] == "3"
    assert float(records[0]["mse_low"]) < mean < float(records[0]["mse_high"])
    assert [r["n"] for r in records] == ["60", "60", "3"]
    assert f"{mean:.4f}" in table.text and "W+ optimisation (ceiling), n = 3" in table.text
    for words in (
        "tiny preset: not the paper's numbers",
        "n = 60 images of 20 people",
        "seeds 0, 1, 2",
        "ST-LPIPS (alex)",
        "dlib",
        "95 %",
    ):
        assert words in table.text
    assert len({len(line) for line in table.text.splitlines()[2:5]}) == 1  # aligned
    assert (0, 2) in table.bold and (1, 2) not in table.bold  # mean face is worse on MSE
    names = {p.name for p in table.save(tmp_path)}
    assert names == {"table1.txt", "table1.csv", "table1.png"}
    with pytest.raises(S2FError):
        table.save(tmp_path)
    with pytest.raises(DataError):
        table1({"a": rows["mean face"], "b": scores_of([1.0] * 60, name=[f"x{i}" for i in range(60)])})
    with pytest.raises(DataError):
        table1({})


def test_a_row_of_one_person_has_no_interval_and_may_come_first():
    whole = scores_of(np.linspace(0.1, 0.2, 12), np.repeat([1, 2, 3, 4], 3))
    table = table1({"one person (ceiling)": whole.subset(["0", "1", "2"]), "all": whole})
    assert table.rows[0][:3] == ("one person (ceiling), n = 3", "0.5000 ± 0.0000", f"{whole.mse[:3].mean():.4f}")
    assert table.records[0]["mse_low"] == "" and "nan" not in table.text + table.csv


def test_psp_predictor_refuses_another_presets_net():
    class Other(torch.nn.Module):
        latent_avg = torch.zeros(14, 512)

    with pytest.raises(WeightsError, match="tiny preset"):
        evaluation.psp_predictor(Other(), "tiny")


def test_the_shipped_judges_fit_in():
    """Similarity by embeddings is the judge's own similarity, and the labels say which nets measured."""
    faces, judges = Faces(2, 2), evaluation.Judges.of("tiny")
    scores = evaluate(offset(0.1), faces, "tiny", judges, batch=3, warmup=0)
    photos = torch.stack([faces[i]["photo"] for i in range(4)])
    output = offset(0.1)(torch.stack([faces[i]["sketch"] for i in range(4)]))
    with torch.no_grad():
        np.testing.assert_allclose(scores.similarity, judges.identity.similarity(output, photos), atol=1e-4)
        np.testing.assert_allclose(scores.lpips, judges.perceptual(output, photos), rtol=1e-3)
    assert "ST-LPIPS" in scores.perceptual and "dlib" in scores.identifier


def test_runtimes_are_measured_in_turn():
    """One sketch at a time, every predictor before the next sketch; the warm-up is not counted."""
    sketches, calls = torch.arange(3.0).view(3, 1, 1, 1), []

    def predictor(name, seconds):
        def predict(one):
            calls.append((name, one.item(), tuple(one.shape)))
            time.sleep(seconds if len(calls) > 4 else 0.3)  # the first two rounds are slow

        return predict

    found = runtimes_in_turn({"a": predictor("a", 0.0), "b": predictor("b", 0.02)}, sketches, warmup=2)
    assert [c[:2] for c in calls] == [(n, float(i)) for i in (0, 0, 0, 1, 2) for n in "ab"]
    assert {c[2] for c in calls} == {(1, 1, 1, 1)}
    assert found.keys() == {"a", "b"} and len(found["a"]) == len(found["b"]) == 3
    assert (found["b"] >= 0.02).all() and np.median(found["b"]) < 0.3
