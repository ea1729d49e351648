"""Broken data folders. The promise: what is wrong is found when the folder is opened or read, and named."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fake_faces import write_celeba, write_manifest, write_synthfaces
from PIL import Image

from s2flib.datasets import SPLITS, CelebAMaskHQ, FaceDataset, SynthFaces, celeba
from s2flib.synthfaces.labels import LABELS

from .common import FOREIGN, Broken, Rng, damaged, ensure, outcome, pick, promise, stream

SIZE = 32  # pixels at which the sets are read
CODINGS = ("utf-16", "utf-8-sig", "latin-1", "utf-32", "cp037")
NUMBERS = ("", "one", "1.5", "nan", "1e400", "-1", "²", "٣", "9" * 30, "9" * 5000, "1_0", "0x10", " 7 ", "a\0b")


@dataclass
class Damage:
    """What is done to a folder. ``noticed``: an error or a warning must follow; otherwise it may be unnoticeable."""

    what: str
    apply: Callable[[Path], None]
    noticed: bool = False


@functools.cache
def templates() -> Path:
    """A folder with a sound set of each kind, for as long as the process lives."""
    root = Path(_keep.name)
    write_celeba(root / "celeba")
    names = [line.split()[2] for line in (root / "celeba" / celeba.MAPPING).read_text().splitlines()[1:]]
    (root / "celeba" / celeba.IDENTITIES).write_text("".join(f"{name} {i}\n" for i, name in enumerate(names)))
    write_synthfaces(root / "synthfaces")
    for split in ("train", "test"):
        shutil.copy(root / "synthfaces" / f"images-{split}.zip", root / "synthfaces" / f"drawings-{split}.zip")
    names, points = [f"p{k}" for k in range(4)], np.full((4, 68, 2), 640, np.int16)
    np.savez_compressed(root / "synthfaces" / "landmarks.npz", names=names, points=points, scale=10, size=128)
    (root / "synthfaces" / "render.json").write_text('{"seed": 3}')
    return root


_keep = tempfile.TemporaryDirectory(prefix="s2f-fuzz-")


def case(seed: int) -> tuple[str, Damage]:
    """(celeba or synthfaces, what is done to it)."""
    rng = stream("folders", seed)
    kind = "celeba" if rng.random() < 0.4 else "synthfaces"
    if rng.random() < 0.03:
        return kind, Damage("nothing at all", lambda root: None)
    return kind, (_celeba if kind == "celeba" else _synthfaces)(rng)


# --- damage to any file ---


def _file_damage(rng: Rng, names: list[str]) -> Damage:
    """One of the files is missing, foreign, damaged or a folder."""
    name, seed, how = pick(rng, names), int(rng.integers(2**32)), int(rng.integers(6))
    if how == 0:
        return Damage(f"{name} is missing", lambda root: (root / name).unlink())
    if how == 1:
        what = pick(rng, FOREIGN)
        return Damage(f"{name} is {what}", lambda root: _write(root / name, FOREIGN[what]))
    if how == 2:

        def folder(root: Path) -> None:
            (root / name).unlink()
            (root / name).mkdir()

        return Damage(f"{name} is a folder", folder)

    def spoil(root: Path) -> None:
        _write(root / name, damaged(np.random.default_rng(seed), (root / name).read_bytes())[1])

    return Damage(f"{name} is damaged", spoil)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _text_damage(rng: Rng, name: str) -> Damage:
    """A text file with another encoding, a line that is missing or there twice, or odd words."""
    how, odd, at = int(rng.integers(5)), pick(rng, NUMBERS), float(rng.random())
    coding = pick(rng, CODINGS)

    def change(root: Path) -> None:
        text = (root / name).read_text(encoding="utf-8")
        lines = text.splitlines()
        i = int(at * len(lines))
        if how == 0:
            _write(root / name, (text + "é\n" * (coding == "latin-1")).encode(coding))
            return
        if how == 1:
            lines.insert(i, lines[i])
        elif how == 2:
            del lines[i]
        else:
            mark = "," if name.endswith(".csv") else " "
            words = lines[i].replace("\t", " ").split(mark)
            words[int(at * 1000) % len(words)] = odd
            lines[i] = mark.join(words)
        _write(root / name, ("\n".join(lines) + "\n").encode(errors="replace"))

    done = (f"is in {coding}", "has a line twice", "lacks a line", f"has {odd[:9]!r}", f"has {odd[:9]!r}")[how]
    return Damage(f"{name} {done}", change)


# --- CelebAMask-HQ ---


def _celeba(rng: Rng) -> Damage:
    k, how = int(rng.integers(7)), int(rng.integers(9))
    texts = (celeba.MAPPING, celeba.ATTRIBUTES, celeba.IDENTITIES)
    parts = [f"{celeba.MASKS}/0/{k:05d}_{part}.png" for part in ("skin", "hair", "l_eye")]
    photo, size = f"{celeba.IMAGES}/{k}.jpg", int(pick(rng, (1, 15, 16, 64, 511, 512, 513)))
    if how < 3:
        return _file_damage(rng, [*texts, photo, *parts])
    if how < 6:
        return _text_damage(rng, pick(rng, texts))
    if how == 6:

        def blacken(root: Path) -> None:
            for part in parts:
                Image.new(pick(np.random.default_rng(k), ("L", "RGB", "1")), (512, 512)).save(root / part)

        return Damage(f"the masks of {k}.jpg are empty", blacken, noticed=True)
    if how == 7:
        image = Image.new(pick(rng, ("L", "RGB", "I;16", "P")), (size, size), 1)
        return Damage(f"{parts[0]} is {size} px {image.mode}", lambda root: image.save(root / parts[0]), size != 512)
    other = Image.new("RGB", (size, int(pick(rng, (16, 64, 200)))))
    return Damage(
        f"{photo} is {other.size}", lambda root: other.save(root / photo), min(other.size) < 16 or size != other.size[1]
    )


# --- SynthFaces ---


def _synthfaces(rng: Rng) -> Damage:
    split, how = pick(rng, ("train", "test")), int(rng.integers(10))
    archives = [f"{kind}-{split}.zip" for kind in ("images", "masks", "drawings")]
    if how < 2:
        return _file_damage(rng, [*archives, "manifest.csv", "landmarks.npz", "render.json"])
    if how < 5:
        return _text_damage(rng, "manifest.csv")
    if how == 5:
        return _row_damage(rng)
    if how == 6:
        return _landmark_damage(rng)
    return _member_damage(rng, split, pick(rng, ("images", "masks", "drawings")))


def _row_damage(rng: Rng) -> Damage:
    """Rows that are well-formed and contradict each other or the archives."""
    i, j = (int(x) for x in rng.permutation(4)[:2])
    column, odd = pick(rng, ("file", "sha256", "mask_sha256", "identity", "shot", "split", "age")), pick(rng, NUMBERS)
    how = pick(rng, ("copy", "swap", "twice", "odd", "path"))

    def change(root: Path) -> None:
        with open(root / "manifest.csv", newline="") as f:
            rows = list(csv.DictReader(f))
        if how == "copy":
            rows[i][column] = rows[j][column]
        elif how == "swap":
            rows[i][column], rows[j][column] = rows[j][column], rows[i][column]
        elif how == "twice":
            rows.append(rows[i])
        elif how == "odd":
            rows[i][column] = odd
        else:
            rows[i]["file"] = pick(np.random.default_rng(i), ("../p0.webp", "/etc/passwd", "p9.webp", "p0\n.webp", ""))
        write_manifest(root, rows)

    what = {"copy": f"copied from {j}", "swap": f"exchanged with {j}", "odd": f"{odd[:9]!r}"}.get(how, how)
    sure = how in ("twice", "path") or column in ("file", "sha256", "mask_sha256") and how != "odd" or odd == ""
    return Damage(
        f"manifest.csv, {column} of row {i}: {what}", change, noticed=sure and column not in ("age", "split", "shot")
    )


def _landmark_damage(rng: Rng) -> Damage:
    values: dict = dict(
        names=[f"p{k}" for k in range(4)], points=np.full((4, 68, 2), 640, np.int16), scale=10, size=128
    )
    key = pick(rng, values)
    odd = {
        "names": (["p0"], [0, 1, 2, 3], ["p0", "p0", "p2", "p3"], "p0", [], np.array([None] * 4)),
        "points": (np.zeros((4, 67, 2)), np.zeros((3, 68, 2)), np.full((4, 68, 2), np.nan), np.zeros(4), ["a"] * 4, 0),
        "scale": (0, "ten", [], np.nan, [1, 2, 3]),
        "size": (0, -1, "wide", [128, 128], np.inf, 1 + 2j),
    }
    value = pick(rng, odd[key])
    how = int(rng.integers(5))

    def change(root: Path) -> None:
        path = root / "landmarks.npz"
        if how == 0:
            with open(path, "wb") as f:
                np.save(f, np.zeros(3))
        elif how == 1:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
                header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9000000000000,)}"
                z.writestr("names.npy", b"\x93NUMPY\x01\x00v\x00" + header.ljust(117) + b"\n")
        else:
            np.savez(path, **(values | {key: value}))

    what = {0: "a single array", 1: "an array of 9·10¹² numbers"}.get(how, f"{key} = {str(value)[:30]!r}")
    return Damage(f"landmarks.npz: {what}", change, noticed=True)


def _member_damage(rng: Rng, split: str, kind: str) -> Damage:
    """A member of an archive is another picture; the manifest's sums are made to fit, or not."""
    k = int(rng.integers(2)) + (2 if split == "test" else 0)
    name, fits, how = f"p{k}.webp", bool(rng.random() < 0.6), int(rng.integers(9))
    size = (128, 128)
    image, sure = Image.new("RGB", size, (1, 1, 1)), kind != "drawings"
    summed = kind == "masks" or kind == "images" and not fits  # masks are checked for what they show, too
    if how == 0:
        what, image = "empty", Image.new("RGB", size)
        sure = summed
    elif how == 1:
        what, image, sure = ("of labels that do not exist", Image.new("L", size, 19 + k), summed)
    elif how == 2:
        size = pick(rng, ((64, 64), (128, 64), (1, 128), (1, 1)))
        what, image = f"of {size[0]}×{size[1]} px", Image.new("RGB", size, (1, 1, 1))
        sure = size[0] != size[1] or summed
    elif how == 3:
        what, sure = "animated", kind != "drawings" and not fits
    else:
        what = ("damaged", "of 80 MB", "there twice", "gone", "a text")[how - 4]
        sure = how != 4
    data = io.BytesIO()
    image.save(data, "WEBP", lossless=True, **({"save_all": True, "append_images": [image] * 3} if how == 3 else {}))
    content = data.getvalue()
    if how == 4:
        content = damaged(rng, content)[1]
    elif how == 5:
        content = bytes(80 << 20)
    elif how == 8:
        content = b"this is only a text"

    def change(root: Path) -> None:
        path = root / f"{kind}-{split}.zip"
        with zipfile.ZipFile(path) as old:
            members = {info.filename: old.read(info) for info in old.infolist()}
        members[name] = content
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
                for member, data in members.items():
                    for _ in range(1 + (how == 6)):
                        if member != name or how != 7:
                            new.writestr(member, data)
        if fits and kind != "drawings":
            with open(root / "manifest.csv", newline="") as f:
                rows = list(csv.DictReader(f))
            rows[k]["sha256" if kind == "images" else "mask_sha256"] = hashlib.sha256(content).hexdigest()
            write_manifest(root, rows)

    return Damage(f"{name} in {kind}-{split}.zip is {what}{', with its sum' * fits}", change, noticed=sure and how != 6)


# --- the promise ---


@functools.cache
def sound(kind: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """name → photo and mask as they are read from the sound folder."""
    folder = templates() / kind
    sets = [_open(kind, folder, split, folder.parent / "cache") for split in SPLITS]
    return {dataset.names[i]: dataset.read(i) for dataset in sets for i in range(len(dataset))}


def _open(kind: str, root: Path, split: str, cache: Path) -> FaceDataset:
    return CelebAMaskHQ(root, split, SIZE, cache=cache) if kind == "celeba" else SynthFaces(root, split, SIZE)


@promise("folder", lambda seed: f"{case(seed)[0]}, {case(seed)[1].what}")
def check(seed: int, folder: Path) -> None:
    kind, damage = case(seed)
    root = folder / "set"
    pristine = sound(kind)
    shutil.copytree(templates() / kind, root)
    damage.apply(root)
    errors, names = [], []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for split in SPLITS:
            dataset, error = outcome(lambda split=split: _open(kind, root, split, folder / "cache"), root)
            errors.append(error)
            for i in range(len(dataset) if dataset else 0):
                assert dataset is not None
                more = (dataset.drawing, dataset.landmarks) if isinstance(dataset, SynthFaces) else ()
                for read in (dataset.__getitem__, *more):
                    value, error = outcome(lambda read=read, i=i: read(i), root)
                    errors.append(error)
                    if error is None:
                        _is_sample(value, dataset.names[i])
                    if isinstance(value, dict) and kind == "synthfaces":
                        _is_as_it_was(dataset, i, pristine, damage)
                names.append(dataset.names[i])
            if isinstance(dataset, SynthFaces):
                errors.append(outcome(lambda dataset=dataset: dataset.seed, root)[1])
    told = [str(w.message) for w in warned if issubclass(w.category, UserWarning)]
    for message in told:
        ensure(message.isprintable() and str(root) in message, f"the warning names nothing: {message[:200]!r}")
    found = told or [error for error in errors if error]
    ensure(found or not damage.noticed, "nobody noticed")
    ensure(damage.what != "nothing at all" or not found, f"a sound folder was refused: {found}")
    ensure(found or sorted(set(names)) == sorted(names), f"it has photos twice: {names}")


def _is_sample(value, name: str) -> None:
    if isinstance(value, np.ndarray):  # a drawing or landmarks
        ensure(
            value.shape in ((SIZE, SIZE), (68, 2)) and np.isfinite(value).all(), f"{name}: {value.dtype} {value.shape}"
        )
        return
    for key, shape, low, high in (
        ("photo", (3, SIZE, SIZE), -1, 1),
        ("sketch", (1, SIZE, SIZE), 0, 1),
        ("mask", (SIZE, SIZE), 0, len(LABELS) - 1),
    ):
        tensor = value[key]
        ensure(tuple(tensor.shape) == shape, f"the {key} of {name} is {tuple(tensor.shape)}")
        ensure(bool(torch.isfinite(tensor.float()).all()), f"the {key} of {name} is not finite")
        ensure(low <= tensor.min() and tensor.max() <= high, f"the {key} of {name} is {tensor.min()} … {tensor.max()}")
    ensure(bool(value["mask"].any()), f"the mask of {name} is empty")
    ensure(value["name"] == name and isinstance(value["identity"], int), f"the record of {name} is another one")


def _is_as_it_was(dataset: FaceDataset, i: int, pristine: dict, damage: Damage) -> None:
    """The photos and masks of SynthFaces have sums in the manifest: what is read without an error is what was saved."""
    if "with its sum" in damage.what or dataset.names[i] not in pristine:
        return
    try:
        photo, mask = dataset.read(i)
    except Exception as error:
        raise Broken(f"it was read once, then not: {error}") from None
    want = pristine[dataset.names[i]]
    ensure(np.array_equal(photo, want[0]) and np.array_equal(mask, want[1]), f"{dataset.names[i]} is another picture")
