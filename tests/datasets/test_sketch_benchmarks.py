"""CUFS, CUFSF and FS2K in their published layouts, from stand-in pictures: pairs, splits, frames, holes."""

import bz2
import json
import warnings

import numpy as np
import pytest
import sketch_sets
import torch
from PIL import Image

from s2flib.datasets.align import SYNTHFACES_LANDMARKS
from s2flib.datasets.sketch_benchmarks import Frame, SketchBenchmark, straighten
from s2flib.datasets.sketch_layouts import EYES
from s2flib.errors import DataError
from s2flib.images import as_float, load_image


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture
def cufs(tmp_path):
    return sketch_sets.write_cufs(tmp_path / "CUFS")


@pytest.fixture
def fs2k(tmp_path):
    return sketch_sets.write_fs2k(tmp_path / "FS2K")


def test_cufs(cufs):
    sets = {split: SketchBenchmark("cufs", cufs, split) for split in ("train", "test", "all")}
    assert sets["train"].names == ["student/f-005-01", "student/m-008-01"]  # F2-005 is the sketch of photo f-005
    assert sets["test"].names == ["student/f-039-01", "student/f1-001-01", "student/m-063-01"]
    assert len(sets["all"]) == 5 and len(set(sets["all"].identities)) == 5
    assert set(sets["train"].identities).isdisjoint(sets["test"].identities)
    item = sets["test"][1]
    assert item["photo"].shape == (3, 128, 128) and -1 <= item["photo"].min() < item["photo"].max() <= 1
    assert item["sketch"].shape == (1, 128, 128) and 0 <= item["sketch"].min() < item["sketch"].max() <= 1
    assert item["split"] == "test" and item["identity"] == sets["test"].identities[1]
    assert sets["test"].framing == {"photos by landmarks": 3, "sketches by landmarks": 3}
    assert "AR: 2 sketches without any photo" in sets["test"].notes[0]
    for k, (photo, drawing, landmarks) in enumerate(sketch_sets.people(5)):  # each photo with the sketch of its person
        ds, i = (sets["train"], k) if k < 2 else (sets["test"], k - 2)
        frame = Frame(sketch_sets.eyes(landmarks), EYES)
        shown = as_float(straighten(photo, frame, 128))
        lines = straighten(np.repeat(drawing[..., None], 3, 2), frame, 128, (255, 255, 255))[..., 0] / 255
        assert (ds[i]["photo"] - shown).abs().mean() < 0.05 < (ds[i - 1]["photo"] - shown).abs().mean()
        near, far = (np.abs(ds[j]["sketch"][0].numpy() - lines).mean() for j in (i, i - 1))
        assert near < 0.6 * far


def test_landmarks_straighten_a_turned_photo(tmp_path):
    upright = SketchBenchmark("cufs", sketch_sets.write_cufs(tmp_path / "a"))[0]
    turned = SketchBenchmark("cufs", sketch_sets.write_cufs(tmp_path / "b", degrees=25))[0]
    raw = as_float(load_image(tmp_path / "b" / "CUHK_testing_photo/photo/f-039-01.jpg"))[:, 36:164, 36:164]
    middle = np.s_[:, 30:110, 30:98]
    assert (turned["photo"] - upright["photo"])[middle].abs().mean() < 0.06
    assert (raw - upright["photo"])[middle].abs().mean() > 0.12
    assert (turned["sketch"] - upright["sketch"])[middle].abs().mean() < 0.06


def test_straighten_maps_the_points():
    array = np.zeros((400, 300, 3), np.uint8)
    array[200:207, 50:57] = array[250:257, 200:207] = 255  # the "eyes", around (53, 203) and (203, 253)
    out = straighten(array, Frame(np.array([[53.0, 203], [203, 253]]), EYES), 128)[..., 0].astype(float)
    for x, y in EYES * 128 - 0.5:
        rows, columns = np.mgrid[0:128, 0:128]
        near = out * (np.hypot(columns - x, rows - y) < 10)
        assert abs((near * columns).sum() / near.sum() - x) < 0.5 and abs((near * rows).sum() / near.sum() - y) < 0.5


def test_without_landmarks_faces_are_detected(tmp_path):
    found = SketchBenchmark("cufs", sketch_sets.write_cufs(tmp_path / "CUFS", points=False))
    assert found.framing == {"photos by face detection": 3, "sketches like their photos": 3}
    marked = SketchBenchmark("cufs", sketch_sets.write_cufs(tmp_path / "marked"))
    assert (found[0]["photo"] - marked[0]["photo"]).abs().mean() < 0.15  # nearly the same frame


def test_landmarks_of_other_pictures_are_not_used(cufs):
    for path in cufs.rglob("*_photo/*.dat"):
        points = np.loadtxt(path)
        sketch_sets.write_points(path, points * 0.5 + 5)
    found = SketchBenchmark("cufs", cufs)
    assert found.framing["photos by face detection"] == 3 and "not of these photos" in found.notes[-1]


def test_cropped_pictures_do_not_use_the_originals_landmarks(cufs):
    for part in ("photo", "sketch"):
        for folder in cufs.glob(f"CUHK_testing_{part}"):
            folder.rename(cufs / f"CUHK_testing_cropped_{part}s")
    assert SketchBenchmark("cufs", cufs).framing["photos by face detection"] == 3


def test_cufs_holes(cufs):
    next(cufs.rglob("f-039-01.jpg")).unlink()
    next(cufs.rglob("f1-001-01-sz1.dat")).write_text("no points")
    with pytest.raises(DataError, match=r"2 of 3 pairs.*f-039-01: its photo is missing.*no list of points"):
        SketchBenchmark("cufs", cufs)
    with pytest.warns(UserWarning, match=r"2 of 5 pairs.*left out"):
        every = SketchBenchmark("cufs", cufs, "all")
    assert len(every) == 3 and set(every.left_out) == {"student/f-039-01", "student/f1-001-01"}
    assert every.identities.tolist() == SketchBenchmark("cufs", cufs, "train").identities.tolist() + [4]


@pytest.mark.parametrize(
    "damage, why",
    [
        (lambda p: p.write_bytes(p.read_bytes()[:300]), "damaged"),
        (lambda p: p.write_text("this is no picture"), "not an image"),
        (lambda p: Image.new("RGB", (200, 200), "white").save(p), "no drawing"),
        (lambda p: p.unlink(), "its sketch is missing"),
    ],
)
def test_a_damaged_sketch_is_left_out(cufs, damage, why):
    damage(next(cufs.rglob("f1-001-01-sz1.jpg")))
    with pytest.warns(UserWarning, match=why):
        assert len(SketchBenchmark("cufs", cufs)) == 2


def test_a_photo_without_a_face_is_left_out(fs2k):
    Image.new("RGB", (200, 200), "grey").save(fs2k / "photo/photo1/image0004.jpg")
    with pytest.warns(UserWarning, match="no face was found"):
        assert len(SketchBenchmark("fs2k", fs2k)) == 5


def test_cufsf(tmp_path):
    root, photos = tmp_path / "CUFSF", tmp_path / "FERET"
    sketch_sets.write_cufsf(root, photos)
    found = SketchBenchmark("cufsf", root, "all", photos=photos)
    assert found.names == ["00001", "00002", "00003", "00004"]
    assert found.framing == {"photos by landmarks": 4, "sketches by landmarks": 4}
    for i, (photo, _, landmarks) in enumerate(sketch_sets.people(4)):  # of several photos, the one that was drawn
        marks = np.vstack([sketch_sets.eyes(landmarks), sketch_sets.mouth(landmarks)])
        expected = straighten(photo, Frame(marks, found.layout.target), 128)
        assert (found[i]["photo"] - as_float(expected)).abs().mean() < 0.03  # JPEG, for one of them
    assert {len(SketchBenchmark("cufsf", root, s, photos=photos)) for s in ("train", "test")} == {2}
    with pytest.raises(DataError, match="--photos"):
        SketchBenchmark("cufsf", root)
    before = found[2]["photo"]
    packed = photos / "00003fa010_930831.ppm.bz2"
    Image.open(photos / "00003fa010_930831.tif").save(photos / "x.ppm")
    packed.write_bytes(bz2.compress((photos / "x.ppm").read_bytes()))
    (photos / "00003fa010_930831.tif").unlink()
    again = SketchBenchmark("cufsf", root, "all", photos=photos)
    torch.testing.assert_close(again[2]["photo"], before)
    packed.write_bytes(packed.read_bytes()[:500])
    with pytest.warns(UserWarning, match="bz2"):
        assert len(SketchBenchmark("cufsf", root, "all", photos=photos)) == 3


def test_cufsf_without_its_list(tmp_path):
    root, photos = tmp_path / "CUFSF", tmp_path / "FERET"
    sketch_sets.write_cufsf(root, photos)
    (root / "names_of_photos_used_for_drawing_sketches.txt").write_text("portrait.jpg")
    with pytest.raises(DataError, match="entry 1 is not the name"):
        SketchBenchmark("cufsf", root, "all", photos=photos)
    (root / "names_of_photos_used_for_drawing_sketches.txt").unlink()
    with pytest.raises(DataError, match="photo is missing"):  # of two photos, nobody knows which was drawn
        SketchBenchmark("cufsf", root, "all", photos=photos)
    for path in photos.glob("*fb*"):
        path.unlink()
    assert len(SketchBenchmark("cufsf", root, "all", photos=photos)) == 4


def test_fs2k(fs2k):
    found = {split: SketchBenchmark("fs2k", fs2k, split) for split in ("train", "test", "all")}
    assert found["train"].names == ["photo2_image0001", "photo1_image0002"]
    assert [len(found[s]) for s in ("test", "all")] == [6, 8]
    assert found["test"].framing == {"photos by face detection": 6, "sketches like their photos": 6}
    item = found["test"][0]
    assert item["attributes"]["gender"] == 1 and item["attributes"]["lip_color"] == [156.9, 82.5, 79.0]
    assert SketchBenchmark("fs2k", fs2k.parent, "test").names == found["test"].names  # the folder above is fine too
    assert len(SketchBenchmark("fs2k", fs2k, "test", limit=2)) == 2


def test_fs2k_sorted_by_its_own_tool(fs2k):
    """tools/split_train_test.py copies the pictures to train/ and test/."""
    for split in ("train", "test"):
        for entry in json.loads((fs2k / f"anno_{split}.json").read_text()):
            part, number = entry["image_name"][5], entry["image_name"][-4:]
            for kind, name in (("photo", "image"), ("sketch", "sketch")):
                (source,) = (fs2k / kind / f"{kind}{part}").glob(f"{name}{number}.*")
                target = fs2k / split / kind / f"{kind}{part}_{name}{number}{source.suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                source.rename(target)
    assert len(SketchBenchmark("fs2k", fs2k, "all")) == 8


@pytest.mark.parametrize(
    "rows, why",
    [
        ("[", "damaged"),
        ("{}", "entry 1 has no image_name"),
        (json.dumps([sketch_sets.entry("photo1/../../etc")]), "image_name"),
        (json.dumps([sketch_sets.entry("photo1/image0004", gender=7)]), "gender is 7"),
        (json.dumps([sketch_sets.entry("photo1/image0004", style="0")]), "style is 0"),
        (json.dumps([sketch_sets.entry("photo1/image0002")]), "second time"),  # a training pair in the test split
        ("[" * 100_000, "damaged"),
    ],
)
def test_fs2k_annotations_are_checked(fs2k, rows, why):
    (fs2k / "anno_test.json").write_text(rows)
    with pytest.raises(DataError, match=why):
        SketchBenchmark("fs2k", fs2k)


def test_fs2k_colours_that_are_not_visible(fs2k):
    (fs2k / "anno_test.json").write_text(json.dumps([sketch_sets.entry("photo2/image0003", lip_color=["nan"] * 3)]))
    assert SketchBenchmark("fs2k", fs2k)[0]["attributes"]["lip_color"] is None


def test_wrong_folder_set_and_split(tmp_path, fs2k):
    for arguments, why in (
        (("cufs", tmp_path / "no"), "not a folder"),
        (("cufs", fs2k), "no pair of CUFS"),
        (("fs2k", tmp_path), "anno_train.json"),
        (("lfw", fs2k), "choose one of cufs, cufsf, fs2k"),
        (("fs2k", fs2k, "val"), "choose one of test, train, all"),
    ):
        if why == "anno_train.json":
            (fs2k / "anno_train.json").unlink()
        with pytest.raises(DataError, match=why):
            SketchBenchmark(*arguments)
    assert EYES.shape == (2, 2) and (EYES == SYNTHFACES_LANDMARKS[:2]).all()
