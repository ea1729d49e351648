"""s2f sketch: files, folders, masks, and outputs that would collide."""

import numpy as np
import skimage.data
from commands import refused, s2f
from PIL import Image
from stand_in import drawing


def test_sketch_file_to_file_with_mask(tmp_path):
    from s2flib.sketch import sketch

    photo = skimage.data.astronaut()[:200, 100:340]
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[40:180, 60:200] = 1
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = s2f(
        "sketch", tmp_path / "photo.png", "-o", tmp_path / "s.png", "--masks", tmp_path / "mask.png", "--sigma", 12
    )
    assert result.exit_code == 0, result.output
    image = Image.open(tmp_path / "s.png")
    assert np.array_equal(np.asarray(image), sketch(photo, mask, 12)) and "synthetic" not in image.text
    refused(s2f("sketch", tmp_path / "photo.png", "-o", tmp_path / "s.png"), "exists already")


def test_sketch_of_wrong_mask_and_sigma(tmp_path):
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "photo.png")
    Image.new("L", (10, 10)).save(tmp_path / "mask.png")
    refused(s2f("sketch", tmp_path / "photo.png", "-o", tmp_path / "s.png", "--masks", tmp_path / "mask.png"), "mask")
    refused(s2f("sketch", tmp_path / "photo.png", "-o", tmp_path / "s.png", "--sigma", -3), "sigma")
    assert not (tmp_path / "s.png").exists()


def test_sketch_folder_resumes_and_lists_failures(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name in "ab":
        Image.fromarray(skimage.data.astronaut()[:64, :64]).save(photos / f"{name}.png")
    (photos / "c.png").write_text("no picture")
    first = s2f("sketch", photos, "-o", out, "--workers", 1)
    assert first.exit_code == 2 and "2 sketched" in first.output and first.stderr.count("c.png") == 1
    stamp = (out / "a.png").stat().st_mtime_ns
    second = s2f("sketch", photos, "-o", out, "--workers", 1)
    assert "2 there already" in second.output and (out / "a.png").stat().st_mtime_ns == stamp


def test_sketches_that_would_collide(tmp_path):
    (tmp_path / "x").mkdir()
    for path in (tmp_path / "p.png", tmp_path / "x" / "p.png"):
        Image.fromarray(drawing()).save(path)
    refused(s2f("sketch", tmp_path / "p.png", tmp_path / "x" / "p.png", "-o", tmp_path / "out"), "one by one")
    refused(s2f("sketch", tmp_path / "p.png", tmp_path / "x", "-o", tmp_path / "out"), "folder")
    assert not (tmp_path / "out").exists()


def test_the_sketch_of_a_generated_face_is_marked_too(tmp_path):
    """The mark travels: by file, by folder, from PNG, JPEG and WebP, with what the source said of itself."""
    from s2flib.images import read_metadata, save_image

    face = skimage.data.astronaut()[:96, :96]
    photos = tmp_path / "photos"
    for suffix in ("png", "jpg", "webp"):
        save_image(photos / f"made_{suffix}.{suffix}", face, {"seed": 7, "weights_sha256": "abc"})
    Image.fromarray(face).save(photos / "real.png")
    assert s2f("sketch", photos, "-o", tmp_path / "all").exit_code == 0
    for suffix in ("png", "jpg", "webp"):
        source = photos / f"made_{suffix}.{suffix}"
        assert s2f("sketch", source, "-o", tmp_path / "one").exit_code == 0
        for drawn in (tmp_path / "all" / f"made_{suffix}.png", tmp_path / "one" / f"made_{suffix}.png"):
            found = read_metadata(drawn)
            assert found["synthetic"] == "true" and '"seed": "7"' in found["source_metadata"]
    assert "synthetic" not in read_metadata(tmp_path / "all" / "real.png")
    assert read_metadata(tmp_path / "nowhere.png") == {}
