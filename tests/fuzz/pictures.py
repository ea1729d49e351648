"""Broken pictures. The promise: a reader gives a picture, or one sentence that names the file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fake_faces import crude_face
from PIL import Image, ImageCms

from s2flib import images
from s2flib.datasets import sketch_folder as folders
from s2flib.datasets import user_drawing

from .common import FOREIGN, Broken, Rng, damaged, ensure, outcome, pick, promise, stream

# format → (suffix, modes that it stores)
FORMATS = {
    "PNG": (".png", ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I")),
    "JPEG": (".jpg", ("L", "RGB", "CMYK")),
    "WEBP": (".webp", ("RGB", "RGBA")),
    "TIFF": (".tif", ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB")),
    "GIF": (".gif", ("1", "L", "P", "RGB")),
    "BMP": (".bmp", ("1", "L", "P", "RGB", "RGBA")),
    "PPM": (".ppm", ("1", "L", "RGB", "I;16", "F")),
    "AVIF": (".avif", ("RGB", "RGBA")),
    "JPEG2000": (".jp2", ("L", "LA", "RGB", "RGBA", "I;16")),
}
ANIMATED = ("GIF", "WEBP", "PNG", "TIFF")
ORIENTATIONS = (1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 255)  # 5 to 8 turn the picture by 90°
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
HUGE = (12_001, 20_000, 65_535, 2**31 - 1)


@dataclass
class Picture:
    """A picture file; with neither ``shapes`` nor ``refused`` it may be read or not."""

    name: str
    data: bytes
    what: str
    shapes: tuple[tuple[int, int], ...] = ()  # it must be read, as (height, width) one of these
    refused: bool = False  # it must not be read
    pixels: np.ndarray | None = None  # what must be read, where the format is exact


def case(seed: int) -> Picture:
    rng = stream("pictures", seed)
    kind = rng.random()
    if kind < 0.04:
        return _foreign(rng)
    if kind < 0.09:
        return _bomb(rng)
    picture = _sound(rng)
    if kind < 0.35:
        return picture
    what, data = damaged(rng, picture.data)
    return Picture(picture.name, data, f"{picture.what}, {what}", refused=not data)


def _foreign(rng: Rng) -> Picture:
    what = pick(rng, FOREIGN)
    name = "picture" + pick(rng, images.SUFFIXES)
    data = FOREIGN[what] + (rng.bytes(200) if what == "a zip archive" else b"")
    return Picture(name, data, f"{what}, named {name}", refused=True)


# --- sound files ---


def _size(rng: Rng) -> tuple[int, int]:
    """height, width: mostly small, sometimes at the limits."""
    kind = rng.random()
    if kind < 0.06:
        return int(rng.integers(1, 16)), int(rng.integers(1, 40))
    if kind < 0.10:
        thin = (int(rng.integers(16, 20)), int(rng.integers(1000, 12_003)))
        return thin if rng.random() < 0.5 else thin[::-1]
    low, high = (16, 70) if kind < 0.8 else (70, 400)
    return int(rng.integers(low, high)), int(rng.integers(low, high))


def _pixels(rng: Rng, h: int, w: int) -> np.ndarray:
    """(h, w, 3) uint8: noise, one colour, a gradient, strokes on paper, or a face."""
    kind = int(rng.integers(5))
    if kind == 0:
        return rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
    if kind == 1:
        return np.full((h, w, 3), rng.integers(0, 256, 3), np.uint8)
    if kind == 2:
        ramp = np.linspace(0, 255, h)[:, None, None] * 0.5 + np.linspace(0, 127, w)[None, :, None]
        return np.repeat(ramp, 3, axis=2).astype(np.uint8)
    if kind == 3:
        page = np.full((h, w, 3), int(rng.integers(120, 256)), np.uint8)
        for _ in range(4):
            y, x = int(rng.integers(h)), int(rng.integers(w))
            page[y : y + 2, x:] = page[:y, x : x + 2] = int(rng.integers(0, 100))
        return page if rng.random() < 0.7 else 255 - page
    return images.resize(crude_face(96, int(rng.integers(9)))[0], (h, w))


def _deep(rng: Rng, grey: np.ndarray, mode: str) -> tuple[np.ndarray, bool]:
    """Deep grey values and whether they are a picture: not if some are below 0, NaN or infinite."""
    share = grey.astype(np.float64) / 255
    if mode == "I;16":
        return (share * pick(rng, (255, 4095, 65535))).astype(np.uint16), True
    values = share * pick(rng, (1, 255, 4095, 65535, 2**31 - 1) if mode == "I" else (1, 255, 65535, 1e30))
    values = values.astype(np.int32 if mode == "I" else np.float32)
    spoilt = rng.random() < 0.25
    if spoilt:
        place = tuple(int(rng.integers(side)) for side in values.shape)
        values[place] = -1 if mode == "I" else pick(rng, (np.nan, np.inf, -np.inf, -0.5))
    return values, not spoilt


def _sound(rng: Rng) -> Picture:
    """A file that is what it says, in any format and mode, with the additions that such files have."""
    Image.init()  # registers all formats; some builds of Pillow lack AVIF
    kind = pick(rng, [f for f in FORMATS if f in Image.OPEN and f in Image.SAVE])
    suffix, modes = FORMATS[kind]
    mode = pick(rng, modes)
    h, w = _size(rng)
    if kind == "AVIF":
        h, w = min(h, 300), min(w, 300)  # slow to encode
    pixels, fine = _pixels(rng, h, w), True
    if mode in ("I;16", "I", "F"):
        if kind == "PNG" and mode == "I":
            mode = "I;16"  # 32 bits do not fit
        values, fine = _deep(rng, pixels[..., 0], mode)
        image = Image.fromarray(values)
    elif mode in ("LA", "RGBA"):
        alpha = pick(rng, (255, 0, 128)) * np.ones((h, w), np.uint8) if rng.random() < 0.5 else pixels[::-1, ::-1, 1]
        image = Image.fromarray(np.dstack([pixels, alpha])).convert(mode)
    elif mode == "LAB":
        image = Image.frombytes("LAB", (w, h), pixels.tobytes())
    else:
        image = Image.fromarray(pixels).convert(mode)
    options, what = _additions(rng, kind, image)
    data = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.save(data, kind, **options)
    except Exception:  # this format has no such combination
        options, what = {}, "plain"
        data = io.BytesIO()
        image = image if mode not in ("LAB", "F") or kind == "TIFF" else Image.fromarray(pixels)
        fine = fine or image.mode == "RGB"
        image.save(data, kind)
    allowed = min(h, w) >= images.MIN_SIDE and max(h, w) <= images.MAX_SIDE and fine
    name = f"picture{suffix if rng.random() < 0.9 else pick(rng, images.SUFFIXES)}"
    what = f"{kind} {image.mode} {w}×{h}, {what}"
    turns, exif = {n: _exif(n) for n in ORIENTATIONS}, options.get("exif")
    way = next((n for n, block in turns.items() if block == exif), None)  # None: no block, or a damaged one
    if exif is None:
        way = 1
    elif kind not in ("JPEG", "PNG", "WEBP", "TIFF"):
        way = None  # where such a block ends up is the encoder's affair
    shapes = {(h, w), (w, h)} if way is None else {(w, h) if 5 <= way <= 8 else (h, w)}
    exact = kind in ("PNG", "TIFF", "BMP", "PPM") and options.get("compression") not in ("jpeg", "webp")
    upright = None
    if exact and way is not None and image.mode in ("1", "L", "P", "RGB") and "transparency" not in options:
        upright = UPRIGHT.get(way, UPRIGHT[1])(np.array(image.convert("RGB")))
    return Picture(name, data.getvalue(), what, tuple(shapes) if allowed else (), not allowed, upright)


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _additions(rng: Rng, kind: str, image: Image.Image) -> tuple[dict, str]:
    """Options for Image.save, and what they are: EXIF, colour profiles, transparency, frames, compression."""
    options: dict = {}
    if kind == "AVIF":  # its encoder crashes on damaged blocks and on small frames
        return {"quality": int(rng.integers(1, 100))}, "plain"
    if rng.random() < 0.3:
        block = _exif(int(pick(rng, ORIENTATIONS)))
        options["exif"] = damaged(rng, block)[1] if rng.random() < 0.5 else block
    if rng.random() < 0.2:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        options["icc_profile"] = pick(rng, (profile, damaged(rng, profile)[1], rng.bytes(40), b""))
    if kind in ANIMATED and rng.random() < 0.2:
        frames = [image.transpose(Image.Transpose.ROTATE_180), image.copy()]
        options |= {"save_all": True, "append_images": frames}
    if kind in ("PNG", "GIF") and image.mode in ("1", "L", "P", "RGB") and rng.random() < 0.3:
        options["transparency"] = (
            (1, 2, 3) if image.mode == "RGB" else int(rng.integers(0, 256 if image.mode != "1" else 2))
        )
    if kind == "PNG" and image.mode == "P" and rng.random() < 0.3:
        options["transparency"] = rng.bytes(int(rng.integers(1, 257)))
    if kind == "TIFF":
        options["compression"] = pick(rng, (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4", "webp"))
    if kind == "JPEG":
        options |= {"progressive": bool(rng.integers(2)), "quality": int(rng.integers(1, 100))}
    return options, ", ".join(sorted(options)) or "plain"


# --- files that promise far more than they hold ---


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(rng: Rng) -> Picture:
    """A header that announces a huge picture, or a block that unpacks to far more than its size."""
    huge, side = int(pick(rng, HUGE)), int(pick(rng, (1, 16, 12_000, *HUGE)))
    w, h = (huge, side) if rng.random() < 0.5 else (side, huge)
    kind = pick(rng, ("png", "ppm", "bmp", "gif", "tif", "jpg", "webp", "text", "profile", "allowed"))
    small, data = Image.new("RGB", (32, 24), "white"), io.BytesIO()
    if kind in ("bmp", "gif", "tif", "jpg", "webp"):
        small.save(data, {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind.upper()))
        blob = bytearray(data.getvalue())
        short = struct.pack("<HH", min(w, 65_535), min(h, 65_535))
        if kind == "bmp":
            blob[18:26] = struct.pack("<ii", w, h)
        elif kind == "gif":
            blob[6:10] = short
        elif kind == "tif":
            for tag, value in ((256, w), (257, h)):
                for form in (3, 4):  # short, long
                    at = blob.find(struct.pack("<HHI", tag, form, 1))
                    if at > 0:
                        blob[at : at + 12] = struct.pack("<HHII", tag, 4, 1, value)
        elif kind == "jpg":
            at = blob.index(b"\xff\xc0") + 5
            blob[at : at + 4] = struct.pack(">HH", min(h, 65_535), min(w, 65_535))
        else:
            blob[26:30] = struct.pack("<HH", min(w, 16_383), min(h, 16_383))
        return Picture(f"bomb.{kind}", bytes(blob), f"a {kind} header of {w}×{h}")
    if kind == "ppm":
        form = pick(rng, ("P6 {} {} 255\n", "P5 {} {} 65535\n", "P1\n{} {}\n", "Pf {} {} -1.0\n"))
        return Picture("bomb.ppm", form.format(w, h).encode() + b"abc", f"a PPM header of {w}×{h}", refused=True)
    bits, colour = pick(rng, ((1, 0), (8, 0), (8, 2), (16, 0), (8, 6)))
    chunks = [png_chunk(b"IDAT", zlib.compress(b"")), png_chunk(b"IEND", b"")]
    if kind in ("text", "profile"):
        w, h = 32, 32
        much = zlib.compress(bytes(40 << 20), 9)
        name, marks = (b"zTXt", b"note\0\0") if kind == "text" else (b"iCCP", b"profile\0\0")
        rows = png_chunk(b"IDAT", zlib.compress(bytes(33 * 32 * 8)))
        chunks = [png_chunk(name, marks + much), rows, png_chunk(b"IEND", b"")]
        bits, colour = 8, 0
    if kind == "allowed":  # as large as it may be, and nearly empty
        w, h = images.MAX_SIDE, images.MAX_SIDE
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks)
    return Picture("bomb.png", data, f"a PNG of {w}×{h} ({kind})", refused=kind in ("png", "allowed"))


# --- the promise ---


@promise("picture", lambda seed: case(seed).what)
def check(seed: int, folder: Path) -> None:
    picture = case(seed)
    path = folder / picture.name
    path.write_bytes(picture.data)
    array, error = outcome(lambda: images.load_image(path), path)
    if array is not None:
        _is_picture(array, "load_image")
        ensure(not picture.refused, "it was read, although it is no usable picture")
        shapes = picture.shapes or (array.shape[:2],)
        ensure(array.shape[:2] in shapes, f"it was read as {array.shape[:2]} instead of {shapes}")
        if picture.pixels is not None and not picture.refused:
            ensure(np.array_equal(array, picture.pixels), "it was read as another picture")
    ensure(not picture.shapes or error is None, f"a sound picture was refused: {error}")
    reader = READERS[seed % len(READERS)]
    try:
        reader(path, picture.data, array)
    except Broken as broken:
        raise Broken(f"{reader.__name__.strip('_')}: {broken}") from None


def _is_picture(array: np.ndarray, who: str) -> None:
    ensure(isinstance(array, np.ndarray) and array.dtype == np.uint8, f"{who} gave no uint8 array")
    ensure(array.ndim == 3 and array.shape[2] == 3, f"{who} gave the shape {array.shape}")
    ensure(min(array.shape[:2]) >= images.MIN_SIDE, f"{who} gave {array.shape}, below the smallest side")
    ensure(max(array.shape[:2]) <= images.MAX_SIDE, f"{who} gave {array.shape}, above the largest side")


def _same(one: np.ndarray | None, two: np.ndarray | None, who: str) -> None:
    ensure((one is None) == (two is None), f"{who} {'refused' if two is None else 'read'} what load_image did not")
    ensure(one is None or np.array_equal(one, two), f"{who} read another picture than load_image")


def _bytes(path: Path, data: bytes, array: np.ndarray | None) -> None:
    _same(array, outcome(lambda: images.as_array(data))[0], "as_array of the bytes")


def _file(path: Path, data: bytes, array: np.ndarray | None) -> None:
    with open(path, "rb") as file:
        _same(array, outcome(lambda: images.as_array(file), path)[0], "as_array of an open file")


def _pillow(path: Path, data: bytes, array: np.ndarray | None) -> None:
    try:  # from bytes: given a path, Pillow itself scrambles some TIFFs (see s2flib.images)
        image = Image.open(io.BytesIO(data))
    except Exception:  # not ours to promise
        return
    with image:
        if max(image.size) > images.MAX_SIDE:  # the caller opened it, the caller pays
            return
        result, _ = outcome(lambda: images.as_array(image))
    if result is not None and array is not None:
        _same(array, result, "as_array of a Pillow image")


def _mask(path: Path, data: bytes, array: np.ndarray | None) -> None:
    mask, _ = outcome(lambda: images.load_mask(path), path)
    if mask is not None:
        ensure(mask.dtype == np.uint8 and mask.ndim == 2, f"the mask is {mask.dtype} {mask.shape}")
        ensure(max(mask.shape) <= images.MAX_SIDE, f"the mask is {mask.shape}")


def _drawing(path: Path, data: bytes, array: np.ndarray | None) -> None:
    if array is None:
        return
    drawing, _ = outcome(lambda: user_drawing.prepare_drawing(array, 64))
    if drawing is not None:
        sketch = drawing.sketch
        ensure(tuple(sketch.shape) == (1, 64, 64) and str(sketch.dtype) == "torch.float32", f"it is {sketch.shape}")
        ensure(bool(((sketch >= 0) & (sketch <= 1)).all()), "the drawing leaves [0, 1] or has NaN")
        ensure(all(note.isprintable() for note in drawing.notes), f"its notes are {drawing.notes}")


def _metadata(path: Path, data: bytes, array: np.ndarray | None) -> None:
    found = images.read_metadata(path)
    ensure(all(isinstance(x, str) for pair in found.items() for x in pair), f"its metadata is {found}")
    images.inherited(path)


def _folder(path: Path, data: bytes, array: np.ndarray | None) -> None:
    """Beside a good photo: as a photo, as the good one's mask, and as a sketch that is there already."""
    source, masks, out = (path.parent / name for name in ("photos", "masks", "out"))
    for where in (source, masks, out):
        where.mkdir()
    Image.fromarray(crude_face(48)[0]).save(source / "good.bmp")
    (source / path.name).write_bytes(data)
    _report(source, out, {"good.bmp"}, {path.name} if array is None else set())
    (masks / f"good{path.suffix}").write_bytes(data)
    _report(source, path.parent / "masked", set(), {path.name}, masks)
    (out / "good.png").write_bytes(data)
    _report(source, out, set(), set())
    ensure((out / "good.png").read_bytes() == data, "it was overwritten, although s2flib did not write it")


def _report(source: Path, out: Path, good: set[str], bad: set[str], masks: Path | None = None) -> None:
    report, _ = outcome(lambda: folders.sketch_folder(source, out, masks, workers=1, progress=False))
    ensure(report is not None, "the whole folder was refused")
    for _, why in report.failed:
        ensure(why.isprintable() and why.endswith((".", ")")), f"the reason is not one sentence: {why[:300]!r}")
    failed, done = {photo.name for photo, _ in report.failed}, {sketch.stem for sketch in report.done}
    ensure(bad <= failed and {Path(name).stem for name in good} <= done, f"failed: {failed}, done: {done}")
    for sketch in report.done:
        with Image.open(sketch) as image:
            ensure(
                image.mode == "L" and min(image.size) >= images.MIN_SIDE, f"{sketch.name} is {image.mode} {image.size}"
            )
            image.load()


READERS = (_bytes, _file, _pillow, _mask, _drawing, _drawing, _metadata, _folder)
