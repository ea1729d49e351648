"""The layouts of the field's sketch-to-photo sets as they are published: CUFS, CUFSF and FS2K.

CUFS (CUHK Face Sketch database; Wang & Tang, IEEE TPAMI 31(11), 2009): one sketch of each of 188 CUHK students, 123
people of the AR and 295 of the XM2VTS database. The folders that the published archives unpack to, at any depth
(names of the archives: mmlab.ie.cuhk.edu.hk/archive/facesketch.html)::

    CUHK_training_photo/photo/f-005-01.jpg           CUHK_training_sketch/sketch/F2-005-01-sz1.jpg
    CUHK_training_faducial_points_photo/….dat        35 lines "x y"; lines 17 and 19 are the eyes
    AR_sketch/sketch/Mp-002-1-sz1.jpg                XM2VTS_sketch/sketch/000_1_1_sz1.jpg

or sorted into ``photo`` and ``sketch``, as bob.db.cuhk_cufs reads them (github.com/deepxkn/bob.db.cuhk_cufs:
data/all-cuhk.txt pairs the students, data/*_file_names_of_sketches.txt and utils.py the others, models.py names the
eyes' lines). The photos of AR (m-002-1) and XM2VTS (000_1_1) have their own licences and come separately.
*Split:* the students' is published (88/100: training sketches are named F2 and M2). None is for AR and XM2VTS; papers
draw 80/43 and 100/195 at random, here by a hash of the name.

CUFSF (Zhang, Wang & Tang, CVPR 2011): sketches of 1,194 people of FERET, whose photos come separately::

    original_sketch/00001.jpg                        sketch_points/00001.3pts (left eye, right eye, mouth: "x y" each)
    names_of_photos_used_for_drawing_sketches.txt    00001fa010_930831.tif …; photo_points/00001fa010_930831.3pts

(pypi.org/project/bob.db.cuhk_cufsf, create.py and utils.py). Photos: FERET's names, or Color FERET's
00001_930831_fa.ppm, also with .bz2. *Split:* papers draw 500/694 at random; no list is published.

FS2K (Fan et al., Machine Intelligence Research, 2022): 2,104 pairs, github.com/DengPingFan/FS2K (README.md,
tools/split_train_test.py)::

    photo/photo1/image0110.jpg    sketch/sketch1/sketch0110.jpg (or .png)    anno_train.json, anno_test.json

*Split:* published (1,058/1,046). Identities are not: photo1 comes from CASIA-WebFace and the 98 photos of photo2 show
eight actors, but every photo counts as a person of its own here, so ranks are a lower bound.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from s2flib.datasets.align import SYNTHFACES_LANDMARKS
from s2flib.errors import DataError, printable
from s2flib.images import SUFFIXES

POINTS = (".dat", ".3pts", ".txt", ".pts")  # suffixes of landmark files
EYES = SYNTHFACES_LANDMARKS[:2]  # the frame of the training photos, as fractions of the side
EYES_AND_MOUTH = np.vstack([EYES, SYNTHFACES_LANDMARKS[3:].mean(0)])


@dataclass(frozen=True)
class Pair:
    """One sketch and its photo; None: the file is missing. split: "train" or "test"; points: landmark files."""

    name: str
    split: str
    photo: Path | None
    sketch: Path | None
    photo_points: Path | None = None
    sketch_points: Path | None = None
    attributes: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """How one set is read. rows: the lines of its landmark files that show the points ``target`` of the frame."""

    label: str
    read: Callable[[Path, Sequence[Path]], tuple[list[Pair], list[str]]]  # (folder, pictures) → pairs, notes
    people: int  # as published
    rows: tuple[int, ...]
    target: np.ndarray
    split: str  # what is published of the split


_STUDENT = re.compile(r"([fm])(\d?)-(\d{3})-(\d{2})(-sz1)?")  # sketches F2-… and M2-… are of the photos f-… and m-…
_AR = re.compile(r"([mw])p?-(\d{3})-0?(\d)(-sz1)?")
_XM2VTS = re.compile(r"(\d{3})_(\d)_(\d)(_sz1)?(?:_f02)?")  # _f02: in the names of the photos' landmark files
_CUFS_TRAIN = {"ar": 80 / 123, "xm2vts": 100 / 295}


def _cufs_name(path: Path) -> tuple[str, bool, bool] | None:
    """A file of CUFS → (name of the pair, is a sketch, is of the published training set); None: another file."""
    stem = path.stem.lower()
    if any(re.match("ar([ _-]|face|$)", part.lower()) for part in path.parts[:-1]) and (m := _AR.fullmatch(stem)):
        return f"ar/{m[1]}-{m[2]}-{m[3]}", m[4] is not None, False
    if m := _STUDENT.fullmatch(stem):
        return f"student/{m[1]}{m[2].replace('2', '')}-{m[3]}-{m[4]}", m[5] is not None, m[2] == "2"
    if m := _AR.fullmatch(stem):
        return f"ar/{m[1]}-{m[2]}-{m[3]}", m[4] is not None, False
    if m := _XM2VTS.fullmatch(stem):
        return f"xm2vts/{m[1]}_{m[2]}_{m[3]}", m[4] is not None, False
    return None


def _cufs(root: Path, pictures: Sequence[Path]) -> tuple[list[Pair], list[str]]:
    found: dict[str, dict[str, Path]] = {}
    training = set()
    for path in sorted(pictures, key=_cropped):  # originals first: the landmarks are theirs
        if (name := _cufs_name(path)) is not None:
            found.setdefault(name[0], {}).setdefault("sketch" if name[1] else "photo", path)
            training.update([name[0]] if name[2] else [])
    points = {}
    for path in files_in(root):
        if path.suffix.lower() in POINTS and (name := _cufs_name(path)) is not None:
            points.setdefault(name[:2], path)
    pairs, notes = [], []
    for subset, label in (("ar", "AR"), ("student", "CUHK student"), ("xm2vts", "XM2VTS")):
        own = {k: v for k, v in found.items() if k.startswith(f"{subset}/") and ("sketch" in v or subset == "student")}
        if own and not any("photo" in files for files in own.values()):
            notes.append(f"{label}: {len(own)} sketches without any photo, left out (the photos come separately)")
            continue
        if subset != "student":
            training.update(_at_random(list(own), round(_CUFS_TRAIN[subset] * len(own))))
        for name, files in sorted(own.items()):
            photo, sketch = files.get("photo"), files.get("sketch")
            marks = [None if p is None or _cropped(p) else points.get((name, p is sketch)) for p in (photo, sketch)]
            pairs.append(Pair(name, "train" if name in training else "test", photo, sketch, marks[0], marks[1]))
    return pairs, notes


_FERET = re.compile(r"(\d{5})([a-z]{2})\w*?_(\d{6})")  # 00001fa010_930831
_COLOR_FERET = re.compile(r"(\d{5})_(\d{6})_([a-z]{2})")  # 00001_930831_fa
_CUFSF_LIST = "names_of_photos_used_for_drawing_sketches.txt"


def _cufsf(root: Path, pictures: Sequence[Path]) -> tuple[list[Pair], list[str]]:
    photos: dict[str, list[tuple[tuple[str, str], Path]]] = {}  # person → ((pose, date), photo) …
    sketches: dict[str, Path] = {}
    for path in sorted(pictures, key=_cropped):
        stem = path.name.split(".")[0].lower()
        if re.fullmatch(r"\d{5}", stem):
            sketches.setdefault(stem, path)
        elif m := _FERET.match(stem):
            photos.setdefault(m[1], []).append(((m[2], m[3]), path))
        elif m := _COLOR_FERET.match(stem):
            photos.setdefault(m[1], []).append(((m[3], m[2]), path))
    wanted: dict[str, tuple[str, str]] = {}
    listing = next((path for path in files_in(root) if path.name == _CUFSF_LIST), None)
    if listing is not None:
        try:
            for number, line in enumerate(listing.read_text(encoding="ascii").split(), start=1):
                if (m := _FERET.match(re.split(r"[/\\]", line)[-1].lower())) is None:
                    raise DataError(f"{listing}, entry {number} is not the name of a FERET photo: unpack it again.")
                wanted[m[1]] = (m[2], m[3])
        except (OSError, UnicodeDecodeError):
            raise DataError(f"{listing} is unreadable: unpack CUFSF again.") from None
    marks: dict[tuple[str, bool], Path] = {}
    for path in files_in(root):
        if path.suffix.lower() in POINTS and (m := re.match(r"\d{5}", path.name)):
            marks.setdefault((m[0], re.fullmatch(r"\d{5}", path.stem) is not None), path)
    people = sorted(set(sketches) | set(wanted))
    if sketches and not photos:
        raise DataError(f"{root} has no photo of FERET, which come separately: name their folder with --photos.")
    train, pairs = _at_random(people, round(len(people) * 500 / 1194)), []
    for person in people:
        own = photos.get(person, [])
        fitting = [path for key, path in own if key == wanted.get(person)] if wanted else [path for _, path in own]
        photo = fitting[0] if fitting and (wanted or len(fitting) == 1) else None  # which of several: the list says
        split = "train" if person in train else "test"
        points = marks.get((person, False)), marks.get((person, True))
        pairs.append(Pair(person, split, photo, sketches.get(person), points[0], points[1]))
    return pairs, []


_FS2K_VALUES = {"hair": 2, "hair_color": 5, "gender": 2, "earring": 2, "smile": 2, "frontal_face": 2, "style": 3}


def _fs2k(root: Path, pictures: Sequence[Path]) -> tuple[list[Pair], list[str]]:
    if not (root / "anno_test.json").is_file() and (root / "FS2K").is_dir():
        root = root / "FS2K"  # the archive unpacks to this folder
    pairs: dict[str, Pair] = {}
    for split in ("train", "test"):
        path = root / f"anno_{split}.json"
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise DataError(f"{path} is missing: unpack FS2K again, and choose its folder.") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is damaged ({printable(error)}): unpack FS2K again.") from None
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries], start=1):
            entry = entry if isinstance(entry, dict) else {}
            name = entry.get("image_name")
            m = re.fullmatch(r"photo([1-9])/image(\d{1,6})", name) if isinstance(name, str) else None
            if m is None:
                raise DataError(f"{path}, entry {number} has no image_name such as photo1/image0110: unpack it again.")
            attributes: dict[str, Any] = {k: entry.get(k) for k in _FS2K_VALUES}
            for key, value in attributes.items():
                if type(value) is not int or not 0 <= value < _FS2K_VALUES[key]:
                    raise DataError(f"{path}, entry {number}: {key} is {printable(value, 40)}: unpack the file again.")
            if m[0] in pairs:
                raise DataError(f"{path}, entry {number} lists {m[0]} for the second time: unpack the files again.")
            for key, length in (("skin_patch", 2), ("lip_color", 3), ("eye_color", 3)):  # "nan" where none is visible
                attributes[key] = _numbers(entry.get(key), length)
            files = [f"photo{m[1]}/image{m[2]}", f"sketch{m[1]}/sketch{m[2]}"]
            places = [root / "photo" / files[0], root / "sketch" / files[1]]
            copies = [root / split / k / f.replace("/", "_") for k, f in zip(("photo", "sketch"), files, strict=True)]
            photo, sketch = (_with_suffix(a) or _with_suffix(b) for a, b in zip(places, copies, strict=True))
            pairs[m[0]] = Pair(m[0].replace("/", "_"), split, photo, sketch, attributes=attributes)
    return list(pairs.values()), []


def _numbers(value, length: int) -> list[float] | None:
    fine = isinstance(value, list) and len(value) == length
    fine = fine and all(isinstance(v, (int, float)) and np.isfinite(v) for v in value)
    return [float(v) for v in value] if fine else None


def _with_suffix(stem: Path) -> Path | None:
    return next((p for s in (".jpg", ".png", ".jpeg") if (p := stem.with_name(stem.name + s)).is_file()), None)


def _at_random(names: Sequence[str], n: int) -> set[str]:
    """``n`` of the names, in the order of their hash: the same on every machine."""
    return set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:n])


def _cropped(path: Path) -> bool:
    return any("cropped" in part.lower() for part in path.parts)


def files_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if not p.name.startswith(".") and p.is_file())


def is_picture(path: Path) -> bool:
    return path.with_suffix("").suffix.lower() == ".ppm" if path.suffix == ".bz2" else path.suffix.lower() in SUFFIXES


_RANDOM = "drawn at random by a hash of the names; no list is published"
_NO_IDENTITIES = "identities are not: every photo counts as a person of its own, so ranks are a lower bound"
LAYOUTS = {
    "cufs": Layout("CUFS", _cufs, 606, (16, 18), EYES, f"students as published (88/100), AR and XM2VTS {_RANDOM}"),
    "cufsf": Layout("CUFSF", _cufsf, 1194, (0, 1, 2), EYES_AND_MOUTH, f"500/694 {_RANDOM}"),
    "fs2k": Layout("FS2K", _fs2k, 2104, (0, 1), EYES, f"as published (1,058/1,046); {_NO_IDENTITIES}"),
}  # fmt: skip
