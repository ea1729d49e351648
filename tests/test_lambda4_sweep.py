"""The sweep with trainings that take no time: resumes, redoes what is damaged, mixes nothing, tells the truth."""

import csv
import json

import numpy as np
import pytest
import torch
from fake_faces import Faces, fake_judges

from s2flib.errors import S2FError
from s2flib.lambda4_sweep import sweep

FILES = {
    "table1.csv",
    "table1.txt",
    "table1.png",
    "differences.csv",
    "differences.txt",
    "differences.png",
    "run.json",
    "cells",
}


class Trainer:
    """A "training" whose net is off by a known amount: 0.3, less by 0.1 at λ4 = 1, the seed's luck on top."""

    def __init__(self, luck=(0.0, 0.001, 0.002), fail_at=None):
        self.luck, self.fail_at, self.done = luck, fail_at, []

    def train(self, value, seed, folder):
        if (value, seed) == self.fail_at:
            raise KeyboardInterrupt
        self.done.append((value, seed))
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(torch.tensor(0.3 - 0.1 * (value == 1) + self.luck[seed]), folder / "net.pt")
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
    assert trainer.done == [(v, s) for v in (0, 1, 1000) for s in (0, 1, 2)]
    assert {p.name for p in out.iterdir()} == FILES
    record = json.loads((out / "run.json").read_text())
    assert record["wall_time_s"] > 0 and record["config"]["lambdas"] == [0, 1, 1000] and record["seeds"] == [0, 1, 2]
    assert {v: len(s) for v, s in result.scores.items()} == {0: 3, 1: 3, 1000: 3}


def test_the_verdicts_tell_an_effect_from_none(finished):
    result, _, out = finished
    with open(out / "differences.csv", newline="") as file:
        rows = {(r["lambda4"], r["column"]): r for r in csv.DictReader(file)}
    assert len(rows) == 6
    by_hand = np.mean([b.mse - a.mse for a, b in zip(result.scores[0], result.scores[1], strict=True)])
    assert float(rows["1", "mse"]["difference"]) == pytest.approx(by_hand) and by_hand < 0
    assert "λ4 = 1 lowers MSE" in rows["1", "mse"]["verdict"] and "better, beyond noise" in rows["1", "mse"]["verdict"]
    assert float(rows["1000", "mse"]["difference"]) == 0
    assert "exactly as it is on every one of 24 images" in rows["1000", "mse"]["verdict"]
    assert "6 comparisons" in result.summary and result.table.text in result.summary


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
        run(out, faces, Trainer(fail_at=(1.0, 1)))
    assert json.loads((out / "run.json").read_text())["wall_time_s"] is None  # shows that it was stopped
    second = Trainer()
    run(out, faces, second)
    assert second.done == [(1, 1), (1, 2), (1000, 0), (1000, 1), (1000, 2)]
    assert len(json.loads((out / "run.json").read_text())["resumed_from"]) == 1
    cells = out / "cells"
    scores = cells / "lambda4_0" / "seed_1" / "scores.npz"
    scores.write_bytes(scores.read_bytes()[:-7])
    (cells / "lambda4_1" / "seed_0" / "cell.json").write_text("{")
    (cells / "lambda4_1000" / "seed_2" / "scores.npz").unlink()
    (out / "run.json").write_text("not json")
    third = Trainer()
    result = run(out, faces, third)
    assert third.done == [(0, 1), (1, 0), (1000, 2)]
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
        {"train": None, "training": {"lambda4": 3}},
    ):
        with pytest.raises(S2FError):
            run(tmp_path / "out", faces, Trainer(), **changes)
        assert not (tmp_path / "out").exists()


def test_one_seed_one_lambda_one_photo_each(tmp_path):
    faces = Faces(4, 1, seed=1, first_person=9), Faces(5, 1, seed=2)  # no line-up is possible
    result = run(tmp_path / "a", faces, Trainer(), lambdas=(0,), seeds=(0,))
    assert "rank1" not in result.table.records[0] and result.comparisons == ()
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
