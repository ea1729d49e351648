"""Face alignment: finds the face in a photo and crops it to the frame the networks were trained on.

Faces are found by MTCNN (Zhang et al., 2016, https://arxiv.org/abs/1604.02878), whose weights are included in the
facenet-pytorch package. It works on photos, not on drawings.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from skimage.transform import estimate_transform

from s2flib.errors import ImageError

# Where MTCNN finds a SynthFaces portrait's landmarks, as fractions of the side: left eye, right eye (as seen by the
# viewer), nose, corners of the mouth. Mean over every 20th photo of the val split (33; deviations 0.014 to 0.035).
SYNTHFACES_LANDMARKS = np.array(
    [[0.3855, 0.4734], [0.6272, 0.4752], [0.5063, 0.6268], [0.4078, 0.7514], [0.6068, 0.7514]]
)
SURE = 0.95  # minimum MTCNN probability for a detection to count as a face
SEARCH_SIDE = 1024  # px: larger images are searched at this size, which takes seconds instead of minutes


@dataclass(frozen=True)
class Face:
    """A detected face: box (4,) x0 y0 x1 y1, landmarks (5,2) x y in pixels, MTCNN's probability."""

    box: np.ndarray
    landmarks: np.ndarray
    probability: float


def find_faces(array: np.ndarray) -> list[Face]:
    """Every face that MTCNN detects with confidence in an (H,W,3) uint8 image, from left to right.

    Faces smaller than a twentieth of the shorter side are treated as background and left out.
    """
    from facenet_pytorch import MTCNN

    array = _checked(array)
    scale = min(1.0, SEARCH_SIDE / max(array.shape[:2]))
    small = array
    if scale < 1:
        small = cv2.resize(array, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    smallest = max(20, min(small.shape[:2]) // 20)
    with contextlib.suppress(RuntimeError, IndexError):  # raised by MTCNN when there is no candidate
        detector: Any = MTCNN(keep_all=True, min_face_size=smallest)
        boxes, probabilities, landmarks = detector.detect(np.ascontiguousarray(small), landmarks=True)
        if boxes is not None:
            found = [
                Face(np.asarray(b, float) / scale, np.asarray(m, float) / scale, float(p))
                for b, p, m in zip(boxes, probabilities, landmarks, strict=True)
                if p is not None and p >= SURE
            ]
            return sorted(found, key=lambda f: f.box[0])
    return []


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that best map source (N,2) to target (N,2), as a (2,3) matrix (Umeyama, 1991)."""
    if np.ptp(source, axis=0).max() < 1e-9:
        raise ImageError("the face's landmarks are all at one point: use a larger image of the face.")
    return estimate_transform("similarity", source, target).params[:2]


def align_face(array: np.ndarray, size: int, which: int | None = None) -> np.ndarray:
    """The face of an (H,W,3) uint8 photo, framed like SynthFaces: (size,size,3) uint8.

    which: which face to take if there are several, counted from the left, 0 first. Where the frame extends beyond
    the photo, the photo is mirrored at its border. No face, or several without ``which`` → ImageError.
    """
    array = _checked(array)
    if size < 16:
        raise ImageError(f"a face of {size} px is too small: choose a size of at least 16 px.")
    faces = find_faces(array)
    if not faces:
        raise ImageError(
            "no face was found in this image: use a photo of one upright face from the front, or a larger one."
        )
    if which is None and len(faces) > 1:
        raise ImageError(
            f"{len(faces)} faces were found in this image: crop it to one face, or choose one from the left with "
            f"which=0 … {len(faces) - 1}."
        )
    which = which or 0
    if not 0 <= which < len(faces):
        raise ImageError(f"there is no face {which}: {len(faces)} found, so which must be from 0 to {len(faces) - 1}.")
    matrix = similarity_transform(faces[which].landmarks, SYNTHFACES_LANDMARKS * size - 0.5)
    shrink = np.hypot(matrix[0, 0], matrix[1, 0])
    if shrink < 0.5:  # downsample first: warpAffine samples only a few pixels and would alias
        factor = float(2 * shrink)
        array = cv2.resize(array, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        scaled = (faces[which].landmarks + 0.5) * factor - 0.5
        matrix = similarity_transform(scaled, SYNTHFACES_LANDMARKS * size - 0.5)
    return cv2.warpAffine(array, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def _checked(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ImageError(
            f"a photo is an (H,W,3) uint8 array, got {array.shape} {array.dtype}: read it with images.load_image."
        )
    if min(array.shape[:2]) < 16:
        raise ImageError(f"{array.shape[1]}×{array.shape[0]} px is too small to contain a face: use a larger image.")
    return array
