"""One rule for --out in every command, and output that any terminal can print."""

import os
import subprocess
import sys

import numpy as np
import pytest
from commands import REPO, refused, s2f
from PIL import Image

from s2flib.cli.outputs import picture_files
from s2flib.errors import S2FError


def test_names_with_dots_are_folders(tmp_path):
    (tmp_path / "run.1").mkdir()
    (tmp_path / "dir.png").mkdir()
    for name in ("run.1", "my.faces", "new", "dir.png"):
        got = picture_files(tmp_path / name, ["a.png", "b.png"], False)
        assert got == [tmp_path / name / "a.png", tmp_path / name / "b.png"]
    for name in ("a.png", "a.JPG", "a.webp"):
        assert picture_files(tmp_path / name, ["x.png"], False) == [tmp_path / name]


def test_refusals_before_any_work(tmp_path):
    (tmp_path / "there.png").touch()
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "a.png").touch()
    for out, names, words in (
        ("out.tiff", ["a.png"], "ends in .png"),
        ("out.bmp", ["a.png"], "ends in .png"),
        ("out.png", ["a.png", "b.png"], "2 results do not fit"),
        ("file", ["a.png"], "is a file"),
        ("new", ["a.png", "a.png"], "two of the results"),
        ("there.png", ["a.png"], "exists already"),
        ("dir", ["a.png"], "exists already"),
    ):
        with pytest.raises(S2FError, match=words):
            picture_files(tmp_path / out, names, False)
    assert picture_files(tmp_path / "there.png", ["a.png"], True) == [tmp_path / "there.png"]


def test_the_commands_follow_it(tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(photo)
    result = s2f("sketch", photo, "-o", tmp_path / "run.1")
    assert result.exit_code == 0 and (tmp_path / "run.1" / "photo.png").is_file()
    refused(s2f("sketch", photo, "-o", tmp_path / "out.bmp"), "ends in .png")
    refused(s2f("edit", photo, "add glasses", "-o", tmp_path / "out.tiff"), "ends in .png")
    refused(s2f("edit", photo, "add glasses", "-o", tmp_path / "out.png", "--n", 4), "do not fit")
    refused(s2f("generate", photo, "-o", tmp_path / "out.png"), "choose a folder")
    assert not any(tmp_path.glob("out.*"))


def test_a_mask_of_the_photos_shape_is_resized(tmp_path):
    from s2flib.sketch import sketch

    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:28, 10:40] = 1
    Image.fromarray(photo).save(tmp_path / "p.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert s2f("sketch", tmp_path / "p.png", "--masks", tmp_path / "m.png", "-o", tmp_path / "s.png").exit_code == 0
    expected = sketch(photo, mask.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "s.png")), expected)
    black = s2f("sketch", tmp_path / "p.png", "--masks", tmp_path / "m.png", "-o", tmp_path / "b.png",
                "--background", "black")  # fmt: skip
    assert black.exit_code == 0
    assert not np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), expected)
    refused(s2f("sketch", tmp_path / "p.png", "-o", tmp_path / "c.png", "--background", "grey"), "white, black")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["sweep", "--help"]])
def test_help_in_any_encoding(arguments, encoding):
    done = subprocess.run(
        [sys.executable, "-m", "s2flib", *arguments], capture_output=True, cwd=REPO,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"Usage" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows' file names are Unicode")
def test_a_file_name_of_any_bytes(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    try:
        with open(name, "wb") as f:
            Image.new("RGB", (64, 64), "white").save(f, "PNG")
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    done = subprocess.run(
        [sys.executable, "-m", "s2flib", "generate", name, "-o", tmp_path / "out"], capture_output=True, cwd=REPO
    )
    assert done.returncode == 2 and b"Traceback" not in done.stderr and b"empty page" in done.stderr


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 10**30])
@pytest.mark.parametrize(
    "command", [["generate", "PHOTO"], ["edit", "PHOTO", "add glasses"], ["evaluate"], ["lineup"], ["train"],
                ["evaluate", "--what", "generator"]]
)  # fmt: skip
def test_seeds_out_of_range_are_refused_before_anything_is_read(command, seed, tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_WEIGHTS", str(tmp_path / "nowhere"))
    Image.new("RGB", (64, 64), "white").save(tmp_path / "p.png")
    arguments = [tmp_path / "p.png" if a == "PHOTO" else a for a in command]
    refused(s2f(*arguments, "-o", tmp_path / "out", "--seed", seed), "seed", seed)


def test_a_source_is_never_overwritten_by_its_own_output(tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_WEIGHTS", str(tmp_path / "nowhere"))
    for name in ("face.png", "face_face_1.png", "overview.png", "face_edit_1.png"):
        Image.new("RGB", (64, 64), "white").save(tmp_path / name)
    before = {p: p.read_bytes() for p in tmp_path.glob("*.png")}
    (tmp_path / "link").symlink_to(tmp_path)
    for command in (
        ["sketch", tmp_path / "face.png", "-o", tmp_path / "face.png"],
        ["sketch", tmp_path / "face.png", "-o", tmp_path],
        ["sketch", tmp_path / "face.png", "-o", tmp_path / "link"],
        ["edit", tmp_path / "face.png", "add glasses", "-o", tmp_path / "face.png"],
        ["generate", tmp_path / "face.png", tmp_path / "face_face_1.png", "-o", tmp_path],
        ["generate", tmp_path / "overview.png", "-o", tmp_path],
    ):
        refused(s2f(*command, "--overwrite"), "would be overwritten")
    assert all(p.read_bytes() == data for p, data in before.items())
