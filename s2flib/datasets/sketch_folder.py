"""Pencil sketches of a whole folder of photos, on all cores, resumable; the implementation of ``s2f sketch FOLDER``."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from s2flib.errors import DataError, ImageError, S2FError
from s2flib.files import available_cpus
from s2flib.images import SUFFIXES, inherited, load_image, load_mask, save_image
from s2flib.sketch import SIGMA, sketch


@dataclass
class FolderReport:
    """The result of :func:`sketch_folder`: files written, files that existed, and failures with their reasons."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


def sketch_folder(
    src: str | Path,  # folder of photos, searched recursively
    dst: str | Path,  # folder of sketches: the same tree, PNG
    masks: str | Path | None = None,  # folder of masks with the photos' stems; None: everything is foreground
    sigma: float | None = None,  # pixels; None: SIGMA times each photo's shorter side
    background: str = "white",  # or "black"
    workers: int | None = None,  # threads; None: every core
    progress: bool = True,
) -> FolderReport:
    """Sketch every image in a folder on all cores; a rerun continues where the last run stopped.

    Each sketch is written atomically and contains a digest of its photo, mask and σ, so a rerun skips finished
    sketches, redoes changed ones, and never overwrites a PNG that it did not write. A photo that fails is listed with
    the reason and does not stop the others. A mask with the photo's aspect ratio but another size (CelebAMask-HQ: 512
    and 1024) is resized. Photos a.jpg and a.png in the same folder become a.jpg.png and a.png.png.
    """
    src, dst = Path(src), Path(dst)
    if not src.is_dir():
        raise DataError(f"{src} is not a folder: choose the folder that contains the photos.")
    if masks is not None and not Path(masks).is_dir():
        raise DataError(f"{masks} is not a folder: choose the folder that contains the masks.")
    if src.resolve() == dst.resolve():
        raise DataError(f"the sketches would be written among the photos in {src}: choose another output folder.")
    photos = _pictures(src, outside=dst)
    if not photos:
        raise DataError(f"{src} contains no images ({', '.join(SUFFIXES)}): check the path.")
    by_stem = {p.relative_to(masks).with_suffix(""): p for p in _pictures(Path(masks))} if masks else {}
    stems = Counter(p.with_suffix("") for p in photos)

    def one(photo: Path) -> tuple[str, Path, str]:
        relative = photo.relative_to(src)
        twins = stems[photo.with_suffix("")] > 1
        target = dst / (relative.with_name(relative.name + ".png") if twins else relative.with_suffix(".png"))
        mask = by_stem.get(relative.with_suffix(""))
        if masks is not None and mask is None:
            return "failed", photo, f"{masks} contains no mask named {relative.with_suffix('.png')}."
        try:
            return _sketch_file(photo, mask, sigma, background, target)
        except S2FError as e:
            return "failed", photo, str(e)
        except (OSError, MemoryError) as e:
            return "failed", photo, f"{photo} could not be sketched ({type(e).__name__}: {e})."

    report = FolderReport()
    for outcome, path, why in _in_threads(one, photos, workers or available_cpus(), progress):
        getattr(report, outcome).append((path, why) if outcome == "failed" else path)
    for paths in (report.done, report.skipped, report.failed):
        paths.sort()
    return report


def fit_mask(mask: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """The mask (H', W') at the photo's size, if it has the photo's aspect ratio (CelebAMask-HQ: 512 and 1024); else
    unchanged."""
    (h, w), (mh, mw) = photo.shape[:2], mask.shape
    if (mh, mw) != (h, w) and mh * w == h * mw:
        return cv2.resize(mask, (w, h), interpolation=cv2.INTER_NEAREST_EXACT)
    return mask


def _sketch_file(
    photo: Path, mask: Path | None, sigma: float | None, background: str, target: Path
) -> tuple[str, Path, str]:
    photo_bytes = photo.read_bytes()
    mask_bytes = mask.read_bytes() if mask else b""
    digest = hashlib.sha256(repr((sigma or SIGMA, background, mask_bytes)).encode() + photo_bytes).hexdigest()
    if target.exists():
        made_from = _sketched_from(target)
        if made_from == digest:
            return "skipped", target, ""
        if made_from is None:
            raise ImageError(f"{target} exists and was not written by s2flib: move it to another folder.")
    array = load_image(_named(photo_bytes, photo))
    ids = fit_mask(load_mask(_named(mask_bytes, mask)), array) if mask else None
    text = {"what": "pencil sketch of a photo (s2flib)", "sketched_from": digest, "sigma": sigma or "size/4"}
    about, synthetic = inherited(_named(photo_bytes, photo))
    save_image(target, sketch(array, ids, sigma, background), text | about, overwrite=True, synthetic=synthetic)
    return "done", target, ""


def _named(data: bytes, path: Path) -> io.BytesIO:
    file = io.BytesIO(data)
    file.name = str(path)  # for messages
    return file


def _sketched_from(path: Path) -> str | None:
    """The digest in a sketch's PNG text; None when sketch_folder did not write it."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return getattr(image, "text", {}).get("sketched_from")
    except Exception:  # a damaged file, or one that is too large: not ours
        return None


def _pictures(folder: Path, outside: Path | None = None) -> list[Path]:
    """Image files in folder and its subfolders, sorted, without hidden files and those in `outside`."""
    return sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES
        and not p.name.startswith(".")
        and p.is_file()
        and not (outside is not None and outside.resolve() in p.resolve().parents)
    )


def _in_threads(work: Callable, items: list, workers: int, progress: bool) -> Iterator:
    """work(item) for all items, in order of completion; decoding, blurring and encoding release the GIL."""
    pool = ThreadPoolExecutor(workers)
    try:
        jobs = [pool.submit(work, item) for item in items]
        for job in tqdm(as_completed(jobs), total=len(items), unit="sketch", disable=not progress):
            yield job.result()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C: the current files are finished, a rerun does the rest
