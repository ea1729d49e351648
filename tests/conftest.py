"""Fixtures shared by all tests: awkward pictures, a real face, and small data sets of the published layouts."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import sys
import zlib
from pathlib import Path

import fake_faces
import numpy as np
import pytest
from PIL import Image

SCRIPTS = Path(__file__).parents[1] / "scripts"


class BadImages(dict):
    """name → path. ``unreadable``: load_image must refuse these. ``odd``: unusual, yet they must load."""

    REFUSED = ("missing", "folder", "empty", "truncated", "text", "one_pixel", "huge", "long_side")

    @property
    def unreadable(self) -> dict[str, Path]:
        return {k: self[k] for k in self.REFUSED}

    @property
    def odd(self) -> dict[str, Path]:
        return {k: v for k, v in self.items() if k not in self.REFUSED}


def _gradient(h: int = 48, w: int = 64) -> np.ndarray:
    """(h, w, 3): red grows to the right, green downwards, blue is 100."""
    rows, columns = np.mgrid[0:h, 0:w]
    return np.stack([columns * 255 // (w - 1), rows * 255 // (h - 1), np.full((h, w), 100)], -1).astype(np.uint8)


@pytest.fixture(scope="session")
def bad_images(tmp_path_factory) -> BadImages:
    """Every awkward picture a user may bring, as files. Odd ones show the 64×48 gradient (the rotated one too)."""
    d = tmp_path_factory.mktemp("bad_images")
    pixels = _gradient()
    rgb = Image.fromarray(pixels)
    paths = BadImages()

    def at(name: str, file: str) -> Path:
        paths[name] = d / file
        return paths[name]

    at("missing", "missing.png")
    at("folder", "folder.png").mkdir()
    at("empty", "empty.png").touch()
    rgb.resize((256, 256)).save(d / "whole.jpg")
    whole = (d / "whole.jpg").read_bytes()
    (d / "whole.jpg").unlink()
    at("truncated", "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    at("text", "text.png").write_text("this is not a picture\n")
    Image.new("RGB", (1, 1)).save(at("one_pixel", "one_pixel.png"))
    # 20,000 × 20,000 in 70 bytes: the header alone must be enough to refuse it
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    at("huge", "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    Image.new("1", (13_000, 20)).save(at("long_side", "long_side.png"))

    rgb.convert("L").save(at("grey", "grey.png"))
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:, :32] = 0  # left half transparent: comes out white
    Image.fromarray(np.dstack([pixels, alpha])).save(at("rgba", "rgba.png"))
    sixteen = pixels[..., 0].astype(np.uint16) * 257
    Image.fromarray(sixteen).save(at("sixteen_bit", "sixteen_bit.png"))
    rgb.convert("CMYK").save(at("cmyk", "cmyk.jpg"), quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    rgb.transpose(Image.Transpose.ROTATE_90).save(at("exif_rotated", "exif_rotated.jpg"), exif=exif, quality=95)
    frames = [Image.new("RGB", (64, 48), c) for c in ("red", "green", "blue")]
    rgb.save(at("animated_gif", "animated.gif"), save_all=True, append_images=frames)
    rgb.save(at("animated_webp", "animated.webp"), save_all=True, append_images=frames, lossless=True)
    rgb.quantize(32).save(at("palette", "palette.png"))
    rgb.save(at("plain", "plain.png"))
    return paths


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """(512, 512, 3) uint8: NASA's photograph of Eileen Collins (public domain), a real face."""
    from skimage import data

    return data.astronaut()


@pytest.fixture
def celeba_folder(_celeba_template, tmp_path) -> Path:
    """A fresh copy, free to be damaged, of the CelebAMask-HQ folder of fake_faces.write_celeba."""
    return Path(shutil.copytree(_celeba_template, tmp_path / "CelebAMask-HQ"))


@pytest.fixture(scope="session")
def _celeba_template(tmp_path_factory) -> Path:
    """See :func:`fake_faces.write_celeba`."""
    return fake_faces.write_celeba(tmp_path_factory.mktemp("celeba"))


@pytest.fixture
def script(monkeypatch):
    """Imports a file of scripts/ by its name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def load(name: str):
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load
