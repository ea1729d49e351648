"""s2flib.generate: from files to files. Weights are an untrained stand-in of the tiny preset unless said otherwise."""

import errno
import json
import shutil

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from stand_in import drawing, stand_in_data_fixture, stand_in_fixture  # noqa: F401  (fixtures)

from s2flib import images, weights
from s2flib.datasets.user_drawing import prepare_drawing
from s2flib.errors import ImageError, S2FError, WeightsError
from s2flib.files import sha256_of
from s2flib.generate import GAP, generate
from s2flib.images import contact_sheet
from s2flib.input_distance import InputDistance
from s2flib.presets import TINY


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.png"
    Image.fromarray(drawing()).save(path)
    return path


def same_picture(path, photo):
    """Equal but for the last bit: rounding to uint8 may tip where float32 sums differ in their last digits."""
    difference = np.asarray(Image.open(path), int) - images.to_array(photo).astype(int)
    assert np.abs(difference).max() <= 1 and (difference == 0).mean() > 0.9


def test_writes_faces_and_overview(stand_in, page, tmp_path):
    lines = []
    (result,) = generate([page], tmp_path / "out", n=3, seed=5, progress=lines.append)
    assert [p.name for p in result.faces] == ["page_face_1.png", "page_face_2.png", "page_face_3.png"]
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"overview.png", *(p.name for p in result.faces)}
    assert all(Image.open(p).size == (128, 128) for p in result.faces) and lines
    assert Image.open(tmp_path / "out" / "overview.png").size == (4 * (128 + GAP) + GAP, 128 + 2 * GAP)


def test_first_face_is_the_encoders_own(stand_in, page, tmp_path):
    (result,) = generate([page], tmp_path / "out", n=2)
    model = weights.load_psp("tiny")
    with torch.no_grad():
        expected = model(prepare_drawing(drawing(), TINY.size).sketch[None])[0][0]
    same_picture(result.faces[0], expected)


def test_metadata_says_synthetic_and_how(stand_in, page, tmp_path):
    (result,) = generate([page], tmp_path / "out", n=2, seed=7)
    text = Image.open(result.faces[1]).text
    assert text["synthetic"] == "true" and text["preset"] == "tiny" and text["seed"] == "7" and text["face"] == "2"
    assert text["label"] == TINY.label and text["sketch"] == "page.png"
    assert text["weights_sha256"] == sha256_of(stand_in / "weights" / "tiny-psp.safetensors")
    assert text["sketch_sha256"] == sha256_of(page)
    assert Image.open(tmp_path / "out" / "overview.png").text["synthetic"] == "true"


def test_seeds_decide_and_repeat(stand_in, page, tmp_path):
    def faces(name, seed):
        return [np.asarray(Image.open(p)) for p in generate([page], tmp_path / name, n=3, seed=seed)[0].faces]

    a, same, other = faces("a", 1), faces("b", 1), faces("c", 2)
    assert all(np.array_equal(x, y) for x, y in zip(a, same, strict=True))
    assert np.array_equal(a[0], other[0]) and not np.array_equal(a[1], other[1])
    assert not np.array_equal(a[1], a[2])


def test_different_sketches_give_different_faces(stand_in, page, tmp_path):
    other = tmp_path / "other.png"
    Image.fromarray(drawing(shift=60)).save(other)
    first, second = generate([page, other], tmp_path / "out", n=1)
    assert not np.array_equal(np.asarray(Image.open(first.faces[0])), np.asarray(Image.open(second.faces[0])))


def test_same_names_do_not_collide(stand_in, page, tmp_path):
    again = tmp_path / "sub" / "page.jpg"
    again.parent.mkdir()
    Image.fromarray(drawing(shift=60)).save(again)
    results = generate([page, again], tmp_path / "out", n=1)
    assert [r.faces[0].name for r in results] == ["page_face_1.png", "page-2_face_1.png"]


def test_never_overwrites_unasked(stand_in, page, tmp_path):
    out = tmp_path / "out"
    generate([page], out, n=1)
    mine = out / "page_face_1.png"
    mine.write_bytes(b"mine")
    with pytest.raises(S2FError, match="exists already"):
        generate([page], out, n=2)
    assert mine.read_bytes() == b"mine" and not (out / "page_face_2.png").exists()
    generate([page], out, n=1, overwrite=True)
    assert Image.open(mine).size == (128, 128)


def test_mark_is_visible(stand_in, page, tmp_path):
    plain = np.asarray(Image.open(generate([page], tmp_path / "a", n=1)[0].faces[0]))
    marked = np.asarray(Image.open(generate([page], tmp_path / "b", n=1, mark=True)[0].faces[0]))
    assert np.array_equal(plain[:100], marked[:100]) and not np.array_equal(plain[-8:], marked[-8:])


def test_one_bad_input_leaves_nothing(stand_in, page, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    with pytest.raises(ImageError, match=r"bad\.png"):
        generate([page, bad], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_empty_page_names_the_file(stand_in, tmp_path):
    Image.new("RGB", (200, 200), "white").save(tmp_path / "blank.png")
    with pytest.raises(ImageError, match=r"blank\.png.*no drawing"):
        generate([tmp_path / "blank.png"], tmp_path / "out")


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(n=0), "between 1 and"),
        (dict(n=1000), "between 1 and"),
        (dict(seed=-1), "seed"),
        (dict(align=True), "--from-photo"),
        (dict(from_photo=True, which=0), "--align"),
        (dict(preset="huge"), "preset"),
    ],
)
def test_bad_options(stand_in, page, tmp_path, options, message):
    with pytest.raises(S2FError, match=message):
        generate([page], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_input_and_out_is_a_file(stand_in, page, tmp_path):
    with pytest.raises(S2FError, match="no sketch"):
        generate([], tmp_path / "out")
    with pytest.raises(S2FError, match="folder"):
        generate([page], page)


def test_missing_weights_are_an_error_not_a_substitute(tmp_path, page, monkeypatch):
    monkeypatch.setenv("S2F_WEIGHTS", str(tmp_path / "nothing"))
    with pytest.raises(WeightsError):
        generate([page], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_own_weights_file(stand_in, page, tmp_path):
    own = tmp_path / "own.safetensors"
    shutil.copy(stand_in / "weights" / "tiny-psp.safetensors", own)
    (result,) = generate([page], tmp_path / "out", n=1, weights_file=own)
    assert Image.open(result.faces[0]).text["weights_sha256"] == sha256_of(own)


def test_full_disk_is_one_sentence_and_no_half_file(stand_in, page, tmp_path, monkeypatch):
    """The second face meets a full disk: the first stays whole, of the second nothing is left."""
    save, calls = Image.Image.save, []

    def save_until_full(self, target, *args, **kwargs):
        calls.append(target)
        if len(calls) == 2:
            with open(target, "wb") as file:
                file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(self, target, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", save_until_full)
    with pytest.raises(S2FError, match="disk is full"):
        generate([page], tmp_path / "out", n=3)
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["page_face_1.png"]
    Image.open(tmp_path / "out" / "page_face_1.png").load()


def test_photo_is_sketched_first(stand_in, tmp_path):
    from s2flib.datasets.foreground import person_mask
    from s2flib.sketch import sketch

    photo = skimage.data.astronaut()[:400, 50:450]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    (result,) = generate([tmp_path / "photo.png"], tmp_path / "out", n=1, from_photo=True)
    assert result.notes == ["a photo: the person was cut out and sketched first"]
    with torch.no_grad():
        x = images.to_photo(photo, TINY.size)
        mask = torch.from_numpy(person_mask(images.to_array(x)))
        expected = weights.load_psp("tiny")(sketch(x, mask)[None])[0][0]
    same_picture(result.faces[0], expected)


def test_aligned_photo(stand_in, tmp_path):
    """MTCNN finds the astronaut's face; on the frame around it the sketch differs from the unaligned one."""
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "photo.png")
    (one,) = generate([tmp_path / "photo.png"], tmp_path / "a", n=1, from_photo=True, align=True)
    (two,) = generate([tmp_path / "photo.png"], tmp_path / "b", n=1, from_photo=True)
    assert not np.array_equal(np.asarray(Image.open(one.faces[0])), np.asarray(Image.open(two.faces[0])))


def test_align_without_a_face(stand_in, tmp_path):
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "coffee.png")
    with pytest.raises(ImageError, match=r"coffee\.png.*no face"):
        generate([tmp_path / "coffee.png"], tmp_path / "out", from_photo=True, align=True)


def test_overview_enlarges_small_sketches():
    sketch, face = np.zeros((64, 64, 3), np.uint8), np.full((128, 128, 3), 100, np.uint8)
    page = contact_sheet([sketch, face, sketch, face], columns=2, gap=GAP)
    assert page.shape == (2 * (128 + GAP) + GAP, 2 * (128 + GAP) + GAP, 3)
    assert (page[GAP : GAP + 128, GAP : GAP + 128] == 0).all() and (page[:GAP] == 255).all()


def test_shipped_weights_follow_the_sketch(tmp_path):
    """The shipped tiny model, on test sketches it never saw: the faces lie nearer to their own photos than to
    other people's."""
    from s2flib.datasets import open_dataset

    dataset = open_dataset("tiny", "test", limit=30)
    picks = [dataset[i] for i in range(0, 30, 3)]  # one shot per person
    files = []
    for i, item in enumerate(picks):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(np.uint8(item["sketch"][0].numpy() * 255)).save(files[-1])
    results = generate(files, tmp_path / "out", n=1)
    faces = np.stack([np.asarray(Image.open(r.faces[0]), float) for r in results]).reshape(len(files), -1)
    photos = np.stack([images.to_array(item["photo"]).astype(float) for item in picks]).reshape(len(files), -1)
    distance = ((faces[:, None] - photos[None]) ** 2).mean(2)
    own, others = np.diag(distance), (distance.sum(1) - np.diag(distance)) / (len(files) - 1)
    assert (own < others).mean() >= 0.8 and own.mean() < others.mean()
    assert json.loads(Image.open(results[0].faces[0]).text["seed"]) == 0


def test_an_unusual_input_is_told(stand_in, page, tmp_path):
    """In a note and in the metadata, if the encoder's file has the distance."""
    (result,) = generate([page], tmp_path / "plain", n=1)
    assert not result.notes and "input_distance" not in Image.open(result.faces[0]).text
    model = weights.load_psp("tiny")
    model.typical = InputDistance(TINY.encoder_widths[-1])
    for limit, told in ((1e6, False), (1e-6, True)):
        model.typical.limit.fill_(limit)
        own = weights.save_psp(tmp_path / f"{limit}.safetensors", model, "tiny")
        (result,) = generate([page], tmp_path / f"{limit}", n=1, weights_file=own)
        assert any("unlike the drawings" in note for note in result.notes) == told
        assert (float(Image.open(result.faces[0]).text["input_distance"]) > 1) == told


def test_the_overview_tells_what_its_sources_said(stand_in, page, tmp_path):
    """A sketch of a generated face carries that face's history into every picture made from it."""
    source = images.save_image(tmp_path / "made.png", images.load_image(page), {"seed": 7}, synthetic=True)
    generate([page, source], tmp_path / "out", n=1)
    about = images.read_metadata(tmp_path / "out" / "overview.png")
    assert about["synthetic"] == "true" and json.loads(about["sketches"]) == [page.name, "made.png"]
    assert json.loads(about["source_metadata"]) == {"made.png": {"seed": "7"}}
