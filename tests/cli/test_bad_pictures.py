"""Bad pictures, full disks and unwritable folders, to generate and sketch alike."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from commands import refused, s2f
from PIL import Image


@pytest.mark.parametrize("command", ["generate", "sketch"])
def test_bad_pictures_are_refused(stand_in, bad_images, tmp_path, command):
    for name, path in bad_images.unreadable.items():
        if (command, name) == ("sketch", "folder"):
            continue  # a folder is what sketch may be given
        refused(s2f(command, path, "-o", tmp_path / name), path.name)
        assert not (tmp_path / name).exists()


def test_unusual_pictures_are_taken(stand_in, bad_images, tmp_path):
    files = list(bad_images.odd.values())
    faces, sketches = tmp_path / "faces", tmp_path / "sketches"
    result = s2f("generate", *files, "-o", faces, "--n", 1)
    assert result.exit_code == 0, result.output
    assert len(list(faces.glob("*_face_1.png"))) == len(files)
    for path in files:
        assert s2f("sketch", path, "-o", sketches / f"{path.stem}-{path.suffix[1:]}.png").exit_code == 0
    found = [Image.open(path) for path in sketches.iterdir()]
    assert len(found) == len(files) and {(image.mode, image.size) for image in found} == {("L", (64, 48))}


def test_no_face_and_two_faces(stand_in, tmp_path):
    astronaut = skimage.data.astronaut()
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "none.png")
    face = astronaut[:300, 80:380]
    Image.fromarray(np.hstack([face, face[:, ::-1]])).save(tmp_path / "two.png")
    refused(s2f("generate", tmp_path / "none.png", "-o", tmp_path / "a", "--from-photo", "--align"), "none.png", "face")
    refused(
        s2f("generate", tmp_path / "two.png", "-o", tmp_path / "a", "--from-photo", "--align"), "two.png", "which=0"
    )
    assert not (tmp_path / "a").exists()
    chosen = s2f(
        "generate", tmp_path / "two.png", "-o", tmp_path / "b", "--n", 1, "--from-photo", "--align", "--which", 1
    )
    assert chosen.exit_code == 0, chosen.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_full_disk(stand_in, page, tmp_path, monkeypatch):
    """Every byte written to the disk meets ENOSPC, as the kernel reports it."""
    save = Image.Image.save

    def to_full_disk(self, target, *args, **kwargs):
        save(self, "/dev/full", *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", to_full_disk)
    for command in ("generate", "sketch"):
        refused(s2f(command, page, "-o", tmp_path / command), "disk is full")
        assert not any((tmp_path / command).glob("*"))


def test_unwritable_folder(stand_in, page, tmp_path):
    (tmp_path / "file").write_text("mine")
    for command in ("generate", "sketch"):
        refused(s2f(command, page, "-o", tmp_path / "file" / "inside"), "file")
    assert (tmp_path / "file").read_text() == "mine"
