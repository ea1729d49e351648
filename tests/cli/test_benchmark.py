"""s2f benchmark: the table of a stand-in set, its ranks, its gallery and what it refuses."""

import csv
import hashlib
import json

import numpy as np
import pytest
import sketch_sets
import torch
from commands import REPO, refused, s2f
from fake_faces import Cells, Faces
from PIL import Image

from s2flib.errors import DataError
from s2flib.evaluation.lineup import Chance
from s2flib.evaluation.sketch_benchmark import further_photos, measure
from s2flib.images import load_image


@pytest.fixture
def fs2k(tmp_path):
    return sketch_sets.write_fs2k(tmp_path / "FS2K")


@pytest.fixture
def judged(stand_in):
    """The stand-in's untrained encoder, and the measuring network."""
    name = "dlib-resnet.safetensors"
    if not (stand_in / "weights" / name).exists():
        (stand_in / "weights" / name).symlink_to(REPO / "data" / "weights" / name)
    return stand_in


def photo_of(faces):
    """A predictor that returns the right photo: it knows which sketch belongs to which."""
    sketches = torch.stack([faces[i]["sketch"] for i in range(len(faces))])

    def predict(asked):
        nearest = [int((sketches - one).abs().flatten(1).sum(1).argmin()) for one in asked]
        return torch.stack([faces[i]["photo"] for i in nearest])

    return predict


def test_ranks():
    faces, strangers = Faces(60, 1), Faces(40, 1, seed=3)
    ranks = measure(photo_of(faces), faces, Cells(), "tiny", strangers, progress=False)
    assert (ranks["closed set", "pSp"].rank == 1).all() and (ranks["extended", "pSp"].rank == 1).all()
    assert ranks["closed set", "pSp"].gallery == 60 and ranks["extended", "pSp"].gallery == 100
    shuffled = ranks["closed set", "shuffled (control)"]
    assert shuffled.rate(1).value == 0 and abs(shuffled.rate(10).value - 10 / 60) < 0.15
    assert ranks["extended", "chance"] == Chance(100)
    baseline = ranks["closed set", "sketch against photo (baseline)"]  # here the sketch is the photo's red channel
    assert baseline.rate(1).value < 1 and (ranks["extended", baseline_name()].rank >= baseline.rank).all()


def baseline_name():
    return "sketch against photo (baseline)"


def test_ranks_are_seeded_and_need_two_people():
    faces = Faces(12, 1)
    a, b, c = (measure(photo_of(faces), faces, Cells(), "tiny", seed=s, progress=False) for s in (0, 0, 1))
    key = ("closed set", "shuffled (control)")
    assert (a[key].rank == b[key].rank).all() and (a[key].rank != c[key].rank).any()
    with pytest.raises(DataError, match="two people"):
        measure(photo_of(faces), Faces(1, 1), Cells(), "tiny", progress=False)


def test_further_photos(tmp_path, fs2k):
    folder = fs2k / "photo"
    (own,) = folder.glob("photo2/image0001.jpg")
    Image.new("RGB", (200, 200), "grey").save(folder / "grey.png")
    (folder / "broken.png").write_text("no picture")
    pair = np.hstack([load_image(p) for p in sorted(folder.glob("photo1/*.jpg"))[:2]])
    Image.fromarray(pair).save(folder / "two.png")
    found = further_photos(folder, 128, {hashlib.sha256(own.read_bytes()).hexdigest()})
    assert len(found) == 7 and found.photos[0].shape == (128, 128, 3)
    assert found.skipped == {"in the gallery already": 1, "no face": 1, "unreadable": 1, "several faces": 1}
    with pytest.raises(DataError, match="choose a folder"):
        further_photos(tmp_path / "no", 128)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="contains no pictures"):
        further_photos(tmp_path / "empty", 128)


def test_benchmark(judged, fs2k, tmp_path):
    out = tmp_path / "out"
    arguments = ("benchmark", fs2k, "--set", "fs2k", "-o", out, "--gallery", fs2k / "photo")
    result = s2f(*arguments, "--debug")
    assert result.exit_code == 0, (result.output, result.exception)
    assert {p.name for p in out.iterdir()} == {"benchmark.txt", "benchmark.csv", "run.json"}
    text = (out / "benchmark.txt").read_text()
    assert text.strip() in result.output
    for words in ("tiny preset", "6 sketches", "6 people (closed set)", "8 people (extended)", "one photo of each"):
        assert words in " ".join(text.split()), (words, text)
    rows = list(csv.DictReader((out / "benchmark.csv").open()))
    assert [(row["gallery"], row["method"]) for row in rows] == [
        (gallery, method)
        for gallery in ("closed set", "extended")
        for method in ("pSp", baseline_name(), "shuffled (control)", "chance")
    ]
    assert float(rows[3]["rank1"]) == pytest.approx(1 / 6) and rows[0]["rank1_low"] and not rows[0]["rank10"]
    assert all(row["people"] == ("6" if row["gallery"] == "closed set" else "8") for row in rows)
    record = json.loads((out / "run.json").read_text())
    assert record["finished"] and record["framing"]["photos by face detection"] == 6 and record["left_out"] == {}
    refused(s2f(*arguments), "already contains benchmark.csv", "--overwrite")


def test_refusals(judged, fs2k, tmp_path):
    refused(s2f("benchmark", fs2k, "--set", "lfw", "-o", tmp_path / "o"), "cufs, cufsf, fs2k")
    refused(s2f("benchmark", fs2k, "--set", "fs2k", "--split", "val", "-o", tmp_path / "o"), "test, train, all")
    refused(s2f("benchmark", tmp_path / "no", "--set", "cufs", "-o", tmp_path / "o"), "not a folder")
    refused(s2f("benchmark", fs2k, "--set", "fs2k", "--limit", 1, "-o", tmp_path / "o"), "two people")
    refused(
        s2f("benchmark", fs2k, "--set", "fs2k", "--weights", tmp_path / "no.safetensors", "-o", tmp_path / "o"),
        "no.safetensors",
    )
    assert not (tmp_path / "o").exists()
