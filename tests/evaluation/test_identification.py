"""The report's tables against independent formulas on simulated people, its files, its text and its figures."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from s2flib.errors import DataError, S2FError
from s2flib.evaluation import candidates, cmc, identification, open_set
from s2flib.evaluation.identification import IdentificationTest, figures, read_tables, report_identification, where
from s2flib.evaluation.identification_tables import _slope, measure
from s2flib.evaluation.lineup import rank_probes
from s2flib.evaluation.probes import KINDS, Kind, Probes

PEOPLE, FEW, VARIANTS = 120, 60, 3
NOISE = dict(zip(KINDS, (0.8, 1.2, 1.3, 1.4, 0.8, 1.0, 1.6, 2.5, 4.0), strict=True))


def simulate(split):
    """Probes and scores of a split: drawings are the person's vector with noise that depends on the kind."""
    rng = np.random.default_rng(["val", "test"].index(split))
    truth = rng.normal(size=(PEOPLE, 16))

    def seen(n, r, noise):
        return cmc.unit(truth[:n, None] + noise * rng.normal(size=(n, r, 16)))

    kinds = {}
    for kind in KINDS:
        n, r = (FEW if kind.startswith("recall") else PEOPLE), {"pencil": 3, "recall 0.5": 3}.get(kind, 1)
        embedding = seen(n, r, NOISE[kind])
        variants = cmc.unit(embedding[:FEW, :1] + 0.1 * rng.normal(size=(FEW, VARIANTS, 16)))
        kinds[kind] = Kind(np.zeros((n, r, 2, 2), np.uint8), embedding, variants)
    rows = [
        {"gender": rng.choice(["male", "female"]), "age": rng.uniform(18, 80), "skin_tone": rng.uniform(0, 7),
         "ethnicity_african": 0.2, "ethnicity_caucasian": 0.6 - 0.4 * (i % 2), "ethnicity_asian": 0.2 + 0.4 * (i % 2)}
        for i in range(PEOPLE)
    ]  # fmt: skip
    gallery = seen(PEOPLE, 1, 0.5)[:, 0]
    probes = Probes(np.arange(PEOPLE) * 7, np.arange(PEOPLE), gallery, seen(PEOPLE, 3, 0.5), rows, kinds)
    scores = {("photo", "photo"): cmc.cosines(probes.photo, gallery)}
    for name, kind in kinds.items():
        face = cmc.cosines(kind.embedding, gallery)
        other = cmc.cosines(seen(*kind.embedding.shape[:2], 2.0), gallery)
        scores |= {("face", name): face, ("matcher", name): other}
        scores["both", name] = cmc.standardised(face) + cmc.standardised(other)
    return probes, scores


@pytest.fixture(scope="module")
def world():
    made = {split: simulate(split) for split in ("val", "test")}
    return {k: p for k, (p, _) in made.items()}, {k: s for k, (_, s) in made.items()}


@pytest.fixture(scope="module")
def measured(world):
    import s2flib.evaluation.identification_tables as tables

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "PERMUTATIONS", 200)
        return measure(world[1], world[0], seed=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory, world):
    """A folder of a whole run, with the networks' part simulated."""
    import s2flib.evaluation.identification_tables as tables

    folder = tmp_path_factory.mktemp("run") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "PERMUTATIONS", 200)
        patch.setattr(identification, "search", lambda test, split, cache: (world[0][split], world[1][split]))
        text, folder = report_identification(IdentificationTest(seed=3), folder)
    return SimpleNamespace(text=text, folder=folder, tables=read_tables(folder))


def test_ranks_are_those_of_the_line_up(world, run):
    probes = world[0]["test"]
    ids = np.arange(PEOPLE)
    for kind in ("pencil", "line, clean", "recall 0.75"):
        e = probes.kinds[kind].embedding
        hits = np.concatenate(
            [rank_probes(e[:, r], ids[: len(e)], probes.gallery, ids).rank for r in range(e.shape[1])]
        )
        for k in (1, 5, 10):
            (row,) = where(run.tables["ranks"], method="face", kind=kind, rank=k)
            assert row["value"] == pytest.approx((hits <= k).mean(), abs=1e-4) and row["n"] == len(hits)
            assert row["low"] <= row["value"] <= row["high"]


def test_the_order_is_as_it_must_be(run):
    rank_1 = {(r["method"], r["kind"]): r["value"] for r in where(run.tables["ranks"], rank=1)}
    assert (
        rank_1["photo", "photo"] > rank_1["face", "pencil"] > rank_1["face", "recall 0.75"] > rank_1["face", "recall 1"]
    )
    assert rank_1["both", "pencil"] > rank_1["matcher", "pencil"]


def test_shuffled_people_are_at_chance_in_every_row(run):
    rows = [r for r in run.tables["ranks"] if "shuffled" in r["method"]]
    assert len(rows) == 3 * 3 * len(KINDS)
    outside = [r for r in rows if not r["low"] - 0.01 <= r["rank"] / PEOPLE <= r["high"] + 0.01]
    assert not outside, outside[:2]
    for row in where(run.tables["candidates"], measure="shuffled"):
        (size,) = where(run.tables["candidates"], kind=row["kind"], sets=row["sets"], measure="mean size")
        assert row["value"] == pytest.approx(size["value"] / PEOPLE, rel=1e-3)


def test_cmc_rebuilt_from_the_searches_is_the_table(run):
    with np.load(run.folder / "per_probe.npz") as stored:
        rank = stored["test/face/pencil/rank"]
        assert set(stored["group/gender"]) == {"male", "female"}
    for row in where(run.tables["cmc"], method="face", kind="pencil"):
        assert row["value"] == pytest.approx((rank <= row["k"]).mean(), abs=1e-4)
    (chance,) = where(run.tables["cmc"], method="chance", k=10)
    assert chance["value"] == pytest.approx(10 / PEOPLE, abs=1e-5) and np.isnan(chance["low"])


def test_open_set_thresholds_come_from_val_and_rates_from_test(world, run):
    val, test = (open_set.searches(world[1][s]["face", "pencil"]) for s in ("val", "test"))
    for target in open_set.FPIRS:
        at = val.threshold(target)
        rows = where(run.tables["open_set"], method="face", kind="pencil", target_fpir=target)
        assert rows[0]["threshold"] == pytest.approx(at, rel=1e-5)
        found = {r["measure"]: r["value"] for r in rows}
        assert found["FPIR"] == pytest.approx((test.top >= at).mean(), abs=1e-4)
        assert found["FNIR"] == pytest.approx(1 - ((test.mate >= at) & (test.rank == 1)).mean(), abs=1e-4)
    (bits,) = where(run.tables["calibration"], method="face", kind="pencil")
    assert 0 < bits["cllr_least"] <= bits["cllr_logistic"] < 0.6
    assert rows[0]["threshold_llr"] == pytest.approx(bits["slope"] * at + bits["offset"], rel=1e-2)


def test_det_rows_are_fnir_at_fpir(world, run):
    found = open_set.searches(world[1]["test"]["matcher", "line, clean"])
    rows = where(run.tables["det"], method="matcher", kind="line, clean")
    for row in rows:
        at = found.threshold(min(row["fpir"], 0.999))
        if row["fpir"] in (0.1, 0.3):
            assert row["value"] == pytest.approx(found.fnir(at).value, abs=1e-4)
    assert {0.01, 0.1} <= {row["fpir"] for row in rows}


def test_candidate_sets_cover_and_grow_with_what_is_forgotten(run):
    def of(kind, sets, measure):
        return where(run.tables["candidates"], kind=kind, sets=sets, measure=measure)[0]

    inside = 0
    for kind in KINDS:
        row = of(kind, "variants", "coverage")
        inside += row["expected_low"] <= row["value"] <= row["expected_high"]
        assert row["expected_low"] < 0.95 < row["expected_high"] and row["calibration"] == row["n"] == FEW
        mine = where(run.tables["candidate_sets"], kind=kind)
        assert np.mean([r["covered"] for r in mine]) == pytest.approx(row["value"], abs=1e-4)
        assert np.mean([r["size"] for r in mine]) == pytest.approx(of(kind, "variants", "mean size")["value"], rel=1e-4)
    assert inside >= len(KINDS) - 1  # each with probability 95 %
    sizes = [of(f"recall {e}", "variants", "mean size")["value"] for e in ("0", "0.5", "0.75", "1")]
    assert sizes == sorted(sizes)
    assert of("recall 1", "τ of perfect memory", "coverage")["value"] < 0.7
    assert not where(run.tables["candidates"], kind="pencil", sets="τ of perfect memory")


def test_the_sets_threshold_comes_from_val(world, run):
    probes = world[0]["val"]
    for kind in ("pencil", "line, sketchy", "recall 1"):
        (row,) = where(run.tables["candidates"], kind=kind, sets="variants", measure="coverage")
        votes = candidates.votes(probes.kinds[kind].variants, probes.gallery, row["slope"])
        assert row["threshold"] == pytest.approx(np.sort(np.diagonal(votes))[2], rel=1e-2)  # the third of 60


def test_the_slope_is_not_fitted_on_the_people_who_calibrate(world):
    val = {("face", "line, clean"): world[1]["val"]["face", "line, clean"].copy()}
    slope = _slope(val, "line, clean", FEW)
    val["face", "line, clean"][:FEW] = 0.123  # the calibrating people's scores do not matter
    assert _slope(val, "line, clean", FEW) == slope
    assert _slope(world[1]["val"], "recall 1", FEW) == _slope(world[1]["val"], "pencil", FEW)


def test_every_figure_is_shown_for_every_group(measured):
    rows, gaps = measured[0]["fairness"], measured[0]["gaps"]
    names = {r["figure"] for r in rows}
    assert {"rank-1, photo against photo", "FNIR, face of pencil", "FPIR, face of recall 1",
            "size of the candidate set, face of line, clean", "rank-10, matcher of pencil"} <= names  # fmt: skip
    for name in names:
        assert {r["attribute"] for r in rows if r["figure"] == name} == {
            "everybody", "gender", "age", "ancestry", "skin tone"}  # fmt: skip
    assert all(float(g["corrected"]) >= float(g["p"]) for g in gaps)


def test_paired_and_fused(world, run):
    probes = world[0]["test"]
    e = probes.kinds["pencil"].embedding
    one = cmc.ranks(cmc.cosines(e, probes.gallery))
    fused = cmc.ranks(cmc.cosines(cmc.fuse_embeddings(e), probes.gallery))
    rows = where(run.tables["fusion"], what="3 composites: pencil sketches of other photos", rank=1)
    assert [r["fusion"] for r in rows] == ["one alone", "embeddings (mean)", "scores (z-norm)", "ranks"]
    assert rows[0]["value"] == pytest.approx((one == 1).mean(), abs=1e-4) and np.isnan(rows[0]["difference"])
    assert rows[1]["difference"] == pytest.approx((fused == 1).mean() - (one == 1).mean(), abs=1e-4)
    assert {r["what"] for r in run.tables["fusion"]} == {
        "3 composites: line drawings by each hand", "3 composites: pencil sketches of other photos",
        "3 witnesses: recall 0.5"}  # fmt: skip
    (row,) = where(run.tables["paired"], one="face, pencil", other="matcher, pencil", rank=1)
    assert row["value"] < 0 and "worse, beyond noise" in row["verdict"]
    (row,) = where(run.tables["paired"], one="face, recall 0", other="face, recall 1", rank=10)
    assert row["value"] < 0 and row["people"] == FEW


def test_the_text_says_what_it_is_and_is_not(run):
    assert run.text == (run.folder / "identification.txt").read_text(encoding="utf-8")
    first, last = run.text.splitlines()[0], run.text.rstrip().splitlines()[-1]
    assert "tiny preset" in first and "never evidence" in first and "never evidence" in last
    for part in (
        "CLOSED SET",
        "DOES THE FACE HELP",
        "OPEN SET",
        "CANDIDATE SETS",
        "FAIRNESS",
        "seed 3",
        "remain after",
    ):
        assert part in run.text
    record = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    assert record["seeds"] == [3] and record["config"]["people"] == 80 and len(record["rank_1"]) == len(KINDS)


def test_figures_are_drawn_from_the_files(run):
    drawn = figures(run.tables)
    assert list(drawn) == ["cmc", "matcher", "det", "sizes", "fairness"]
    for name, figure in drawn.items():
        assert len(figure._repr_png_()) > 5000, name
    lines = {line.get_label(): line for line in drawn["cmc"].axes[0].lines}
    k, value = lines["pencil"].get_data()
    for row in where(run.tables["cmc"], method="face", kind="pencil"):
        assert value[list(k).index(row["k"])] == row["value"]
    axes = {a.get_title(loc="left"): a for a in drawn["det"].axes}
    colours = {k: {x.get_label(): x.get_color() for x in a.lines} for k, a in axes.items()}
    assert colours["what is drawn"]["pencil"] == lines["pencil"].get_color()


def test_files_are_not_overwritten_and_missing_ones_are_named(run, tmp_path):
    with pytest.raises(S2FError, match="--overwrite"):
        report_identification(IdentificationTest(), run.folder)
    with pytest.raises(DataError, match="ranks.csv is missing: run s2f identify"):
        read_tables(tmp_path)
    with pytest.raises(S2FError, match="at least 2 people"):
        report_identification(IdentificationTest(people=1), tmp_path / "x")
    with pytest.raises(S2FError, match="crayon"):
        report_identification(IdentificationTest(kinds=("crayon",)), tmp_path / "x")


def test_only_some_kinds(world, tmp_path, monkeypatch):
    """Without line drawings or recall, the report has fewer rows and no holes."""
    kept = ("recall 1",)
    probes = {
        s: Probes(**vars(p) | {"kinds": {k: v for k, v in p.kinds.items() if k in kept}}) for s, p in world[0].items()
    }
    scores = {s: {k: v for k, v in x.items() if k[1] in (*kept, "photo")} for s, x in world[1].items()}
    monkeypatch.setattr("s2flib.evaluation.identification_tables.PERMUTATIONS", 50)
    monkeypatch.setattr(identification, "search", lambda test, split, cache: (probes[split], scores[split]))
    text, folder = report_identification(IdentificationTest(kinds=kept), tmp_path / "few")
    assert "recall 1, face" in text and "pencil" not in text.split("CANDIDATE")[1].split("FAIRNESS")[0]
    tables = read_tables(folder)
    assert len(tables["fusion"]) == 1 and np.isnan(tables["fusion"][0]["value"])
    assert figures(tables)
