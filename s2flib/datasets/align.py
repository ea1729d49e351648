"""Putting a user's photograph into the frame the nets know: find the face, turn and scale it, cut the square.

Faces are found by MTCNN (Zhang et al., 2016, https://arxiv.org/abs/1604.02878), whose weights come inside the
facenet-pytorch package. It knows photographs, not drawings.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import cv2
import numpy as np

from s2flib.errors import ImageError

# Where MTCNN sees a SynthFaces portrait's landmarks, as fractions of the side: left eye, right eye (from the
# viewer), nose, corners of the mouth. Mean over every 20th photo of the val split (33; deviations 0.014 to 0.035).
SYNTHFACES_LANDMARKS = np.array(
    [[0.3855, 0.4734], [0.6272, 0.4752], [0.5063, 0.6268], [0.4078, 0.7514], [0.6068, 0.7514]]
)
SURE = 0.95          # MTCNN's probability from which a find counts as a face
SEARCH_SIDE = 1024   # px: larger pictures are searched at this size, which costs seconds instead of minutes


@dataclass(frozen=True)
class Face:
    """A face in a picture: box (4,) x0 y0 x1 y1, landmarks (5,2) x y in pixels, MTCNN's probability."""

    box: np.ndarray
    landmarks: np.ndarray
    probability: float


def find_faces(array: np.ndarray, device: str = "cpu") -> list[Face]:
    """Every face MTCNN is sure of in an (H,W,3) uint8 picture, from left to right.

    Faces less than a twentieth of the shorter side are taken for background and left out.
    """
    from facenet_pytorch import MTCNN

    array = _checked(array)
    scale = min(1.0, SEARCH_SIDE / max(array.shape[:2]))
    small = array
    if scale < 1:
        small = cv2.resize(array, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    smallest = max(20, min(small.shape[:2]) // 20)
    with contextlib.suppress(RuntimeError, IndexError):  # what MTCNN raises on a picture without any candidate
        boxes, probabilities, landmarks = MTCNN(keep_all=True, min_face_size=smallest, device=device).detect(
            np.ascontiguousarray(small), landmarks=True
        )
        if boxes is not None:
            found = [
                Face(np.asarray(b, float) / scale, np.asarray(m, float) / scale, float(p))
                for b, p, m in zip(boxes, probabilities, landmarks, strict=True)
                if p is not None and p >= SURE
            ]
            return sorted(found, key=lambda f: f.box[0])
    return []


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The turn, scale and shift that bring source (N,2) closest to target (N,2): a (2,3) matrix.

    Least squares over all points, without mirroring (Umeyama, 1991).
    """
    a, b = source - source.mean(0), target - target.mean(0)
    # As complex numbers, z = x + iy: the best factor of b ≈ f·a is ⟨a, b⟩ / ⟨a, a⟩.
    za, zb = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    spread = (abs(za) ** 2).sum()
    if spread < 1e-9:
        raise ImageError("the face's landmarks lie on one point: use a larger picture of the face.")
    f = (za.conj() * zb).sum() / spread
    turn = np.array([[f.real, -f.imag], [f.imag, f.real]])
    return np.hstack([turn, (target.mean(0) - turn @ source.mean(0))[:, None]])


def align_face(array: np.ndarray, size: int, which: int | None = None, device: str = "cpu") -> np.ndarray:
    """The face of an (H,W,3) uint8 photo, framed like SynthFaces: (size,size,3) uint8.

    which: among several faces the one to take, counted from the left, 0 first. Where the frame reaches beyond
    the photo its border is mirrored. No face, or several without ``which`` → ImageError.
    """
    array = _checked(array)
    if size < 16:
        raise ImageError(f"a face of {size} px is too small to be one: ask for at least 16 px.")
    faces = find_faces(array, device)
    if not faces:
        raise ImageError(
            "no face was found in this picture: use a photograph of one face from the front, larger and upright."
        )
    if which is None and len(faces) > 1:
        raise ImageError(
            f"{len(faces)} faces were found in this picture: crop it to one, or choose one from the left by "
            f"which=0 … {len(faces) - 1}."
        )
    which = which or 0
    if not 0 <= which < len(faces):
        raise ImageError(f"there is no face {which}: {len(faces)} found, so which goes from 0 to {len(faces) - 1}.")
    matrix = similarity_transform(faces[which].landmarks, SYNTHFACES_LANDMARKS * size - 0.5)
    shrink = np.hypot(matrix[0, 0], matrix[1, 0])
    if shrink < 0.5:  # average first: warpAffine looks at four pixels only and would alias
        factor = float(2 * shrink)
        array = cv2.resize(array, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        scaled = (faces[which].landmarks + 0.5) * factor - 0.5
        matrix = similarity_transform(scaled, SYNTHFACES_LANDMARKS * size - 0.5)
    return cv2.warpAffine(array, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def _checked(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ImageError(
            f"a photo is an (H,W,3) uint8 array, got {array.shape} {array.dtype}: read it by images.load_image."
        )
    if min(array.shape[:2]) < 16:
        raise ImageError(f"{array.shape[1]}×{array.shape[0]} px is too small to hold a face: use a larger picture.")
    return array
