"""The field's sketch-to-photo sets, from the user's own copy: CUFS, CUFSF and FS2K.

:mod:`s2flib.datasets.sketch_layouts` describes the folders, where each layout is documented, and what is published of
the splits.
"""

from __future__ import annotations

import bz2
import io
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from tqdm import tqdm

from s2flib.datasets.align import SYNTHFACES_LANDMARKS, find_faces, similarity_transform
from s2flib.datasets.sketch_layouts import LAYOUTS, Pair, files_in, is_picture
from s2flib.datasets.user_drawing import prepare_drawing
from s2flib.errors import DataError, ImageError, S2FError, printable
from s2flib.images import as_float, load_image

SPLITS = ("test", "train", "all")
MAX_LEFT_OUT = 0.5  # share of unusable pairs above which the folder counts as damaged
CHECKED = 8  # photos on which published points are compared with the face detection
MAX_EYE_ERROR = 0.25  # of the distance between the eyes; points that are further off are of another picture
LARGEST = 1 << 26  # bytes of a photo inside .bz2


class Frame(NamedTuple):
    """points (k, 2), x and y in pixels of a picture; target (k, 2): where they belong, as fractions of the side."""

    points: np.ndarray
    target: np.ndarray


class SketchBenchmark(torch.utils.data.Dataset):
    """One split of a set: ``ds[i]`` is a dict with photo (3, H, W) float in [−1, 1], sketch (1, H, W) float in [0, 1],
    identity int, name str, split str and attributes dict; ``names`` and ``identities`` (N,) as in FaceDataset.

    Photos are framed like the training photos: by the published landmarks, or by face detection (the largest face).
    Sketches are framed by their own landmarks; a sketch without them that has its photo's size in pixels was traced or
    cropped like it, and is framed with it. Then they go through the reader of users' drawings (prepare_drawing).
    ``framing`` counts the ways. Published landmarks are compared with the face detection on a few photos and not used
    at all if they disagree.

    Every pair is read when the set is opened. Pairs with a missing, damaged or unusable file are left out, counted and
    named in a warning (``left_out``); DataError when these are more than half, when nothing is found, or for an unknown
    set or split.
    """

    def __init__(
        self,
        kind: str,  # "cufs", "cufsf" or "fs2k"
        root: str | Path,  # the folder of the set
        split: str = "test",  # "test", "train" or "all"
        size: int = 128,  # H = W of everything returned, pixels
        limit: int | None = None,  # only the first so many pairs
        photos: str | Path | None = None,  # a folder of photos that are published separately; None: they are in root
        progress: bool = False,
    ):
        if kind not in LAYOUTS:
            raise DataError(f"there is no benchmark {kind!r}: choose one of {', '.join(LAYOUTS)}.")
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}.")
        self.layout, self.root, self.split, self.size = LAYOUTS[kind], Path(root), split, size
        folders = [self.root, *([Path(photos)] if photos else [])]
        for folder in folders:
            if not folder.is_dir():
                raise DataError(f"{folder} is not a folder: choose the one that {self.layout.label} was unpacked to.")
        pictures = [path for folder in folders for path in files_in(folder) if is_picture(path)]
        every, self.notes = self.layout.read(self.root, pictures)
        if len(every) != self.layout.people:
            self.notes.append(f"{len(every)} of the {self.layout.people:,} published pairs are there")
        number = {pair.name: i for i, pair in enumerate(every)}
        chosen = [pair for pair in every if split in ("all", pair.split)][:limit]
        if not chosen:
            raise DataError(f"{self.root} has no pair of {self.layout.label}'s {split} split: check the folder.")
        self.framing: Counter[str] = Counter()
        self.left_out: dict[str, str] = {}
        self._trusted = self._points_fit(chosen)
        frames = {}
        for pair in tqdm(chosen, desc="reading pairs", unit="pair", disable=None if progress else True, leave=False):
            try:
                frames[pair.name] = self._check(pair)
            except S2FError as error:
                self.left_out[pair.name] = str(error).rstrip(".")
        self._warn(len(chosen))
        self.pairs = [pair for pair in chosen if pair.name in frames]
        self._frames = [frames[pair.name] for pair in self.pairs]
        self.names = [pair.name for pair in self.pairs]
        self.identities = np.array([number[name] for name in self.names], np.int64)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> dict:
        i = range(len(self))[i]  # negative indices; IndexError ends iteration
        pair, (photo, sketch) = self.pairs[i], self._frames[i]
        return {
            "photo": as_float(straighten(_read(pair.photo), photo, self.size)),
            "sketch": self._drawing(pair, sketch)[0],
            "identity": int(self.identities[i]),
            "name": pair.name,
            "split": pair.split,
            "attributes": pair.attributes,
        }

    def _check(self, pair: Pair) -> tuple[Frame, Frame | None]:
        """The frames of a pair's photo and sketch (None: as the drawing is); S2FError when one cannot be used."""
        if pair.photo is None or pair.sketch is None:
            raise DataError(f"its {'sketch' if pair.sketch is None else 'photo'} is missing")
        photo, sketch = _read(pair.photo), _read(pair.sketch)
        if pair.photo_points is not None and self._trusted:
            how, frame = "landmarks", Frame(self._points(pair.photo_points, photo), self.layout.target)
        else:
            how, frame = "face detection", Frame(_detected(photo, pair.photo), SYNTHFACES_LANDMARKS)
        ways, own = [f"photos by {how}"], None
        if pair.sketch_points is not None and self._trusted:
            own = Frame(self._points(pair.sketch_points, sketch), self.layout.target)
            ways.append("sketches by landmarks")
        elif sketch.shape == photo.shape:
            own = frame
            ways.append("sketches like their photos")
        else:
            ways.append("sketches as users' drawings")
        straighten(photo, frame, self.size)
        self._drawing(pair, own)
        self.framing.update(ways)
        return frame, own

    def _drawing(self, pair: Pair, frame: Frame | None) -> tuple[torch.Tensor, list[str]]:
        array = _read(pair.sketch)
        if frame is not None:
            paper = np.median(np.concatenate([array[0], array[:, 0], array[:, -1]]), axis=0)
            array = straighten(array, frame, self.size, paper.tolist())
        try:
            drawing = prepare_drawing(array, self.size)
        except ImageError as error:
            raise ImageError(f"{pair.sketch}: {error}") from None
        return drawing.sketch, drawing.notes

    def _points(self, path: Path, array: np.ndarray) -> np.ndarray:
        """The set's landmarks in a file of lines "x y", (k, 2) in pixels of the picture, the eyes from left to right;
        DataError for a damaged file or points outside the picture."""
        points = read_points(path)
        if len(points) <= max(self.layout.rows):
            raise DataError(f"{path} has {len(points)} points, not {max(self.layout.rows) + 1}")
        found = points[list(self.layout.rows)]
        found[:2] = found[:2][np.argsort(found[:2, 0], kind="stable")]  # as seen by the viewer
        height, width = array.shape[:2]
        if (found < 0).any() or (found[:, 0] > width).any() or (found[:, 1] > height).any():
            raise DataError(f"{path} has points outside its picture of {width}×{height} px")
        return found

    def _points_fit(self, pairs: Sequence[Pair]) -> bool:
        """Whether the published points lie on the faces of the first photos that have any."""
        errors = []
        marked = [(p.photo, p.photo_points) for p in pairs if p.photo and p.photo_points]
        for path, points in marked[:CHECKED]:
            try:
                photo = _read(path)
                eyes, found = self._points(points, photo)[:2], _detected(photo, path)[:2]
            except S2FError:
                continue
            errors.append(np.linalg.norm(eyes - found, axis=1).mean() / np.linalg.norm(found[1] - found[0]))
        if not errors or np.median(errors) <= MAX_EYE_ERROR:
            return True
        self.notes.append(
            f"the landmark files are not of these photos (the eyes are {np.median(errors):.1f} eye distances away): "
            "faces were detected instead"
        )
        return False

    def _warn(self, total: int) -> None:
        if not self.left_out:
            return
        first = "; ".join(f"{name}: {why}" for name, why in list(self.left_out.items())[:3])
        message = f"{len(self.left_out)} of {total} pairs in {self.root} cannot be used ({first})"
        if len(self.left_out) > max(1, MAX_LEFT_OUT * total) or len(self.left_out) == total:
            raise DataError(f"{message}: unpack {self.layout.label} again, or name the folder of its photos.")
        warnings.warn(f"{message}: they are left out.", stacklevel=3)


def straighten(
    array: np.ndarray,  # (H, W, 3) uint8
    frame: Frame,
    size: int,  # of the result, pixels
    paper: Sequence[float] | None = None,  # the colour beyond the border; None: mirrored
) -> np.ndarray:
    """The picture turned, scaled and shifted so that the frame's points lie at its target: (size, size, 3) uint8."""
    points, target = frame
    matrix = similarity_transform(points, target * size - 0.5)
    shrink = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if shrink < 0.5:  # warpAffine samples only a few pixels and would alias
        array = cv2.resize(array, None, fx=2 * shrink, fy=2 * shrink, interpolation=cv2.INTER_AREA)
        matrix = similarity_transform((points + 0.5) * (2 * shrink) - 0.5, target * size - 0.5)
    mode = cv2.BORDER_REFLECT_101 if paper is None else cv2.BORDER_CONSTANT
    return cv2.warpAffine(array, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=mode, borderValue=paper or 0)


def read_points(path: Path) -> np.ndarray:
    """The lines "x y" of a landmark file, (N, 2) float; other lines are skipped. DataError when it is unreadable."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
        points = np.array([[float(word) for word in line] for line in lines if len(line) == 2]).reshape(-1, 2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no list of points ({printable(error)})") from None
    if not np.isfinite(points).all():
        raise DataError(f"{path} contains points that are no numbers")
    return points


def _read(path: Path | None) -> np.ndarray:
    """A picture file, also inside .bz2 (Color FERET), as (H, W, 3) uint8; ImageError."""
    assert path is not None
    if path.suffix != ".bz2":
        return load_image(path)
    try:
        with bz2.open(path) as packed:
            data = io.BytesIO(packed.read(LARGEST))
    except (OSError, EOFError) as error:
        raise ImageError(f"{path} is damaged ({printable(error)}): copy it again.") from None
    data.name = str(path)  # for messages
    return load_image(data)


def _detected(photo: np.ndarray, path: Path | None) -> np.ndarray:
    """The five landmarks of the largest face, (5, 2) in pixels; ImageError."""
    faces = find_faces(photo)
    if not faces:
        raise ImageError(f"no face was found in {path}")
    return max(faces, key=lambda face: np.prod(face.box[2:] - face.box[:2])).landmarks
