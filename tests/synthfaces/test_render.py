"""Data sets: what the loader reads, resumed to the same bytes, in parallel or not."""

import csv
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from s2flib.errors import DataError, S2FError
from s2flib.synthfaces import render
from s2flib.synthfaces.render import render_dataset, render_shot


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    out = tmp_path_factory.mktemp("faces") / "set"
    return render_dataset(out, n_identities=3, shots=2, size=48, seed=5, workers=1, edits=2, first_identity=7)


def _files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def test_the_loader_reads_it(rendered):
    from s2flib.datasets import SynthFaces, attribute_targets

    sets = {split: SynthFaces(rendered, split, size=48) for split in ("train", "val", "test")}
    assert [len(sets[s]) for s in ("train", "val", "test")] == [2, 2, 2]  # identities 7, 8, 9
    sample = sets["test"][1]
    picture, person, shot = render_shot(5, 9, 1, size=48)
    assert (sample["mask"].numpy() == picture.labels).all()
    photo = (sample["photo"].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(photo - picture.rgb).mean() < 6  # WebP
    assert sample["identity"] == 9 and sample["attributes"]["expression"] == shot.expression
    assert set(render.attributes(person.identity, person.look, shot)) <= set(sample["attributes"])
    assert np.isfinite(attribute_targets(sets["train"])).all()


def test_everything_else_lies_beside_it(rendered):
    archives = {f"{k}-{s}.zip" for k in ("images", "masks", "drawings") for s in ("train", "val", "test")}
    names = archives | {"edits.zip", "edits.csv", "landmarks.npz", "manifest.csv", "render.json"}
    assert set(_files(rendered)) == names
    points = np.load(rendered / "landmarks.npz")
    assert points["names"].tolist()[:2] == ["000007_0", "000007_1"]
    assert np.allclose(points["points"][0] / points["scale"], render_shot(5, 7, 0, size=48)[0].landmarks, atol=0.1)
    rows = list(csv.DictReader(open(rendered / "edits.csv", encoding="utf-8")))
    pictures = sorted(f"{r['pair']}_{w}.webp" for r in rows for w in ("before", "after", "mask"))
    with zipfile.ZipFile(rendered / "edits.zip") as z:
        assert sorted(z.namelist()) == pictures
    assert all(len(r["instruction"]) > 5 and r["split"] in ("train", "val", "test") for r in rows)
    hands = {r["drawing_hand"] for r in csv.DictReader(open(rendered / "manifest.csv", encoding="utf-8"))}
    assert hands == {"clean", "sketchy", "composite"}


def test_an_interrupted_run_goes_on_to_the_same_bytes(rendered, tmp_path, monkeypatch):
    whole = render._render_identity
    calls = []

    def dies(recipe, identity):
        calls.append(identity)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(recipe, identity)

    monkeypatch.setattr(render, "_render_identity", dies)
    settings = dict(n_identities=3, shots=2, size=48, seed=5, edits=2, first_identity=7)
    with pytest.raises(KeyboardInterrupt):
        render_dataset(tmp_path / "set", workers=1, **settings)
    assert not (tmp_path / "set" / "manifest.csv").exists()
    render_dataset(tmp_path / "set", workers=1, **settings)
    assert calls == [7, 8, 8, 9]  # 7 was not rendered again
    assert _files(tmp_path / "set") == _files(rendered)
    calls.clear()
    render_dataset(tmp_path / "set", workers=1, **settings)  # complete: nothing to do
    assert calls == []


def test_workers_make_the_same_pixels(tmp_path):
    settings = dict(n_identities=2, shots=1, size=32, seed=6, drawings=False)
    one = render_dataset(tmp_path / "one", workers=1, **settings)
    two = render_dataset(tmp_path / "two", workers=2, **settings)
    assert _files(one) == _files(two)


def test_other_recipes_and_impossible_numbers_are_refused(rendered, tmp_path):
    with pytest.raises(DataError, match="its seed differ"):
        render_dataset(rendered, 3, 2, size=48, seed=6, edits=2, first_identity=7)
    (tmp_path / "manifest.csv").write_text("mine")
    with pytest.raises(DataError, match="empty folder"):
        render_dataset(tmp_path, 1, 1)
    assert (tmp_path / "manifest.csv").read_text() == "mine"
    for wrong in (
        dict(n_identities=0),
        dict(size=8),
        dict(edits=-1),
        dict(shots=0),
        dict(seed=-1),
        dict(split="test"),
        dict(split="dev", n_identities=20),
    ):
        with pytest.raises(S2FError):
            render_dataset(tmp_path / "new", **{"n_identities": 1, "shots": 1, **wrong})
    assert json.loads((rendered / "render.json").read_text())["seed"] == 5


def test_one_split_alone(rendered, tmp_path):
    """Only the split's people are rendered, and they are the same as in the whole set."""
    out = render_dataset(
        tmp_path / "set", n_identities=3, shots=2, size=48, seed=5, workers=1, first_identity=7, split="test"
    )
    assert {p.name for p in out.glob("*.zip")} == {"images-test.zip", "masks-test.zip", "drawings-test.zip"}
    assert (out / "images-test.zip").read_bytes() == (rendered / "images-test.zip").read_bytes()


@pytest.mark.parametrize("identity, shot", [(9, 0), (1509, 3), (2999, 1)])
def test_the_shipped_test_images_come_from_their_seeds(identity, shot):
    """Other machines round differently: a few grey levels, nothing that changes the face or its labels."""
    from s2flib.datasets import open_dataset

    dataset = open_dataset("tiny", "test")
    photo, mask = dataset.read(dataset.names.index(f"{identity:06d}_{shot}"))
    recipe = json.loads((dataset.root / "render.json").read_text())
    picture, _, _ = render_shot(recipe["seed"], identity, shot, recipe["size"])
    stored = np.array(Image.open(io.BytesIO(render.encode_photo(picture.rgb))).convert("RGB")).astype(int)
    assert np.abs(stored - photo).mean() < 0.5 and (mask == picture.labels).mean() > 0.999


def test_the_command_renders_goes_on_and_explains(tmp_path):
    from typer.testing import CliRunner

    from s2flib.cli import app as cli
    from s2flib.datasets import SynthFaces

    def s2f(*args):
        return CliRunner().invoke(cli.app, [str(a) for a in args])

    settings = (
        "render",
        "-o",
        tmp_path / "set",
        "--people",
        2,
        "--shots",
        1,
        "--size",
        32,
        "--seed",
        5,
        "--first",
        8,
        "--edits",
        1,
        "--workers",
        1,
    )
    done = s2f(*settings)
    assert done.exit_code == 0 and "synthetic" in done.output, done.output
    assert len(SynthFaces(tmp_path / "set", "val", size=32)) == len(SynthFaces(tmp_path / "set", "test", size=32)) == 1
    assert (tmp_path / "set" / "edits.csv").is_file()
    assert s2f(*settings).exit_code == 0  # there already
    wrong = {
        "its seed differ": (*settings[:-2], "--seed", 6),
        "32 to 1024": ("render", "-o", tmp_path / "b", "--size", 8),
        "none of": ("render", "-o", tmp_path / "b", "--people", 3, "--split", "test"),
    }
    for words, extra in wrong.items():
        failed = s2f(*extra)
        assert failed.exit_code == 2 and words in failed.output and "Traceback" not in failed.output, failed.output
    assert not (tmp_path / "b").exists()


def test_parts_run_no_code_and_damaged_ones_are_rendered_again(tmp_path):
    """Parts are zip files of JSON and images. A part damaged by a full disk is named, deleted and made again."""
    records = [
        {"identity": 3, "landmarks": np.ones((2, 2), np.float32), "image": b"\x00\xff", "attributes": {"age": 31.5}}
    ]
    render._write_part(tmp_path / "a.zip", records)
    (back,) = render._read_part(tmp_path / "a.zip")
    assert back == records[0] | {"landmarks": [[1.0, 1.0], [1.0, 1.0]]}
    out = tmp_path / "set"

    def stop(done, total):
        for k, part in enumerate(done):
            if k == 1:
                raise KeyboardInterrupt
            yield part

    options = dict(n_identities=2, shots=1, size=32, workers=1, edits=1)
    with pytest.raises(KeyboardInterrupt):
        render.render_dataset(out, **options, progress=stop)
    part = next((out / "parts").glob("identity-*.zip"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DataError, match=f"{part.name} is damaged .* run the same command again"):
        render.render_dataset(out, **options)
    assert not part.exists()
    assert (render.render_dataset(out, **options) / "manifest.csv").is_file() and not (out / "parts").exists()
