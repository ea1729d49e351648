"""A folder of photos: all sketched, failures listed, resumed, and nothing of the user's overwritten."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_faces import crude_face
from PIL import Image

from s2flib.datasets.sketch_folder import sketch_folder
from s2flib.errors import DataError
from s2flib.images import load_image
from s2flib.sketch import sketch


@pytest.fixture
def folder(tmp_path, bad_images):
    """photos/ with two good ones in subfolders, a twin stem, three bad ones and two files to ignore."""
    src = tmp_path / "photos"
    (src / "sub").mkdir(parents=True)
    Image.fromarray(crude_face()[0]).save(src / "a.png")
    Image.fromarray(crude_face(seed=1)[0]).save(src / "sub" / "b.jpg")
    Image.fromarray(crude_face(seed=2)[0]).save(src / "sub" / "b.png")
    for name in ("truncated", "text", "empty"):
        shutil.copy(bad_images[name], src)
    (src / "notes.txt").write_text("not for sketching")
    (src / ".hidden.png").write_text("not for sketching either")
    return src


def test_folder_does_the_good_and_lists_the_bad(folder, tmp_path):
    out = tmp_path / "out"
    report = sketch_folder(folder, out, progress=False)
    assert [p.relative_to(out).as_posix() for p in report.done] == ["a.png", "sub/b.jpg.png", "sub/b.png.png"]
    assert [(p.name, why.split()[0]) for p, why in report.failed] == [
        (n, str(folder / n)) for n in ("empty.png", "text.png", "truncated.jpg")
    ]
    assert "empty" in report.failed[0][1] and "or truncated" in report.failed[2][1]
    assert sorted(p.name for p in out.rglob("*.*")) == ["a.png", "b.jpg.png", "b.png.png"]
    expected = sketch(load_image(folder / "a.png"))
    with Image.open(out / "a.png") as image:
        assert image.mode == "L" and np.array_equal(np.array(image), expected)
        assert "synthetic" not in image.text


def test_folder_resumes_redoes_changes_and_spares_what_is_not_its_own(folder, tmp_path):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "b.png.png").write_bytes(b"the user's own")
    first = sketch_folder(folder, out, workers=2, progress=False)
    assert len(first.done) == 2 and any("was not written by s2flib" in why for _, why in first.failed)
    assert (out / "sub" / "b.png.png").read_bytes() == b"the user's own"
    times = {p: os.stat(p).st_mtime_ns for p in first.done}
    again = sketch_folder(folder, out, progress=False)
    assert again.done == [] and again.skipped == first.done
    assert {p: os.stat(p).st_mtime_ns for p in first.done} == times
    (out / "a.png").unlink()  # an interrupted run: one is missing
    assert sketch_folder(folder, out, progress=False).done == [out / "a.png"]
    Image.fromarray(crude_face(seed=9)[0]).save(folder / "a.png")  # a changed photo
    assert sketch_folder(folder, out, progress=False).done == [out / "a.png"]
    assert np.array_equal(load_image(out / "a.png")[..., 0], sketch(crude_face(seed=9)[0]))
    assert len(sketch_folder(folder, out, sigma=3, progress=False).done) == 2  # another σ


def test_folder_with_masks(folder, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    small = crude_face()[1][::2, ::2] * 13  # half the size, label ids
    Image.fromarray(small).save(masks / "a.png")
    report = sketch_folder(folder, tmp_path / "out", masks, progress=False)
    assert [p.name for p in report.done] == ["a.png"]
    assert any("no mask named sub/b.png" in why.replace(os.sep, "/") for _, why in report.failed)
    got = load_image(tmp_path / "out" / "a.png")[..., 0]
    full = np.repeat(np.repeat(small, 2, 0), 2, 1)
    assert (got[full == 0] == 255).all() and (got[full > 0] < 255).any()
    Image.fromarray(small[:, :30]).save(masks / "a.png")
    report = sketch_folder(folder, tmp_path / "out2", masks, progress=False)
    assert report.done == [] and any("the mask is 30×48 px" in why for _, why in report.failed)


def test_folder_errors(tmp_path, folder):
    with pytest.raises(DataError, match="is not a folder"):
        sketch_folder(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="contains no images"):
        sketch_folder(tmp_path / "bare", tmp_path / "out")
    with pytest.raises(DataError, match="among the photos"):
        sketch_folder(folder, folder)
    with pytest.raises(DataError, match="masks"):
        sketch_folder(folder, tmp_path / "out", masks=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_output_inside_the_input_is_not_sketched_again(folder):
    out = folder / "sketches"
    assert len(sketch_folder(folder, out, progress=False).done) == 3
    second = sketch_folder(folder, out, progress=False)
    assert second.done == [] and len(second.skipped) == 3
    assert not (out / "sketches").exists()


def test_an_interrupted_run_leaves_whole_files_only(folder, tmp_path, monkeypatch):
    import s2flib.datasets.sketch_folder as module

    real, calls = module.save_image, []

    def interrupted(path, *args, **kwargs):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(path, *args, **kwargs)

    monkeypatch.setattr(module, "save_image", interrupted)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sketch_folder(folder, out, workers=1, progress=False)
    written: list[Path] = [p for p in out.rglob("*") if p.is_file()]
    assert 1 <= len(written) < 3  # what was in hand may still be finished
    assert all(load_image(p).shape == (96, 96, 3) for p in written)
    monkeypatch.setattr(module, "save_image", real)
    report = sketch_folder(folder, out, progress=False)
    assert len(report.done) == 3 - len(written) and report.skipped == sorted(written)


def test_an_oversized_picture_in_a_sketchs_place_is_not_ours(folder, tmp_path, bad_images):
    (tmp_path / "out").mkdir()
    shutil.copy(bad_images["huge"], tmp_path / "out" / "a.png")
    report = sketch_folder(folder, tmp_path / "out", progress=False)
    assert len(report.done) == 2 and any("was not written by s2flib" in why for _, why in report.failed)
