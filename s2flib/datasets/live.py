"""People without end: SynthFaces rendered in the background while a training runs.

``render_people`` fills a folder, in processes of their own with one thread each; ``LivePeople`` reads what is there.
Person k of a folder depends only on (seed, k). All are train people (``identity_split``), and the default seed is not
that of the shipped data, so no person of its val or test split can occur.

The folder contains live.json (the recipe) and one .npy file per array: photos (N, 3, S, S), masks (N, S, S) and
drawings (N, S, S) uint8, causes (N, C) float32, where N is the capacity; count.npy is the number rendered so far.
"""

from __future__ import annotations

import io
import json
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from s2flib.datasets.faces import SynthFaces
from s2flib.errors import DataError, S2FError
from s2flib.files import claimed, environment, write_text
from s2flib.synthfaces.causes import cause_names, causes
from s2flib.synthfaces.drawing import HANDS, line_drawing
from s2flib.synthfaces.identity import identity_split
from s2flib.synthfaces.render import VERSION, encode_photo, render_shot

SEED = 777  # of the people; 1 is the shipped data's


def render_people(
    folder: str | Path,
    people: int,  # capacity of the folder
    size: int = 128,  # pixels
    seed: int = SEED,
    workers: int = 1,  # processes
    progress: Callable[[Iterable, int], Iterable] = lambda done, total: done,
) -> Path:
    """Render people into ``folder`` until it is full; a run that was stopped continues. Returns the folder.

    Raises DataError if the folder contains people of another recipe, S2FError for arguments out of range.
    """
    if people < 1 or workers < 1 or seed < 0 or not 32 <= size <= 1024:
        raise S2FError("rendering needs at least one person, one worker, a seed from 0 and a size of 32 to 1024 px.")
    folder = Path(folder)
    recipe = _recipe(people, size, seed)
    with claimed(folder):
        _claim(folder, recipe)
        _fill(folder, recipe, workers, progress)
    return folder


def _fill(folder: Path, recipe: dict, workers: int, progress: Callable[[Iterable, int], Iterable]) -> None:
    people, size, seed = (recipe[k] for k in ("people", "size", "seed"))
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in _shapes(recipe)}
    first = int(arrays["count"][0])
    work = partial(_render, seed, size)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    one: dict[str, str] = dict.fromkeys(names, "1")
    with environment(one), multiprocessing.get_context("spawn").Pool(min(workers, max(1, people - first))) as pool:
        rendered = pool.imap(work, range(first, people), chunksize=4)
        for k, person in enumerate(progress(rendered, people - first), start=first):
            for name, values in zip(("photos", "masks", "drawings", "causes"), person, strict=True):
                arrays[name][k] = values
            arrays["count"][0] = k + 1


def _recipe(people: int, size: int, seed: int) -> dict:
    return {"people": people, "size": size, "seed": seed, "version": VERSION, "causes": len(cause_names())}


def identity_number(k: int) -> int:
    """The k-th identity of the train split: 0 … 7, 10 … 17, …"""
    number = k // 8 * 10 + k % 8
    assert identity_split(number) == "train"
    return number


def _render(seed: int, size: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Photo (3, S, S), mask (S, S), line drawing (S, S) and causes of person k."""
    import cv2

    cv2.setNumThreads(1)
    identity = identity_number(k)
    picture, _, _ = render_shot(seed, identity, 0, size, keep_buffers=True)
    assert picture.buffers is not None
    # compressed as in the shipped data
    photo = np.array(Image.open(io.BytesIO(encode_photo(picture.rgb)), formats=("WEBP",)).convert("RGB"))
    lines = line_drawing(picture.buffers, tuple(HANDS)[k % len(HANDS)], seed=identity)
    return photo.transpose(2, 0, 1), picture.labels, lines, causes(seed, identity)


def _shapes(recipe: dict) -> dict[str, tuple[tuple[int, ...], type]]:
    n, s = recipe["people"], recipe["size"]
    return {
        "photos": ((n, 3, s, s), np.uint8),
        "masks": ((n, s, s), np.uint8),
        "drawings": ((n, s, s), np.uint8),
        "causes": ((n, recipe["causes"]), np.float32),
        "count": ((1,), np.int64),
    }


def _claim(folder: Path, recipe: dict) -> None:
    """Create the arrays of a new folder (sparse files), or check that the folder has the same recipe."""
    path = folder / "live.json"
    if path.is_file():
        found = _read_recipe(folder)
        if found != recipe:
            differ = ", ".join(k for k in recipe if found.get(k) != recipe[k])
            raise DataError(f"{folder} contains other people (their {differ} differ): choose an empty folder.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, (shape, dtype) in _shapes(recipe).items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
    write_text(path, json.dumps(recipe))  # last: a folder that has it is complete


def _read_recipe(folder: Path) -> dict:
    try:
        return json.loads((folder / "live.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise DataError(
            f"{folder} contains no rendered people ({e}): run s2f render-people -o {folder} first."
        ) from None


def pack_people(dataset: SynthFaces, folder: str | Path) -> Path:
    """Write the photos of a SynthFaces split as a full folder of people."""
    folder, seed = Path(folder), dataset.seed
    recipe = _recipe(len(dataset), dataset.size, seed)
    _claim(folder, recipe)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in _shapes(recipe)}
    stored = dataset.arrays()
    arrays["photos"][:], arrays["masks"][:] = stored["photos"], stored["masks"]
    for k, name in enumerate(dataset.names):
        arrays["drawings"][k] = dataset.drawing(k)
        arrays["causes"][k] = causes(seed, int(dataset.identities[k]), int(name.split("_")[1]))
    arrays["count"][0] = len(dataset)
    return folder


class LivePeople:
    """The people that have been rendered into a folder so far; ``len`` grows while a renderer runs.

    photos (N, 3, S, S), masks (N, S, S), drawings (N, S, S) uint8 and causes (N, C) float32 are memory-mapped arrays of
    the whole capacity N; entries from ``len`` on are not rendered yet. Raises DataError for a folder without people.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.recipe = _read_recipe(self.folder)
        self.size, self.seed, self.capacity = (self.recipe[k] for k in ("size", "seed", "people"))
        try:
            arrays = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in _shapes(self.recipe)}
        except (OSError, ValueError) as e:
            raise DataError(f"{self.folder} is damaged ({e}): render into an empty folder.") from None
        for name, (shape, dtype) in _shapes(self.recipe).items():
            if arrays[name].shape != shape or arrays[name].dtype != dtype:
                raise DataError(f"{self.folder / name}.npy is damaged: render into an empty folder.")
        self.photos, self.masks, self.drawings = arrays["photos"], arrays["masks"], arrays["drawings"]
        self.causes, self._count = arrays["causes"], arrays["count"]

    def __len__(self) -> int:
        return int(self._count[0])


class Pool:
    """Several folders of people as one; the people of the last folder, which may be growing, come last."""

    def __init__(self, folders: Sequence[str | Path]):
        if not folders:
            raise DataError("no people were given: render some with s2f render-people, and name their folder.")
        self.parts = [LivePeople(folder) for folder in folders]
        if len({p.size for p in self.parts}) != 1:
            raise DataError("the folders of people have pictures of different sizes: render them at one size.")
        self.size = self.parts[0].size
        self.first = np.cumsum([0, *(len(p) for p in self.parts[:-1])])

    def __len__(self) -> int:
        return int(self.first[-1]) + len(self.parts[-1])

    def batch(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Photos (B, 3, S, S), masks (B, S, S), drawings (B, S, S) and causes (B, C) of these people."""
        part = np.searchsorted(self.first, index, side="right") - 1
        rows = [(self.parts[p], i - self.first[p]) for p, i in zip(part, index, strict=True)]
        photos, masks, drawings, known = zip(
            *((p.photos[i], p.masks[i], p.drawings[i], p.causes[i]) for p, i in rows), strict=True
        )
        return np.stack(photos), np.stack(masks), np.stack(drawings), np.stack(known)
