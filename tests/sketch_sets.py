"""CUFS, CUFSF and FS2K in their published layouts, made of shipped SynthFaces photos and line drawings."""

import functools
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from s2flib.datasets import SynthFaces
from s2flib.files import data_dir

SIDE = 200  # px of the stand-in photos


@functools.cache
def people(n: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(photo (SIDE, SIDE, 3), drawing (SIDE, SIDE), landmarks (68, 2)) of n test people, one photo each."""
    test = SynthFaces(data_dir() / "synthfaces", "test", SIDE)
    _, first = np.unique(test.identities, return_index=True)
    out = []
    for i in sorted(first)[:n]:
        photo = cv2.resize(test.read(i)[0], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        out.append((photo, test.drawing(i), test.landmarks(i)))
    return out


def eyes(landmarks: np.ndarray) -> np.ndarray:
    """(2, 2) the centres of both eyes, from left to right, of the 68 landmarks."""
    return np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0)])


def mouth(landmarks: np.ndarray) -> np.ndarray:
    return landmarks[48:60].mean(0)


def turned(array: np.ndarray, points: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture and points on it, turned around the picture's middle."""
    side = len(array)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 0.8)
    white = cv2.warpAffine(array, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    return white, points @ matrix[:, :2].T + matrix[:, 2]


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, quality=95)


def write_points(path: Path, points: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{x:.2f} {y:.2f}\n" for x, y in points))


def cufs_points(landmarks: np.ndarray) -> np.ndarray:
    """35 points whose lines 17 and 19 are the eyes, as CUFS's files have them."""
    points = np.repeat(landmarks.mean(0)[None], 35, axis=0)
    points[[16, 18]] = eyes(landmarks)
    return points


def write_cufs(root: Path, degrees: float = 0.0, points: bool = True) -> Path:
    """Two training and three test students, two of AR without photos; the first test student is turned."""
    names = [  # photo, sketch, published set
        ("f-005-01", "F2-005-01-sz1", "training"),
        ("m-008-01", "M2-008-01-sz1", "training"),
        ("f-039-01", "f-039-01-sz1", "testing"),
        ("f1-001-01", "f1-001-01-sz1", "testing"),
        ("m-063-01", "m-063-01-sz1", "testing"),
    ]
    for k, ((photo_name, sketch_name, part), (photo, drawing, landmarks)) in enumerate(
        zip(names, people(5), strict=True)
    ):
        marks = cufs_points(landmarks)
        if degrees and k == 2:
            photo, marks = turned(photo, marks, degrees)
            drawing, _ = turned(drawing, marks, degrees)
        write(root / f"CUHK_{part}_photo/photo/{photo_name}.jpg", photo)
        write(root / f"CUHK_{part}_sketch/sketch/{sketch_name}.jpg", drawing)
        if points:
            write_points(root / f"CUHK_{part}_faducial_points_photo/{photo_name}.dat", marks)
            write_points(root / f"CUHK_{part}_faducial_points_sketch/{sketch_name}.dat", marks)
    for name in ("Mp-002-1-sz1", "Wp-001-1-sz1"):
        write(root / f"AR_sketch/sketch/{name}.jpg", people(1)[0][1])
    return root


def write_cufsf(root: Path, photos: Path, n: int = 4) -> Path:
    """Sketches and landmarks in root, FERET's photos in another folder, the second one under its Color FERET name."""
    listed = []
    for k, (photo, drawing, landmarks) in enumerate(people(n), start=1):
        name, marks = f"{k:05d}fa010_930831", np.vstack([eyes(landmarks), mouth(landmarks)])
        listed.append(f"{name}.tif")
        write(photos / (f"{name}.tif" if k != 2 else f"{k:05d}_930831_fa.ppm"), photo)
        write(photos / f"{k:05d}fb010_930831.tif", 255 - photo)  # another photo of the person: not the drawn one
        write(root / f"original_sketch/{k:05d}.jpg", cv2.copyMakeBorder(drawing, 0, 40, 0, 0, cv2.BORDER_REPLICATE))
        write_points(root / f"photo_points/{name}.3pts", marks)
        write_points(root / f"sketch_points/{k:05d}.3pts", marks)
    (root / "names_of_photos_used_for_drawing_sketches.txt").write_text("\n".join(listed) + "\n")
    return root


def entry(name: str, **values) -> dict:
    """One entry of FS2K's annotation."""
    return {
        "image_name": name,
        "skin_patch": [163, 139],
        "lip_color": [156.9, 82.5, 79.0],
        "eye_color": [118.6, 72.2, 69.5],
        "hair": 0,
        "hair_color": 2,
        "gender": 1,
        "earring": 1,
        "smile": 0,
        "frontal_face": 0,
        "style": 0,
    } | values


def write_fs2k(root: Path, train: int = 2, test: int = 6) -> Path:
    """Train and test pairs in photo1 and photo2; sketch2 holds PNG, as published."""
    entries: dict[str, list] = {"train": [], "test": []}
    for k, (photo, drawing, _) in enumerate(people(train + test), start=1):
        part = 1 + k % 2
        write(root / f"photo/photo{part}/image{k:04d}.jpg", photo)
        write(root / f"sketch/sketch{part}/sketch{k:04d}.{'png' if part == 2 else 'jpg'}", drawing)
        entries["train" if k <= train else "test"].append(entry(f"photo{part}/image{k:04d}", style=k % 3))
    for split, rows in entries.items():
        (root / f"anno_{split}.json").write_text(json.dumps(rows))
    return root
