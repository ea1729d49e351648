import json
import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from s2flib.errors import ImageError
from s2flib.images import (
    MAX_SIDE,
    as_array,
    as_float,
    centre_square,
    contact_sheet,
    load_image,
    load_mask,
    save_image,
    to_array,
    to_photo,
)

REFUSED = {
    "missing": "does not exist",
    "folder": "is a folder",
    "empty": "is empty",
    "truncated": "or truncated",
    "text": "not an image",
    "one_pixel": "1×1 px",
    "huge": "12,000",
    "long_side": "12,000",
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

    assert differs("exif_rotated") < 6  # JPEG; unrotated it would differ by about 60 and in shape
    assert differs("animated_webp") == 0  # the first frame, not a later one
    assert differs("animated_gif") < 20 and differs("palette") < 20  # palettes
    assert differs("cmyk") < 6
    grey = load_image(bad_images["grey"])
    assert (grey[..., 0] == grey[..., 1]).all() and abs(grey[0, 0, 0] - 11) <= 1  # 0.114 · 100
    assert (load_image(bad_images["sixteen_bit"]) == plain[..., :1]).all()  # scaled, not clipped
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
    with pytest.raises(ImageError, match="not an image"):
        load_image(tmp_path / "a.png")


def test_masks_keep_their_ids(tmp_path, bad_images):
    ids = np.arange(20 * 20, dtype=np.uint8).reshape(20, 20) % 19
    Image.fromarray(ids).save(tmp_path / "grey.png")
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette(list(range(255, -1, -1)) * 3)  # colours say nothing about ids
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
    array[:, 30:70] = 255  # exactly the centre square
    photo = to_photo(array, 32)
    assert photo.shape == (3, 32, 32) and photo.dtype == torch.float32 and (photo == 1).all()
    array[:, 30:70] = (0, 127, 255)
    assert torch.allclose(to_photo(array, 40)[:, 5, 5], torch.tensor([-1, 127 / 127.5 - 1, 1]))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert np.array_equal(to_array(to_photo(noise, 64)), noise)  # there and back, exactly
    assert (
        np.abs(centre_square(noise, 32).astype(float) - noise.reshape(32, 2, 32, 2, 3).mean((1, 3))).max() <= 0.5
    )  # shrinking averages


def test_array_and_tensor_errors():
    for bad in (np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(ImageError, match="load_image"):
            to_photo(bad, 8)
    with pytest.raises(ImageError, match=r"\(3, H, W\)"):
        to_array(torch.zeros(4, 8, 8))
    assert to_array(torch.zeros(2, 3, 8, 9)).shape == (2, 8, 9, 3)
    out = to_array(torch.tensor([-5.0, 0.0, 5.0])[:, None, None].expand(3, 2, 2))
    assert out[0, 0].tolist() == [0, 128, 255]  # clipped; 127.5 rounds to even


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
    assert (marked[:118] == 90).all()  # the face stays, the strip has dark ground and light text
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


def test_contact_sheet_places_tiles_row_by_row():
    tiles = torch.stack([torch.full((3, 2, 2), v) for v in (-1.0, 0.0, 1.0)])
    grid = contact_sheet(to_array(tiles), columns=2)
    assert grid.shape == (4, 4, 3)
    assert grid[0, 0, 0] == 0 and grid[0, 3, 0] == 128 and grid[3, 0, 0] == 255


def test_contact_sheet_scales_labels_and_spaces():
    small, large = np.zeros((8, 8), np.uint8), np.full((16, 16, 3), 90, np.uint8)
    page = contact_sheet([small, large, large], columns=2, gap=3)
    assert page.shape == (2 * (16 + 3) + 3, 2 * (16 + 3) + 3, 3)
    assert (page[3:19, 3:19] == 0).all() and (page[3:19, 22:38] == 90).all() and (page[:3] == 255).all()
    assert (page[22:38, 22:38] == 255).all()  # the empty cell
    titled = contact_sheet([large], 1, ["ψ = 1"], cell=64)
    assert titled.shape == (84, 64, 3) and titled[:20].min() < 128 and (titled[20:] == 90).all()


def test_any_picture_becomes_the_same_array(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    image = Image.fromarray(array)
    image.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    with open(tmp_path / "a.png", "rb") as file:
        sources = [
            array,
            image,
            data,
            file,
            tmp_path / "a.png",
            str(tmp_path / "a.png"),
            as_float(array),
            as_float(array)[None],
        ]
        assert all((as_array(source) == array).all() for source in sources)
    grey = array[..., 0]
    assert (as_array(grey) == grey[..., None]).all()
    assert (as_array(torch.full((1, 4, 5), 0.5)) == 128).all()  # a sketch is [0, 1], not [−1, 1]
    ink = np.zeros((20, 20, 4), np.uint8)  # black and transparent: lies on white
    assert (as_array(ink) == 255).all() and (as_array(Image.fromarray(ink)) == 255).all()
    deep = Image.fromarray(np.full((20, 20), 32896, np.uint16))
    assert (as_array(deep) == 128).all()


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(2, 4, 4),
        torch.zeros(2, 3, 4, 4),
        torch.full((3, 4, 4), float("nan")),
        np.zeros((4, 4)),
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        torch.zeros(3, 0, 4),
        [[1, 2], [3]],
        "x" * 5000,
        "a\0b.png",
        b"GIF89a",
        b"",
        3,
    ],
)
def test_what_is_no_picture_is_an_image_error(bad):
    with pytest.raises(ImageError):
        as_array(bad)


def test_as_float_and_to_array_are_inverse():
    array = np.arange(256 * 3, dtype=np.int64).astype(np.uint8).reshape(16, 16, 3)
    x = as_float(array)
    assert x.shape == (3, 16, 16) and x.min() == -1 and x.max() == 1 and (to_array(x) == array).all()
    batch = torch.from_numpy(np.stack([array, array[::-1]])).permute(0, 3, 1, 2)
    assert torch.equal(as_float(batch)[0], x) and torch.equal(as_float(array[::-1])[:, ::1], x.flip(1))


# --- deep grey and transparency


@pytest.mark.parametrize(
    ("dtype", "white"), [(np.uint16, 255), (np.uint16, 4095), (np.uint16, 65535), (np.int32, 255), (np.int32, 4095),
                         (np.int32, 65535), (np.int32, 2**20), (np.float32, 1.0), (np.float32, 255.0)]
)  # fmt: skip
def test_grey_of_any_depth_is_scaled_by_the_depth_it_uses(dtype, white, tmp_path):
    shades = np.linspace(0, 1, 64)[None].repeat(32, 0)
    Image.fromarray((shades * white).astype(dtype)).save(tmp_path / "deep.tif")
    got = load_image(tmp_path / "deep.tif")
    assert got.shape == (32, 64, 3) and np.abs(got[..., 0] - shades * 255).max() <= 1.01


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_grey_that_is_no_picture_is_refused(value, tmp_path):
    pixels = np.full((32, 32), 0.5, np.float32)
    pixels[3, 4] = value
    Image.fromarray(pixels).save(tmp_path / "odd.tif")
    with pytest.raises(ImageError, match="below 0, or none"):
        load_image(tmp_path / "odd.tif")


def test_light_ink_on_transparency_is_laid_on_black():
    ink = np.zeros((64, 64, 4), np.uint8)
    ink[20:24, 10:50] = (250, 250, 240, 255)
    light = as_array(Image.fromarray(ink))
    assert light[0, 0].tolist() == [0, 0, 0] and light[22, 30].min() > 235
    ink[20:24, 10:50, :3] = 20
    dark = as_array(Image.fromarray(ink))
    assert dark[0, 0].tolist() == [255, 255, 255] and dark[22, 30].max() < 25
    ink[20:44, 10:50] = (250, 250, 250, 255)  # a cut-out with light and dark parts stays on white
    ink[24:30, 20:40, :3] = 60
    assert as_array(Image.fromarray(ink))[0, 0].tolist() == [255, 255, 255]
    solid = np.full((64, 64, 4), 255, np.uint8)
    assert as_array(Image.fromarray(solid)).min() == 255


# --- what decoders raise


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (struct.error("unpack requires 4 bytes"), "damaged or truncated"),
        (RuntimeError("two\nlines"), "damaged or truncated (two lines)"),
        (KeyError(3), "damaged or truncated"),
        (MemoryError(), "does not fit into memory"),
        (Image.DecompressionBombError("too many"), "12,000"),
    ],
)
def test_whatever_a_decoder_raises_is_one_sentence(error, words, bad_images, monkeypatch):
    def load(self):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    for read in (load_image, load_mask, as_array):
        with pytest.raises(ImageError) as e:
            read(bad_images["plain"])
        text = str(e.value)
        assert words in text and bad_images["plain"].name in text and text.isprintable()


def test_a_damaged_picture_that_pillow_has_opened(bad_images):
    with Image.open(bad_images["truncated"]) as image, pytest.raises(ImageError, match="the image is damaged"):
        as_array(image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_uncompressed_tiff_with_an_orientation_is_upright(orientation, tmp_path):
    """A scanner's file. Pillow scrambles it when it is given the path."""
    stored = np.arange(40 * 30, dtype=np.int64).reshape(40, 30).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "scan.tif", exif=exif)
    quarter_turns = {3: 2, 4: 2, 5: -1, 6: -1, 7: 1, 8: 1}.get(orientation, 0)
    upright = np.rot90(stored, quarter_turns)
    if orientation in (2, 4, 5, 7):
        upright = upright[:, ::-1]
    for read in (load_image, as_array, lambda path: as_array(path.read_bytes())):
        assert np.array_equal(read(tmp_path / "scan.tif")[..., 0], upright)
