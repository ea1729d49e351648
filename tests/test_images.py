import errno
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from s2flib.errors import ImageError, S2FError
from s2flib.files import atomic_path
from s2flib.images import MAX_SIDE, centre_square, load_image, load_mask, save_image, to_array, to_photo

REFUSED = {
    "missing": "does not exist", "folder": "is a folder", "empty": "is empty", "truncated": "or truncated",
    "text": "not a picture", "one_pixel": "1×1 px", "huge": "12,000", "long_side": "12,000",
}


@pytest.mark.parametrize("name", REFUSED)
def test_unreadable_pictures_give_one_sentence_that_names_the_file(bad_images, name):
    with pytest.raises(ImageError) as e:
        load_image(bad_images[name])
    text = str(e.value)
    assert REFUSED[name] in text and bad_images[name].name in text
    assert ": " in text and text.endswith(".") and "\n" not in text


def test_the_fixture_and_this_file_cover_the_same_cases(bad_images):
    assert set(bad_images.unreadable) == set(REFUSED)


def test_odd_pictures_load_as_the_picture_they_show(bad_images):
    plain = load_image(bad_images["plain"])
    assert plain.shape == (48, 64, 3) and plain.dtype == np.uint8
    assert plain[0, 0].tolist() == [0, 0, 100] and plain[47, 63].tolist() == [255, 255, 100]
    for name, path in bad_images.odd.items():
        image = load_image(path)
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8, name
        assert image.flags.writeable, name

    def differs(name, reference=plain):
        return np.abs(load_image(bad_images[name]).astype(int) - reference).mean()

    assert differs("exif_rotated") < 6                  # JPEG; unrotated it would differ by about 60 and in shape
    assert differs("animated_webp") == 0                # the first frame, not a later one
    assert differs("animated_gif") < 20 and differs("palette") < 20    # palettes
    assert differs("cmyk") < 6
    grey = load_image(bad_images["grey"])
    assert (grey[..., 0] == grey[..., 1]).all() and abs(grey[0, 0, 0] - 11) <= 1     # 0.114 · 100
    assert (load_image(bad_images["sixteen_bit"]) == plain[..., :1]).all()          # scaled, not clipped
    rgba = load_image(bad_images["rgba"])
    assert (rgba[:, :32] == 255).all() and (rgba[:, 32:] == plain[:, 32:]).all()


def test_an_open_file_loads_and_its_name_is_in_errors(bad_images):
    with open(bad_images["plain"], "rb") as f:
        assert load_image(f).shape == (48, 64, 3)
    with open(bad_images["text"], "rb") as f, pytest.raises(ImageError, match=r"text\.png"):
        load_image(f)


def test_side_limits_are_inclusive(tmp_path):
    Image.new("1", (MAX_SIDE, 16)).save(tmp_path / "limit.png")
    assert load_image(tmp_path / "limit.png").shape == (16, MAX_SIDE, 3)
    Image.new("L", (15, 40)).save(tmp_path / "small.png")
    with pytest.raises(ImageError, match="15×40"):
        load_image(tmp_path / "small.png")


def test_postscript_is_never_interpreted(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n")
    with pytest.raises(ImageError, match="not a picture"):
        load_image(tmp_path / "a.png")


def test_masks_keep_their_ids(tmp_path, bad_images):
    ids = np.arange(20 * 20, dtype=np.uint8).reshape(20, 20) % 19
    Image.fromarray(ids).save(tmp_path / "grey.png")
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette(list(range(255, -1, -1)) * 3)     # colours say nothing about ids
    palette.putdata(ids.ravel().tolist())
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.repeat(ids[..., None], 3, 2)).save(tmp_path / "rgb.png")
    for name in ("grey", "palette", "rgb"):
        assert (load_mask(tmp_path / f"{name}.png") == ids).all(), name
    coloured = np.zeros((20, 20, 3), np.uint8)
    coloured[3, 4] = (0, 9, 0)
    Image.fromarray(coloured).save(tmp_path / "coloured.png")
    mask = load_mask(tmp_path / "coloured.png")
    assert mask[3, 4] == 255 and mask.sum() == 255
    with pytest.raises(ImageError, match="truncated.jpg"):
        load_mask(bad_images["truncated"])


def test_to_photo_takes_the_centre_and_the_range():
    array = np.zeros((40, 100, 3), np.uint8)
    array[:, 30:70] = 255                                # exactly the centre square
    photo = to_photo(array, 32)
    assert photo.shape == (3, 32, 32) and photo.dtype == torch.float32 and (photo == 1).all()
    array[:, 30:70] = (0, 127, 255)
    assert torch.allclose(to_photo(array, 40)[:, 5, 5], torch.tensor([-1, 127 / 127.5 - 1, 1]))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert np.array_equal(to_array(to_photo(noise, 64)), noise)      # there and back, exactly
    assert np.abs(centre_square(noise, 32).astype(float)
                  - noise.reshape(32, 2, 32, 2, 3).mean((1, 3))).max() <= 0.5    # shrinking averages


def test_array_and_tensor_errors():
    for bad in (np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(ImageError, match="load_image"):
            to_photo(bad, 8)
    with pytest.raises(ImageError, match=r"\(3, H, W\)"):
        to_array(torch.zeros(4, 8, 8))
    assert to_array(torch.zeros(2, 3, 8, 9)).shape == (2, 8, 9, 3)
    out = to_array(torch.tensor([-5.0, 0.0, 5.0])[:, None, None].expand(3, 2, 2))
    assert out[0, 0].tolist() == [0, 128, 255]           # clipped; 127.5 rounds to even


def test_save_writes_metadata_and_marks(tmp_path):
    array = np.full((128, 128, 3), 90, np.uint8)
    path = save_image(tmp_path / "new" / "a.png", array, {"seed": 3, "preset": "tiny", "note": "ψ = 0.7"})
    with Image.open(path) as image:
        assert image.text == {"seed": "3", "preset": "tiny", "note": "ψ = 0.7", "synthetic": "true"}
        assert np.array_equal(np.array(image), array)
    with Image.open(save_image(tmp_path / "b.png", array[..., 0], synthetic=False)) as image:
        assert "synthetic" not in image.text and image.mode == "L"
    for name in ("c.jpg", "c.webp"):
        with Image.open(save_image(tmp_path / name, array, {"seed": 3})) as image:
            assert json.loads(image.getexif()[0x010E]) == {"seed": "3", "synthetic": "true"}
    marked = load_image(save_image(tmp_path / "d.png", array, mark=True))
    assert (marked[:118] == 90).all()                    # the face stays, the strip has dark ground and light text
    assert marked[118:].min() == 0 and marked[118:].max() > 200


def test_save_never_overwrites_unasked(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"the user's own")
    array = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ImageError, match="exists already"):
        save_image(path, array)
    assert path.read_bytes() == b"the user's own"
    save_image(path, array, overwrite=True)
    assert load_image(path).shape == (20, 20, 3)
    with pytest.raises(ImageError, match=r"\.png"):
        save_image(tmp_path / "a.tga", array)
    with pytest.raises(ImageError, match="float64"):
        save_image(tmp_path / "f.png", array / 255)
    assert os.listdir(tmp_path) == ["a.png"]


def test_atomic_path_leaves_the_old_file_when_anything_fails(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as part:
        assert part.parent == tmp_path and part.suffix == ".npz"
        part.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["weights.npz"]
    with atomic_path(path) as part:
        part.write_bytes(b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["weights.npz"]


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("I/O error: No space left on device (os error 28)"),    # as safetensors words it
])
def test_a_full_disk_is_one_sentence(tmp_path, error):
    with pytest.raises(S2FError, match="the disk is full") as e, atomic_path(tmp_path / "a.bin") as part:
        part.write_bytes(b"half")
        raise error
    assert str(tmp_path / "a.bin") in str(e.value) and os.listdir(tmp_path) == []


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(ValueError, match="mine"), atomic_path(tmp_path / "a.bin") as part:
        part.write_bytes(b"x")
        raise ValueError("mine")
    (tmp_path / "file").write_text("x")
    with pytest.raises(S2FError, match="cannot be written"), atomic_path(tmp_path / "file" / "a.bin"):
        pass


def test_a_real_write_limit_leaves_nothing_behind(tmp_path):
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))     # the picture needs 120,000 bytes
    try:
        with pytest.raises(S2FError, match="cannot be written"):
            save_image(tmp_path / "a.png", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []
