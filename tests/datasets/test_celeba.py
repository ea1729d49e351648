"""CelebAMask-HQ as published: splits, masks, identities, and what is missing or damaged."""

import numpy as np
import pytest
from PIL import Image

from s2flib.datasets import ATTRIBUTE_NAMES, LABELS, SPLITS, CelebAMaskHQ, attribute_targets, celeba, open_dataset
from s2flib.errors import DataError


def test_celeba_published_layout(celeba_folder, tmp_path):
    cache = tmp_path / "cache"
    sets = {s: CelebAMaskHQ(celeba_folder, s, size=256, cache=cache) for s in SPLITS}
    assert {s: d.names for s, d in sets.items()} == {  # published split by CelebA index; 10 after 9, not 1
        "train": [str(i) for i in range(8)],
        "val": ["8", "9"],
        "test": ["10", "11"],
    }
    assert sets["test"].identities.tolist() == [10, 11]
    sample = sets["train"][3]
    assert sample["photo"].shape == (3, 256, 256) and abs((sample["photo"].mean() + 1) * 127.5 - 60) < 2
    assert sample["attributes"] == {"Male": 1, "Young": 1, "Smiling": 0}
    assert sets["train"][2]["attributes"]["Male"] == 0
    mask = sample["mask"].numpy()  # 512 → 256
    assert mask[0, 0] == 0 and mask[120, 100] == LABELS.index("skin")
    assert mask[60, 100] == LABELS.index("hair")  # painted over the skin
    assert mask[105, 85] == LABELS.index("l_eye")
    assert (sample["sketch"][0][sample["mask"] == 0] == 1).all()
    assert sets["train"][7]["mask"][40, 100] == LABELS.index("hat")


def test_celeba_identities_when_the_file_is_there(celeba_folder, tmp_path):
    names = [line.split()[2] for line in (celeba_folder / celeba.MAPPING).read_text().splitlines()[1:]]
    people = [1, 1, 8, 18, 8, 9, 2, 3, 9, 109, 10, 11]
    (celeba_folder / celeba.IDENTITIES).write_text("".join(f"{n} {p}\n" for n, p in zip(names, people, strict=True)))
    sets = {s: CelebAMaskHQ(celeba_folder, s, size=64, cache=tmp_path) for s in SPLITS}
    assert sets["val"].identities.tolist() == [8, 18, 8] and sets["val"].names == ["2", "3", "4"]
    assert sets["test"].identities.tolist() == [9, 9, 109]
    assert sets["train"].identities.tolist() == [1, 1, 2, 3, 10, 11]
    (celeba_folder / celeba.IDENTITIES).write_text(f"{names[0]} 1\n")
    with pytest.raises(DataError, match=names[1]):
        CelebAMaskHQ(celeba_folder, "train", cache=tmp_path)


def test_celeba_masks_are_combined_once(celeba_folder, tmp_path):
    cache = tmp_path / "cache"
    dataset = CelebAMaskHQ(celeba_folder, "train", size=64, cache=cache)
    first = dataset.read(0)[1]
    for part in (celeba_folder / celeba.MASKS / "0").glob("00000_*.png"):
        part.unlink()
    assert np.array_equal(dataset.read(0)[1], first)  # from the cache
    cached = next(cache.rglob("00000-*.png"))
    cached.write_bytes(cached.read_bytes()[:40])  # a damaged cache is made again, not believed
    with pytest.raises(DataError, match="00000_"):
        dataset.read(0)
    assert not [p for p in celeba_folder.rglob("*") if "cache" in p.name]  # the user's folder is untouched


def test_celeba_second_annotation_folder(celeba_folder, tmp_path):
    """Photo 2000 lies in folder 1, and its part files have five digits."""
    parts = celeba_folder / celeba.MASKS
    (parts / "1").mkdir()
    (parts / "0" / "00003_skin.png").rename(parts / "1" / "02000_skin.png")
    assert set(np.unique(celeba.combine_parts(celeba_folder, 2000))) == {0, 1}


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda r: (r / celeba.MAPPING).unlink(), "CelebA-HQ-to-CelebA-mapping"),
        (lambda r: (r / celeba.ATTRIBUTES).unlink(), "attribute-anno"),
        (lambda r: (r / celeba.IMAGES / "4.jpg").unlink(), r"4\.jpg.*11 of 12"),
        (lambda r: (r / celeba.ATTRIBUTES).write_text("1\nMale Young\n0.jpg 1\n"), "line 3"),
        (lambda r: (r / celeba.ATTRIBUTES).write_text("1\nMale\n0.jpg 1\n"), "no line for 1.jpg"),
        (lambda r: (r / celeba.MAPPING).write_text("idx orig_idx orig_file\n0 zero 000001.jpg\n"), "line 2"),
        (lambda r: (r / celeba.IDENTITIES).write_text("000001.jpg one\n"), "identity_CelebA"),
        (lambda r: (r / celeba.IDENTITIES).write_text("000001.jpg 1\n000001.jpg 2\n"), "identity_CelebA.*line 2"),
        (lambda r: (r / celeba.IDENTITIES).write_text(f"000001.jpg {'9' * 30}\n"), "identity_CelebA.*line 1"),
        (lambda r: (r / celeba.MAPPING).write_text("idx orig_idx orig_file\n² 3 000001.jpg\n"), "line 2"),
        (lambda r: (r / celeba.MAPPING).write_text(f"idx orig_idx orig_file\n0 3 {'0' * 5000}.jpg\n"), "line 2"),
        (lambda r: (r / celeba.MAPPING).write_text("idx a b\n0 3 4.jpg\n0 4 5.jpg\n"), "line 3.*second time"),
        (lambda r: (r / celeba.MAPPING).write_text("idx a b\n0 3 4.jpg\n1 4 4.jpg\n"), "line 3.*second time"),
        (lambda r: (r / celeba.ATTRIBUTES).write_text("1\nMale\n²\x2ejpg 1\n"), "line 3"),
        (lambda r: (r / celeba.ATTRIBUTES).write_text("1\nMale\n0.jpg 1\n0.jpg -1\n"), "line 4"),
    ],
)
def test_celeba_what_is_missing_is_named(celeba_folder, tmp_path, break_it, message):
    break_it(celeba_folder)
    with pytest.raises(DataError, match=message):
        CelebAMaskHQ(celeba_folder, "train", cache=tmp_path)


def test_celeba_bad_files_are_named(celeba_folder, tmp_path):
    parts = celeba_folder / celeba.MASKS / "0"
    (parts / "00001_skin.png").write_bytes((parts / "00001_skin.png").read_bytes()[:60])
    with pytest.raises(DataError, match="00001_skin"):
        celeba.combine_parts(celeba_folder, 1)
    Image.new("RGB", (256, 256)).save(parts / "00002_hair.png")
    with pytest.raises(DataError, match="00002_hair.*256×256"):
        celeba.combine_parts(celeba_folder, 2)
    with pytest.warns(UserWarning, match=r"2 of 8 photos.*1\.jpg: .*00001_skin.*; 2\.jpg: .*00002_hair"):
        dataset = CelebAMaskHQ(celeba_folder, "train", size=64, cache=tmp_path / "cache")
    assert dataset.names == ["0", "3", "4", "5", "6", "7"]
    (celeba_folder / celeba.IMAGES / "3.jpg").write_text("quota exceeded")
    with pytest.raises(DataError, match=r"3\.jpg"):
        dataset[1]
    with pytest.raises(DataError, match="research licence"):
        CelebAMaskHQ(tmp_path / "nowhere", "train", cache=tmp_path)


def blacken(folder, index, keep=()):
    """Paint a photo's part masks black, except some."""
    for path in (folder / celeba.MASKS / "0").glob(f"{index:05d}_*.png"):
        if path.stem.partition("_")[2] not in keep:
            Image.new("RGB", (512, 512)).save(path)


def test_photos_without_a_person_are_left_out_when_the_set_is_opened(celeba_folder, tmp_path):
    blacken(celeba_folder, 3)
    blacken(celeba_folder, 5, keep=("l_eye",))
    for path in (celeba_folder / celeba.MASKS / "0").glob("00007_*.png"):
        path.unlink()
    with pytest.warns(UserWarning, match=r"3 of 8 photos .*3\.jpg: its person covers 0\.0%.*7\.jpg: no part files"):
        dataset = CelebAMaskHQ(celeba_folder, "train", size=64, cache=tmp_path)
    assert dataset.names == ["0", "1", "2", "4", "6"] and dataset.identities.tolist() == [0, 1, 2, 4, 6]
    assert [a["Male"] for a in dataset.attributes] == [0, 1, 0, 0, 0]
    for index in range(5):
        assert dataset[index]["name"] == dataset.names[index]
    for index in (0, 1, 2):
        blacken(celeba_folder, index)
    with pytest.raises(DataError, match="6 of 8 photos .*unpack"):
        CelebAMaskHQ(celeba_folder, "train", size=64, cache=tmp_path)


def test_a_repaired_mask_is_noticed(celeba_folder, tmp_path):
    good = {p: p.read_bytes() for p in (celeba_folder / celeba.MASKS / "0").glob("00003_*.png")}
    blacken(celeba_folder, 3)
    with pytest.warns(UserWarning, match="1 of 8"):
        assert "3" not in CelebAMaskHQ(celeba_folder, "train", size=64, cache=tmp_path).names
    for path, data in good.items():
        path.write_bytes(data)
    dataset = CelebAMaskHQ(celeba_folder, "train", size=64, cache=tmp_path)
    assert dataset.names == [str(i) for i in range(8)] and (dataset.read(3)[1] != 0).mean() > 0.3


def test_open_dataset_finds_celeba_by_preset_and_by_folder(celeba_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("S2F_DATA", str(celeba_folder.parent))
    assert open_dataset("colab", "val").names == ["8", "9"]
    assert open_dataset("tiny", "val", root=celeba_folder)[0]["photo"].shape == (3, 128, 128)
    monkeypatch.setenv("S2F_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="CelebAMask-HQ"):
        open_dataset("paper", "test")


def test_celeba_attribute_targets(celeba_folder, tmp_path):
    dataset = CelebAMaskHQ(celeba_folder, "val", size=64, cache=tmp_path)
    with pytest.raises(DataError, match="Mouth_Slightly_Open"):  # this folder's file has three of the 40
        attribute_targets(dataset)
    from s2flib.datasets.attributes import ATTRIBUTES

    dataset.attributes = [{a.celeba: int(a.name in ("male", "bangs")) for a in ATTRIBUTES if a.celeba}] * 2
    targets = dict(zip(ATTRIBUTE_NAMES, attribute_targets(dataset)[1], strict=True))
    assert targets["male"] == 1 and targets["bangs"] == 1 and targets["young"] == 0
    assert np.isnan(targets["old"]) and np.isnan(targets["red_hair"])


def test_a_photo_that_is_not_square_is_named(celeba_folder, tmp_path):
    Image.new("RGB", (64, 48)).save(celeba_folder / celeba.IMAGES / "2.jpg")
    dataset = CelebAMaskHQ(celeba_folder, "train", size=64, cache=tmp_path)
    with pytest.raises(DataError, match=r"2\.jpg is 64×48 px, not square"):
        dataset[2]


def test_odd_names_among_the_masks_do_no_harm(celeba_folder, tmp_path):
    (celeba_folder / celeba.MASKS / "0" / "²_skin.png").touch()
    assert len(CelebAMaskHQ(celeba_folder, "train", size=64, cache=tmp_path)) == 8
