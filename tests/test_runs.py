"""run.json: complete, valid JSON, atomic; run directories never collide."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from s2flib import runs
from s2flib.errors import S2FError


@dataclass
class Config:
    out: Path
    lr: float
    sizes: tuple


def test_record_says_what_is_needed_to_repeat(tmp_path):
    record = runs.run_record("tiny", Config(tmp_path, 1e-3, (1, 2)), seeds=(0, 1))
    assert record["preset"] == "tiny" and "not the paper's numbers" in record["label"]
    assert record["config"] == {"out": str(tmp_path), "lr": 1e-3, "sizes": [1, 2]} and record["seeds"] == [0, 1]
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] or record["versions"]["torch"]
    assert record["hardware"]["cores"] >= 1 and record["hardware"]["processor"]
    assert record["wall_time_s"] is None and record["finished"] is None
    json.dumps(record, allow_nan=False)


def test_finish_measures_from_the_start():
    record = runs.run_record("tiny", {}, 3)
    record["started"] = "2020-01-01T00:00:00.000+00:00"
    done = runs.finish(record, rows=np.float32(2))
    assert done is record and done["seeds"] == [3] and done["rows"] == 2.0
    assert done["wall_time_s"] > 5 * 365 * 24 * 3600 and done["finished"] > "2025"


def test_plain_makes_strict_json():
    obj = {
        1: np.arange(3),
        "t": torch.tensor([1.5, float("nan")]),
        "s": {2, 1},
        "inf": float("inf"),
        "n": np.int64(4),
        "p": Path("a"),
        "none": None,
        "b": np.bool_(True),
    }
    assert runs.plain(obj) == {
        "1": [0, 1, 2],
        "t": [1.5, None],
        "s": [1, 2],
        "inf": None,
        "n": 4,
        "p": "a",
        "none": None,
        "b": True,
    }
    with pytest.raises(TypeError):
        runs.plain(object())


def test_write_json_never_overwrites_unasked_and_never_leaves_half(tmp_path):
    path = runs.write_json(tmp_path / "new" / "run.json", {"name": "λ4"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "λ4"}
    with pytest.raises(S2FError, match="exists"):
        runs.write_json(path, {})
    with pytest.raises(TypeError):
        runs.write_json(path, {"a": object()}, overwrite=True)
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "λ4"}
    runs.write_json(path, [1], overwrite=True)
    assert json.loads(path.read_text()) == [1] and len(list(path.parent.iterdir())) == 1


def test_run_dirs_differ_and_bad_base_is_said(tmp_path):
    made = {runs.new_run_dir(tmp_path / "runs") for _ in range(5)}
    assert len(made) == 5 and all(p.is_dir() for p in made)
    (tmp_path / "file").write_text("")
    with pytest.raises(S2FError, match="file"):
        runs.new_run_dir(tmp_path / "file")


def test_git_revision_of_a_checkout_and_not_of_what_surrounds_one(tmp_path):
    def git(*arguments):
        return subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    assert runs.git_revision(tmp_path) == {"revision": None, "dirty": None}
    git("init")
    (tmp_path / "f").write_text("1")
    git("add", "f")
    git("commit", "-m", "x")
    assert runs.git_revision(tmp_path) == {"revision": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "f").write_text("2")
    assert runs.git_revision(tmp_path)["dirty"] is True
    (tmp_path / "venv").mkdir()
    assert runs.git_revision(tmp_path / "venv") == {"revision": None, "dirty": None}
