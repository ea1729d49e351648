import csv
import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from s2flib.datasets import ATTRIBUTE_NAMES, LABELS, SPLITS, SynthFaces, attribute_targets, open_dataset
from s2flib.errors import DataError, S2FError
from s2flib.presets import PAPER, TINY
from s2flib.sketch import sketch
from s2flib.synthfaces.identity import identity_split

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "synthfaces"


@pytest.fixture(scope="module")
def shipped():
    return {split: open_dataset("tiny", split, root=SHIPPED) for split in SPLITS}


# --- the shipped set


def test_labels_are_celebamask_hqs():
    assert len(LABELS) == 19
    assert [LABELS[i] for i in (0, 1, 2, 3, 13, 14, 15, 17, 18)] == [
        "background",
        "skin",
        "nose",
        "eye_g",
        "hair",
        "hat",
        "ear_r",
        "neck",
        "cloth",
    ]


def test_shipped_splits_are_8_1_1_and_disjoint_by_identity(shipped):
    people = {s: set(d.identities.tolist()) for s, d in shipped.items()}
    assert not people["train"] & people["val"] and not people["train"] & people["test"]
    assert not people["val"] & people["test"]
    assert [len(people[s]) for s in SPLITS] == [2400, 300, 300]
    assert [len(shipped[s]) for s in SPLITS] == [9600, 1200, 1200]
    for split, dataset in shipped.items():
        assert all(identity_split(i) == split for i in dataset.identities.tolist())
        assert len(set(dataset.names)) == len(dataset.names) == len(dataset.attributes)
        # names pair with identities: "000123_2" is the third shot of person 123
        assert [int(n.split("_")[0]) for n in dataset.names] == dataset.identities.tolist()


def test_shipped_set_stays_small():
    files = [p for p in SHIPPED.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 70e6 and max(p.stat().st_size for p in files) <= 25e6


def test_the_large_test_faces_are_the_small_ones_in_full(shipped):
    """100 test people at 256 px: the same people and photos as at 128 px."""
    large = SynthFaces(SHIPPED / "test-256", "test", size=256)
    assert len(large) == 400 and len(set(large.identities.tolist())) == 100
    assert large.names == shipped["test"].names[:400]
    for i in (3, 222):
        photo, mask = large.read(i)
        small, small_mask = shipped["test"].read(i)
        assert photo.shape == (256, 256, 3)
        pooled = photo.reshape(128, 2, 128, 2, 3).mean((1, 3))
        assert np.abs(pooled - small).mean() < 6
        assert (mask[::2, ::2] == small_mask).mean() > 0.93
        assert np.abs(large.landmarks(i) / 2 - shipped["test"].landmarks(i)).max() < 0.5


def test_drawings_and_landmarks_belong_to_their_photos(shipped):
    dataset = shipped["val"]
    for i in (0, 333):
        drawing, mask, points = dataset.drawing(i), dataset.read(i)[1], dataset.landmarks(i)
        assert drawing.shape == (128, 128) and drawing.dtype == np.uint8 and drawing.min() < 100
        assert (drawing > 200).mean() > 0.6  # lines on white
        assert points.shape == (68, 2)
        for label, some in (("l_eye", slice(42, 48)), ("r_eye", slice(36, 42))):  # dlib's order
            ys, xs = np.nonzero(mask == LABELS.index(label))
            if len(xs) > 8:
                assert np.abs(points[some].mean(0) - (xs.mean(), ys.mean())).max() < 4
    half = SynthFaces(SHIPPED, "val", size=64, limit=2)
    pencil, kept = half[1]["sketch"], half.arrays()["sketches"]
    lines = half.with_lines()
    assert torch.equal(lines[1]["sketch"], torch.from_numpy(half.drawing(1))[None] / 255)
    assert np.array_equal(lines.arrays()["sketches"][1, 0], half.drawing(1))
    assert torch.equal(half[1]["sketch"], pencil) and half.arrays()["sketches"] is kept
    assert half.drawing(1).shape == (64, 64) and np.allclose(half.landmarks(1), dataset.landmarks(1) / 2)


def test_every_shipped_file_has_the_manifests_sha256():
    with open(SHIPPED / "manifest.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    for kind, column in (("images", "sha256"), ("masks", "mask_sha256")):
        for split in SPLITS:
            of_split = [r for r in rows if r["split"] == split]
            with zipfile.ZipFile(SHIPPED / f"{kind}-{split}.zip") as z:
                assert sorted(z.namelist()) == sorted(r["file"] for r in of_split)
                assert all(hashlib.sha256(z.read(r["file"])).hexdigest() == r[column] for r in of_split)


def test_a_sample_is_what_the_contract_says(shipped):
    dataset = shipped["test"]
    sample = dataset[7]
    photo, lines, mask = sample["photo"], sample["sketch"], sample["mask"]
    assert photo.shape == (3, 128, 128) and photo.dtype == torch.float32
    assert -1 <= photo.min() < -0.5 and 0 < photo.max() <= 1
    assert lines.shape == (1, 128, 128) and lines.min() == 0 and lines.max() == 1
    assert mask.shape == (128, 128) and mask.dtype == torch.uint8 and mask.max() < 19
    assert (lines[0][mask == 0] == 1).all()  # white ground
    assert sample["identity"] == dataset.identities[7] and sample["name"] == dataset.names[7]
    assert isinstance(sample["attributes"]["age"], float) and sample["attributes"]["gender"] in ("male", "female")
    assert torch.equal(dataset[-1]["photo"], dataset[len(dataset) - 1]["photo"])
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    photo, mask = dataset.read(7)
    assert np.array_equal((lines[0] * 255).round().numpy(), sketch(photo, mask))


def test_masks_lie_on_the_faces(shipped):
    """Parts are where a face has them, averaged over 60 people: mapping and pairing are right."""
    dataset = shipped["val"]
    centre = {}
    for i in range(0, 180, 3):
        mask = dataset.read(i)[1]
        for label in np.unique(mask):
            centre.setdefault(LABELS[label], []).append(np.argwhere(mask == label).mean(0))
    y = {part: np.mean(c, 0)[0] for part, c in centre.items()}
    x = {part: np.mean(c, 0)[1] for part, c in centre.items()}
    assert y["l_brow"] < y["l_eye"] < y["nose"] < y["u_lip"] < y["l_lip"] < y["neck"] < y["cloth"]
    assert y["hair"] < y["nose"] and abs(x["nose"] - 64) < 8
    # l_ is the person's own left, on the image's right, for all three pairs
    assert all(x[f"l_{p}"] > x["nose"] > x[f"r_{p}"] for p in ("eye", "brow", "ear"))


def test_attributes_agree_with_pixels(shipped):
    """Pairing by stem: glasses have glasses pixels, black hair is darker than blond."""
    dataset = shipped["val"]
    darkness = {"black": [], "blond": []}
    for i in range(0, len(dataset), 2):
        a = dataset.attributes[i]
        photo, mask = dataset.read(i)
        assert (mask == LABELS.index("eye_g")).any() == (a["glasses"] != "none"), dataset.names[i]
        if a["hair_color"] in darkness and (mask == LABELS.index("hair")).sum() > 500:
            darkness[a["hair_color"]].append(photo[mask == LABELS.index("hair")].mean())
    assert np.mean(darkness["black"]) + 40 < np.mean(darkness["blond"])


def test_arrays_hold_the_same_samples_and_are_made_once():
    dataset = open_dataset("tiny", "val", root=SHIPPED, limit=12)
    arrays = dataset.arrays()
    assert arrays is dataset.arrays()
    assert {k: (v.shape, v.dtype) for k, v in arrays.items()} == {
        "photos": ((12, 3, 128, 128), np.uint8),
        "sketches": ((12, 1, 128, 128), np.uint8),
        "masks": ((12, 128, 128), np.uint8),
    }
    for i in (0, 5, 11):
        sample = dataset[i]
        assert np.array_equal(arrays["photos"][i], ((sample["photo"] + 1) * 127.5).round().numpy())
        assert np.array_equal(arrays["sketches"][i], (sample["sketch"] * 255).round().numpy())
        assert np.array_equal(arrays["masks"][i], sample["mask"].numpy())


def test_another_size_resizes_all_three_together():
    small = SynthFaces(SHIPPED, "val", size=64, limit=3)
    sample = small[1]
    photo, mask = small.read(1)  # the stored 128 px
    assert sample["photo"].shape == (3, 64, 64) and sample["mask"].shape == (64, 64)
    pooled = photo.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs((sample["photo"].permute(1, 2, 0).numpy() + 1) * 127.5 - pooled).max() <= 0.51
    assert set(sample["mask"].unique().tolist()) <= set(np.unique(mask).tolist())  # no blended ids
    assert (sample["sketch"][0][sample["mask"] == 0] == 1).all()


def test_loader_workers_and_pickling():
    dataset = open_dataset("tiny", "val", root=SHIPPED, limit=8)
    first = dataset[0]["photo"]  # opens the archives in this process
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=1)
    batch = next(iter(loader))
    assert batch["photo"].shape == (4, 3, 128, 128) and batch["sketch"].shape == (4, 1, 128, 128)
    assert batch["name"] == dataset.names[:4] and torch.equal(batch["photo"][0], first)
    assert batch["attributes"]["age"].shape == (4,)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3]["photo"], dataset[3]["photo"])


def test_a_forked_process_opens_the_archives_anew(small_set, monkeypatch):
    """A shared handle is a shared file position: two processes reading at once would get each other's bytes."""
    opened, real = [], zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda path: opened.append(Path(path).name) or real(path))
    dataset = open_dataset("tiny", "train", root=small_set[0])
    dataset[0], dataset[1]
    assert opened == ["images-train.zip", "masks-train.zip"]
    monkeypatch.setattr(os, "getpid", lambda: -1)  # what a fork changes
    dataset[0]
    assert opened == ["images-train.zip", "masks-train.zip"] * 2


def test_attribute_targets(shipped):
    for dataset in shipped.values():
        targets = attribute_targets(dataset)
        assert targets.shape == (len(dataset), len(ATTRIBUTE_NAMES)) and set(np.unique(targets)) == {0, 1}
        # each attribute occurs and is absent often enough to be learnt
        assert (targets.mean(0) > 0.01).all() and (targets.mean(0) < 0.9).all()
    column = {n: targets[:, k] for k, n in enumerate(ATTRIBUTE_NAMES)}
    for i, a in enumerate(shipped["test"].attributes):
        assert column["male"][i] == (a["gender"] == "male")
        assert column["young"][i] == (a["age"] < 35) and column["old"][i] == (a["age"] > 60)
        assert column["glasses"][i] == (a["glasses"] != "none")
    assert not (column["sunglasses"] > column["glasses"]).any()
    assert not (column["beard"] > column["male"]).any()
    colours = sum(column[c] for c in ("black_hair", "brown_hair", "blond_hair", "red_hair", "grey_hair", "bald"))
    assert (colours == 1).all()


# --- a damaged or foreign SynthFaces folder


def test_any_folder_of_the_format_is_read(small_set):
    dataset = open_dataset("tiny", "train", root=small_set[0])
    assert dataset.names == ["p0", "p1"] and dataset.attributes[1] == {"age": 21.5, "hat": "none"}
    assert dataset[1]["mask"].unique().tolist() == [2]
    assert open_dataset("paper", "test", root=small_set[0]).size == PAPER.size  # root decides the kind
    assert len(open_dataset(TINY, "train", root=small_set[0], limit=1)) == 1


def test_damage_is_named(small_set):
    root, rows, rewrite = small_set
    archive = root / "images-train.zip"
    data = bytearray(archive.read_bytes())
    data[data.index(b"WEBPVP8") + 12] ^= 255  # one byte of p0.webp
    archive.write_bytes(data)
    dataset = open_dataset("tiny", "train", root=root)
    assert dataset[1]["name"] == "p1"
    with pytest.raises(DataError, match=r"p0\.webp"):
        dataset[0]
    with pytest.raises(DataError, match=r"p0\.webp"):
        dataset.arrays()


def test_a_file_swapped_for_another_is_noticed(small_set):
    root, rows, rewrite = small_set
    rewrite([{**rows[0], "sha256": rows[1]["sha256"]}, *rows[1:]])
    with pytest.raises(DataError, match=r"p0\.webp.*sha256"):
        open_dataset("tiny", "train", root=root)[0]


def test_missing_members_archives_and_manifests(small_set, tmp_path):
    root, rows, rewrite = small_set
    rewrite([*rows, {**rows[0], "file": "p9.webp"}])
    with pytest.raises(DataError, match=r"p9\.webp is not in"):
        open_dataset("tiny", "train", root=root)[2]
    dataset = open_dataset("tiny", "test", root=root)
    with pytest.raises(DataError, match=r"drawings-test\.zip is missing"):
        dataset.drawing(0)
    with pytest.raises(DataError, match=r"landmarks\.npz is missing"):
        dataset.landmarks(0)
    (root / "masks-test.zip").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"masks-test\.zip is damaged"):
        open_dataset("tiny", "test", root=root)[0]
    (root / "masks-test.zip").unlink()
    with pytest.raises(DataError, match=r"masks-test\.zip is missing"):
        open_dataset("tiny", "test", root=root)
    (root / "manifest.csv").unlink()
    with pytest.raises(DataError, match=r"manifest\.csv is missing"):
        open_dataset("tiny", "test", root=root)


def test_a_person_in_two_splits_is_refused(small_set):
    root, rows, rewrite = small_set
    rewrite([rows[0], {**rows[1], "split": "val"}, *rows[2:]])
    with pytest.raises(DataError, match="two splits"):
        open_dataset("tiny", "train", root=root)


def test_a_cut_manifest_is_refused(small_set):
    root, rows, rewrite = small_set
    text = (root / "manifest.csv").read_text()
    (root / "manifest.csv").write_text(text[:-30])
    with pytest.raises(DataError, match="line 5"):
        open_dataset("tiny", "train", root=root)
    (root / "manifest.csv").write_text("file,identity\na,1\n")
    with pytest.raises(DataError, match="sha256"):
        open_dataset("tiny", "train", root=root)


def test_bad_arguments():
    with pytest.raises(DataError, match="train, val, test"):
        open_dataset("tiny", "dev", root=SHIPPED)
    with pytest.raises(S2FError, match="unknown preset"):
        open_dataset("huge", "train")
    with pytest.raises(DataError, match="limit"):
        open_dataset("tiny", "train", root=SHIPPED, limit=0)


def test_arrays_larger_than_memory_are_refused():
    dataset = SynthFaces(SHIPPED, "train", size=100_000)
    with pytest.raises(DataError, match="give a limit"):
        dataset.arrays()


def test_which_folder_is_a_presets_own(tmp_path, monkeypatch):
    """The user's data come first; the shipped people and rendered ones stand in for what is not there."""
    from s2flib.datasets.folders import own_data
    from s2flib.presets import COLAB

    monkeypatch.setenv("S2F_DATA", str(tmp_path))
    assert own_data(TINY) == SHIPPED
    (tmp_path / "synthfaces").mkdir()
    assert own_data(TINY) == tmp_path / "synthfaces"
    with pytest.raises(DataError, match="s2f render -o .*synthfaces-256 --size 256 --people 300"):
        own_data(COLAB)
    (tmp_path / "synthfaces-256").mkdir()
    assert own_data(COLAB) == tmp_path / "synthfaces-256"
    (tmp_path / "CelebAMask-HQ").mkdir()
    assert own_data(COLAB) == tmp_path / "CelebAMask-HQ"
