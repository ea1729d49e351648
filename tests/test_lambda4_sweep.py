"""The sweep with trainings that take no time: resumes, redoes what is damaged, mixes nothing, tells the truth."""

import csv
import json

import numpy as np
import pytest
import torch
from fake_faces import Faces, fake_judges

from s2flib import lambda4_tables
from s2flib.errors import S2FError
from s2flib.evaluation.scores import compare_values
from s2flib.files import read_csv
from s2flib.lambda4_conditions import Condition, condition, conditions
from s2flib.lambda4_sweep import sweep

FILES = {
    "table1.csv",
    "table1.txt",
    "table1.png",
    "differences.csv",
    "differences.txt",
    "differences.png",
    "ranks.png",
    "images.csv",
    "shares.csv",
    "shares.png",
    "runtime.csv",
    "run.json",
    "cells",
}


class Trainer:
    """A "training" whose net is off by a known amount: 0.3, less by 0.1 at λ4 = 1, the seed's luck on top."""

    def __init__(self, luck=(0.0, 0.001, 0.002), fail_at=None):
        self.luck, self.fail_at, self.done = luck, fail_at, []

    def train(self, condition, seed, folder):
        value = condition.key
        if (value, seed) == self.fail_at:
            raise KeyboardInterrupt
        self.done.append((value, seed))
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(torch.tensor(0.3 - 0.1 * (value == "1") + self.luck[seed]), folder / "net.pt")
        attention = {"0": 0.0, "1": 0.25}.get(value, 0.5)
        shares = {"l2": 0.5 - attention / 2, "attention": attention, "lpips": 0.5 - attention / 2, "reg": 0.1}
        rows = [f"{step},share_{k},{v}\n" for step in (2, 4) for k, v in shares.items()]
        (folder / "log.csv").write_text("step,name,value\n2,total,1\n" + "".join(rows) + f"4,lambda4,{seed}\n")
        return folder / "net.pt"

    @staticmethod
    def load(path):
        amount = torch.load(path, weights_only=True)
        return lambda sketches: (sketches * 2 - 1).expand(-1, 3, -1, -1) + amount


@pytest.fixture(scope="module")
def faces():
    return Faces(8, 2, seed=1, first_person=20), Faces(12, 2, seed=2)


def run(out, faces, trainer, **changes):
    arguments = dict(
        lambdas=(0, 1, 1e3),
        seeds=(0, 1, 2),
        steps=5,
        progress=False,
        device="cpu",
        judges=fake_judges(),
        train=trainer.train,
        load=trainer.load,
        datasets=faces,
    )
    return sweep("tiny", out=out, **{**arguments, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, faces):
    trainer = Trainer()
    out = tmp_path_factory.mktemp("sweeps") / "sweep"
    return run(out, faces, trainer), trainer, out


def test_every_cell_once_and_every_file(finished):
    result, trainer, out = finished
    assert trainer.done == [(v, s) for s in (0, 1, 2) for v in ("0", "1", "1000")]
    assert {p.name for p in out.iterdir()} == FILES
    record = json.loads((out / "run.json").read_text())
    assert (
        record["wall_time_s"] > 0 and record["config"]["lambdas"] == ["0", "1", "1000"] and record["seeds"] == [0, 1, 2]
    )
    assert {v: len(s) for v, s in result.scores.items()} == {"0": 3, "1": 3, "1000": 3}


def test_the_verdicts_tell_an_effect_from_none(finished):
    result, _, out = finished
    with open(out / "differences.csv", newline="") as file:
        rows = {(r["condition"], r["column"]): r for r in csv.DictReader(file)}
    assert {c for _, c in rows} == {"mse", "lpips", "similarity", "rank1", "rank10"} and len(rows) == 10
    by_hand = np.mean([b.mse - a.mse for a, b in zip(result.scores["0"], result.scores["1"], strict=True)])
    one, thousand = rows["λ4 = 1", "mse"], rows["λ4 = 1000", "mse"]
    assert float(one["difference"]) == pytest.approx(by_hand) and by_hand < 0 and one["outcome"] == "better"
    assert "λ4 = 1 lowers MSE" in one["verdict"] and "better, beyond noise" in one["verdict"]
    assert float(thousand["difference"]) == 0 and thousand["outcome"] == "open"
    assert "exactly as it is on every one of 24 images" in thousand["verdict"]
    last = (out / "differences.txt").read_text().splitlines()[-1]
    assert last.startswith("Against plain pSp, 24 images of 12 people, 3 seeds: λ4 = 1: better MSE, mean absolute")
    assert last.endswith("no difference shown for λ4 = 1000.") and last in result.summary
    assert "10 comparisons" in result.summary and result.table.text in result.summary


def test_what_it_wrote_is_read_back(finished):
    result, _, out = finished
    back = lambda4_tables.read_comparisons(out / "differences.csv")
    assert back == result.comparisons
    images = read_csv(out / "images.csv")
    assert [r["name"] for r in images] == [str(n) for n in result.scores["0"][0].name]
    for key, several in result.scores.items():
        for column in ("mse", "lpips", "similarity", "face_mse"):
            mean = np.mean([getattr(s, column) for s in several], axis=0)
            np.testing.assert_allclose([r[f"{column} {key}"] for r in images], mean, rtol=1e-4)
    seconds = read_csv(out / "runtime.csv")
    assert len(seconds) == 24 and set(seconds[0]) == {"pSp (λ4 = 0)", "+ attention, λ4 = 1", "+ attention, λ4 = 1000"}
    medians = [np.median([r[name] for r in seconds]) for name in seconds[0]]
    assert [r["runtime_s"] for r in result.table.records[:3]] == pytest.approx(medians, rel=1e-3)
    assert result.table.records[3]["runtime_s"] == ""  # the mean face was not timed in turn with them


def test_shares_of_the_gradient_over_training(finished):
    rows = read_csv(finished[2] / "shares.csv")
    assert {r["condition"] for r in rows} == {"λ4 = 0", "λ4 = 1", "λ4 = 1000"} and {r["seed"] for r in rows} == {
        0,
        1,
        2,
    }
    assert len(rows) == 9 * (2 * 4 + 1) and {r["step"] for r in rows} == {2, 4}  # four shares twice, λ4 once; no totals
    assert {r["value"] for r in rows if r["loss"] == "lambda4"} == {0, 1, 2}
    figure = lambda4_tables.shares_figure(rows)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == ["λ4 = 0", "λ4 = 1", "λ4 = 1000"]
    tops = [max(path.vertices[:, 1].max() for path in c.get_paths()) for c in panels["λ4 = 1"].collections]
    assert tops == pytest.approx([0.375, 0.75, 0.75, 1.0])  # L2, LPIPS, no ID, attention: stacked


def test_runtime_is_kept_where_the_weights_are_gone(tmp_path, faces):
    out = tmp_path / "sweep"
    first = run(out, faces, Trainer(), lambdas=(0, 1), seeds=(0,), baselines=False)
    for net in out.rglob("net.pt"):
        net.unlink()
    again = run(out, faces, Trainer(fail_at=("0", 0)), lambdas=(0, 1), seeds=(0,), baselines=False)
    assert [r["runtime_s"] for r in again.table.records[:2]] == [r["runtime_s"] for r in first.table.records[:2]]


def test_table_has_our_rows_and_those_beside_them(finished):
    names = [r["method"] for r in finished[0].table.records]
    assert names == [
        "pSp (λ4 = 0)",
        "+ attention, λ4 = 1",
        "+ attention, λ4 = 1000",
        "mean face",
        "nearest sketch",
        "photo against photo (ceiling)",
        "shuffled people (control)",
        "chance",
    ]
    assert finished[0].table.records[0]["runs"] == 3 and finished[0].table.records[-1]["rank1"] == 1 / 12


def test_resume_skips_what_is_finished_and_redoes_what_is_damaged(tmp_path, faces, finished):
    out = tmp_path / "sweep"
    with pytest.raises(KeyboardInterrupt):
        run(out, faces, Trainer(fail_at=("1", 1)))
    assert json.loads((out / "run.json").read_text())["wall_time_s"] is None  # shows that it was stopped
    second = Trainer()
    run(out, faces, second)
    assert second.done == [("1", 1), ("1000", 1), ("0", 2), ("1", 2), ("1000", 2)]
    assert len(json.loads((out / "run.json").read_text())["resumed_from"]) == 1
    cells = out / "cells"
    scores = cells / "lambda4_0" / "seed_1" / "scores.npz"
    scores.write_bytes(scores.read_bytes()[:-7])
    (cells / "lambda4_1" / "seed_0" / "cell.json").write_text("{")
    (cells / "lambda4_1000" / "seed_2" / "scores.npz").unlink()
    (out / "run.json").write_text("not json")
    third = Trainer()
    result = run(out, faces, third)
    assert third.done == [("1", 0), ("0", 1), ("1000", 2)]
    for value, several in finished[0].scores.items():
        for a, b in zip(several, result.scores[value], strict=True):
            np.testing.assert_array_equal(a.mse, b.mse)


def test_settings_are_never_mixed(tmp_path, faces):
    out = tmp_path / "sweep"
    run(out, faces, Trainer(), lambdas=(0,), seeds=(0,))
    for changes in ({"steps": 6}, {"seeds": (0, 1)}, {"training": {"lr": 1.0}}):
        with pytest.raises(S2FError, match="other settings"):
            run(out, faces, Trainer(), **{"lambdas": (0,), "seeds": (0,), **changes})
    (out / "run.json").unlink()
    with pytest.raises(S2FError, match="other files"):
        run(out, faces, Trainer(), lambdas=(0,), seeds=(0,), steps=6)
    (out / "run.json").write_text("damaged")
    with pytest.raises(S2FError, match="cell with other settings"):
        run(out, faces, Trainer(), lambdas=(0,), seeds=(0,), steps=6)
    with pytest.raises(S2FError, match="resume"):
        run(tmp_path / "b", faces, Trainer(), lambdas=(0,), seeds=(0,))
        run(tmp_path / "b", faces, Trainer(), lambdas=(0,), seeds=(0,), resume=False)


def test_a_folder_with_other_files_is_left_alone(tmp_path, faces):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(S2FError, match="other files"):
        run(tmp_path, faces, Trainer())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_nonsense_is_refused_before_anything_is_written(tmp_path, faces):
    for changes in (
        {"lambdas": (1, 2)},
        {"lambdas": (-1, 0)},
        {"lambdas": ()},
        {"seeds": ()},
        {"lambdas": (0, float("inf"))},
        {"lambdas": (0, "10%%")},
        {"train": None, "training": {"lambda4": 3}},
        {"train": None, "training": {"attention_share": 0.1}},
    ):
        with pytest.raises(S2FError):
            run(tmp_path / "out", faces, Trainer(), **changes)
        assert not (tmp_path / "out").exists()


def test_one_seed_one_lambda_one_photo_each(tmp_path):
    faces = Faces(4, 1, seed=1, first_person=9), Faces(5, 1, seed=2)  # no line-up is possible
    result = run(tmp_path / "a", faces, Trainer(), lambdas=(0,), seeds=(0,))
    assert "rank1" not in result.table.records[0] and result.comparisons == {}
    assert "Nothing to compare" in result.summary and not (tmp_path / "a" / "differences.png").exists()


def test_a_sweep_keeps_its_folder_and_is_not_stopped_by_litter(tmp_path):
    """Part files of a kill and a system's hidden files are no reason to refuse; a second process is."""
    from s2flib.files import claimed
    from s2flib.lambda4_sweep import _claim
    from s2flib.presets import TINY

    (tmp_path / ".DS_Store").touch()
    (tmp_path / ".run.0123abcd.json").touch()
    (tmp_path / "cells").mkdir()
    _claim(tmp_path, TINY, {"lambdas": [0.0], "seeds": [0]}, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(S2FError, match="other files"):
        _claim(tmp_path / "other", TINY, {"lambdas": [0.0], "seeds": [0]}, resume=True)
    with claimed(tmp_path / "busy"), pytest.raises(S2FError, match="in use by another"):
        sweep("tiny", [0.0], [0], steps=1, out=tmp_path / "busy")


# --- conditions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "key", "label", "folder", "training"),
    [
        (0, Condition(), "0", "λ4 = 0", "lambda4_0", {"lambda4": 0.0}),
        ("1e3", Condition(1000.0), "1000", "λ4 = 1000", "lambda4_1000", {"lambda4": 1000.0}),
        ("10%", Condition(share=0.1), "10%", "10 % of the gradient", "share_0.1", {"attention_share": 0.1}),
        (
            " 50 % @2+0",
            Condition(share=0.5, maps=(0, 2)),
            "50%@0+2",
            "50 % of the gradient, maps 0 and 2",
            "share_0.5_maps_0-2",
            {"attention_share": 0.5, "attention_maps": (0, 2)},
        ),
        (
            "published:1e9",
            Condition(1e9, published=True),
            "published:1e+09",
            "published code, λ4 = 1e+09",
            "published_lambda4_1e+09",
            {"lambda4": 1e9, "attention": "published"},
        ),
    ],
)
def test_conditions_are_written_and_read(text, expected, key, label, folder, training):
    found = condition(text)
    assert found == expected == condition(found.key) == condition(found)
    assert (found.key, found.label, found.folder, found.training) == (key, label, folder, training)
    assert found.plain == (text == 0)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "nan", "inf", "0%", "100%", "-5%", "1@", "1@x", "0@1", "published:", "published:0",
             "published:10%", "published:1@0", "other:1", "1%%", "1@-1", None]
)  # fmt: skip
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(S2FError, match="no condition of the λ4 sweep"):
        condition(text)


def test_conditions_are_sorted_and_unique():
    found = [c.key for c in conditions(["published:1e9", "50%@0", "50%", "1%", 1e3, "1000.0", 1, 0])]
    assert found == ["0", "1", "1000", "1%", "50%", "50%@0", "published:1e+09"]
    with pytest.raises(S2FError, match="add λ4 = 0"):
        conditions(["10%"])


def test_every_field_of_a_condition_is_one_of_the_training():
    from s2flib.training.encoder import EncoderConfig

    for text in (0, "10%@1", "published:5"):
        EncoderConfig(out="x", **condition(text).training)


def test_the_verdict_says_only_what_the_intervals_carry(tmp_path):
    """Better and worse where people and seeds agree; one seed's luck and an interval over zero are no difference."""
    people, noise = np.arange(60), 0.01 * (-1.0) ** np.arange(60)

    def compared(column, mean, seeds_apart=0.0, n=3):
        shifts = mean + seeds_apart * np.linspace(-1, 1, n)[:, None]
        return compare_values(shifts + noise, people, column, column.upper(), "x")

    found = {
        "a": [compared("mse", -0.1), compared("similarity", -0.1), compared("rank1", 0.1)],
        "b": [compared("mse", 0.1), compared("similarity", 0.0), compared("rank1", 0.1, seeds_apart=2.0)],
        "c": [compared("mse", 0.0), compared("similarity", 0.0), compared("rank1", 0.0)],
    }
    outcomes = {label: [c.outcome for c in several] for label, several in found.items()}
    assert outcomes == {"a": ["better", "worse", "better"], "b": ["worse", "open", "open"], "c": ["open"] * 3}
    assert lambda4_tables.verdict(found) == (
        "Against plain pSp, 60 images of 60 people, 3 seeds: a: better MSE, RANK1 and worse SIMILARITY; b: worse MSE; "
        "no difference shown for c."
    )
    one_seed = compared("mse", -0.1, n=1)
    assert one_seed.outcome == "open" and lambda4_tables.verdict({"a": [one_seed]}).endswith(
        "1 seed: no difference shown for a."
    )
    assert "Nothing to compare" in lambda4_tables.write_comparisons(tmp_path, {})
    assert lambda4_tables.verdict({}) == "" and not (tmp_path / "differences.csv").exists()
    text = lambda4_tables.write_comparisons(tmp_path, found)
    assert "9 comparisons: about 0.5" in text and lambda4_tables.read_comparisons(tmp_path / "differences.csv") == found
