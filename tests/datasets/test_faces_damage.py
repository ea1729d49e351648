"""SynthFaces folders that are damaged or contradict themselves: found, named, never another exception."""

import hashlib
import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from s2flib.datasets import open_dataset
from s2flib.errors import DataError


@pytest.mark.parametrize("coding", ["utf-16", "utf-32", "cp037"])
def test_a_manifest_in_another_encoding_is_refused(small_set, coding):
    path = small_set[0] / "manifest.csv"
    path.write_bytes(path.read_text().encode(coding))
    with pytest.raises(DataError, match="manifest.csv (is no CSV file in UTF-8|lacks the columns)"):
        open_dataset("tiny", "train", root=small_set[0])


def test_a_byte_order_mark_does_no_harm(small_set):
    path = small_set[0] / "manifest.csv"
    path.write_bytes(path.read_text().encode("utf-8-sig"))
    assert open_dataset("tiny", "train", root=small_set[0]).names == ["p0", "p1"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"identity": "one"}, "line 3"),
        ({"identity": "1.5"}, "line 3"),
        ({"identity": "9" * 30}, "line 3"),
        ({"identity": "²"}, "line 3"),
        ({"split": "training"}, "line 3"),
        ({"file": "p1\n.webp"}, "line 3"),
        ({"file": "p" * 5000}, "line 3"),
        ({"file": "p0.webp"}, r"lists p0\.webp in lines 2 and 3"),
    ],
)
def test_rows_that_cannot_be_are_refused(small_set, changed, message):
    root, rows, rewrite = small_set
    rewrite([rows[0], rows[1] | changed, *rows[2:]])
    with pytest.raises(DataError, match=message) as e:
        open_dataset("tiny", "train", root=root)
    assert str(e.value).isprintable() and len(str(e.value)) < 500


def replace_member(small_set, kind, content):
    """p0.webp of this kind becomes another file, with its own sum in the manifest."""
    root, rows, rewrite = small_set
    path = root / f"{kind}-train.zip"
    with zipfile.ZipFile(path) as z:
        members = {name: z.read(name) for name in z.namelist()} | {"p0.webp": content}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in members.items():
            z.writestr(name, data)
    column = {"images": "sha256", "masks": "mask_sha256"}[kind]
    rewrite([rows[0] | {column: hashlib.sha256(content).hexdigest()}, *rows[1:]])


def webp(size, label):
    buffer = io.BytesIO()
    Image.new("L", size, label).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("masks", webp((128, 128), 0), r"p0\.webp in .*masks-train\.zip is no mask"),
        ("masks", webp((128, 128), 19), "is no mask"),
        ("masks", webp((64, 64), 1), "is no mask"),
        ("masks", webp((128, 64), 1), "128×64 px"),
        ("images", webp((128, 1), 1), "128×1 px"),
        ("images", bytes(70 << 20), "unpacks to 73,400,320 bytes"),
    ],
)
def test_members_that_are_no_portraits_are_refused(small_set, kind, content, message):
    replace_member(small_set, kind, content)
    dataset = open_dataset("tiny", "train", root=small_set[0])
    assert dataset[1]["name"] == "p1"
    with pytest.raises(DataError, match=message):
        dataset[0]


def test_a_restored_archive_is_read_by_the_same_process(small_set):
    archive = small_set[0] / "images-train.zip"
    good = archive.read_bytes()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("p0.webp", b"another picture")
    dataset = open_dataset("tiny", "train", root=small_set[0])
    with pytest.raises(DataError):
        dataset[0]
    archive.write_bytes(good)
    os.utime(archive, ns=(1, 1))  # two changes within the clock's grain
    assert dataset[0]["name"] == "p0"


@pytest.mark.parametrize(
    "changed",
    [
        {"size": 0},
        {"size": np.inf},
        {"size": 1 + 2j},
        {"scale": 0},
        {"scale": "ten"},
        {"points": np.zeros((4, 67, 2))},
        {"points": np.full((4, 68, 2), np.nan)},
        {"points": 0},
        {"names": ["p0", "p0", "p2", "p3"]},
        {"names": np.array([None] * 4)},
    ],
    ids=str,
)
def test_damaged_landmarks_are_one_sentence(small_set, changed):
    stored = dict(names=[f"p{k}" for k in range(4)], points=np.full((4, 68, 2), 640, np.int16), scale=10, size=128)
    path = small_set[0] / "landmarks.npz"
    np.savez(path, **stored)
    assert (open_dataset("tiny", "train", root=small_set[0]).landmarks(1) == 64).all()
    np.savez(path, **stored | changed)
    with pytest.raises(DataError, match=r"landmarks\.npz is missing or damaged") as e:
        open_dataset("tiny", "train", root=small_set[0]).landmarks(0)
    assert str(e.value).isprintable()
    with open(path, "wb") as f:
        np.save(f, np.zeros(3))  # no archive at all
    with pytest.raises(DataError, match=r"landmarks\.npz is missing or damaged"):
        open_dataset("tiny", "train", root=small_set[0]).landmarks(0)
