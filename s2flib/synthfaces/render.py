"""Renders data sets: many people, several photos each, in parallel and resumable.

``s2flib.datasets.faces.SynthFaces`` reads the result: for every split images-, masks- and drawings-<split>.zip (WebP);
manifest.csv, landmarks.npz and render.json (the recipe). With ``edits``, edits.zip and edits.csv contain edit pairs.
Every face is a function of (seed, identity, shot): any part can be rendered again, in any order, and has the same
pixels on the same machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from s2flib.errors import DataError, S2FError
from s2flib.files import atomic_path, claimed, csv_text, environment, write_text
from s2flib.synthfaces.drawing import HANDS, line_drawing
from s2flib.synthfaces.edits import sample_edit_pair
from s2flib.synthfaces.identity import Identity, identity_split, sample_identity
from s2flib.synthfaces.look import Look, restyle, sample_look
from s2flib.synthfaces.person import Person
from s2flib.synthfaces.portrait import Portrait, photograph
from s2flib.synthfaces.shot import Shot, sample_shot

VERSION = 1  # of the renderer; part of the recipe, so that versions are never mixed
PHOTO_QUALITY = 82  # WebP, about 36 dB PSNR


@dataclass(frozen=True)
class Recipe:
    """Everything that a data set's pixels depend on."""

    n_identities: int
    shots: int
    size: int
    seed: int
    edits: int
    drawings: bool
    first_identity: int = 0
    split: str | None = None
    version: int = VERSION

    def identities(self) -> list[int]:
        """The numbers of the people to render."""
        numbers = range(self.first_identity, self.first_identity + self.n_identities)
        return [i for i in numbers if self.split in (None, identity_split(i))]


def render_shot(
    seed: int, identity: int, shot: int, size: int = 128, like: Person | None = None, keep_buffers: bool = False
) -> tuple[Portrait, Person, Shot]:
    """Photo ``shot`` of person ``identity`` of a seed; ``like`` (a Person to reuse geometry from) only saves time."""
    person = sample_identity(seed, identity)
    look = sample_look(person, seed, identity)
    if shot:
        look = restyle(look, person, seed, identity, day=shot)
    built = Person(person, look, like=like)
    scene = sample_shot(person, seed, identity, shot)
    return photograph(built, scene, size, keep_buffers=keep_buffers), built, scene


def attributes(identity: Identity, look: Look, shot: Shot) -> dict:
    """The manifest's attribute columns of one photo (units: years, tones 0–7, degrees, shares)."""
    glasses = look.glasses
    return {
        "gender": identity.gender,
        "age": round(identity.age, 1),
        "skin_tone": round(identity.tone, 2),
        "hair_color": "bald" if look.style == "bald" else look.dye or identity.hair_color,
        "hair_style": look.style,
        "eye_color": identity.eye_color,
        "glasses": "none" if glasses is None else "sun" if glasses.sun else glasses.kind,
        "beard": look.beard,
        "makeup": round(look.makeup, 2),
        "earrings": int(look.earrings > 0),
        "necklace": int(look.necklace),
        "hat": look.hat.kind if look.hat else "none",
        "expression": shot.expression,
        "light": shot.light.name,
        "yaw": round(float(np.degrees(shot.yaw)), 1),
        "pitch": round(float(np.degrees(shot.pitch)), 1),
        **{
            f"ethnicity_{name}": round(share, 3)
            for name, share in zip(("caucasian", "african", "asian"), identity.ancestry, strict=True)
        },
    }


def render_dataset(
    out: str | Path,  # output folder; created if missing
    n_identities: int,
    shots: int,  # photos of each
    size: int = 128,  # pixels
    seed: int = 0,
    workers: int | None = None,  # processes; None: one per core
    edits: int = 0,  # number of edit pairs
    drawings: bool = True,  # a line drawing per photo, with alternating hands
    first_identity: int = 0,  # number of the first person, to render parts of one data set
    split: str | None = None,  # only the identities of "train", "val" or "test"
    progress: Callable[[Iterable, int], Iterable] = lambda done, total: done,  # wraps the loop over people
) -> Path:
    """Render into ``out`` and return it. Interrupted runs continue where they stopped.

    Raises DataError if ``out`` contains a data set with another recipe, S2FError for arguments out of range.
    """
    if n_identities < 1 or shots < 1 or edits < 0 or first_identity < 0 or seed < 0:
        raise S2FError("render needs at least one identity and one shot: use positive numbers, and no negative ones.")
    if not 32 <= size <= 1024:
        raise S2FError(f"render supports sizes from 32 to 1024 px, not {size}: choose another size.")
    out = Path(out)
    recipe = Recipe(n_identities, shots, size, seed, edits, drawings, first_identity, split)
    if not recipe.identities():
        raise S2FError(
            f"none of these {n_identities} identities is in the split {split!r}: choose train, val or test, "
            "and at least ten identities."
        )
    _claim(out, recipe)
    if (out / "manifest.csv").is_file():
        return out
    with claimed(out):
        _render_and_pack(out, recipe, workers, progress)
    return out


def _render_and_pack(out: Path, recipe: Recipe, workers: int | None, progress: Callable) -> None:
    edits = recipe.edits
    parts = out / "parts"
    parts.mkdir(exist_ok=True)
    jobs = [("identity", i) for i in recipe.identities()]
    jobs += [("edit", k) for k in range(edits)]
    left = [job for job in jobs if not _part(parts, job).is_file()]
    work = partial(_job, recipe, parts)
    with _pool(min(workers or os.cpu_count() or 1, max(1, len(left)))) as run:
        for _ in progress(run(work, left), len(left)):
            pass
    if edits:
        _pack_edits(out, parts, edits)
    _pack(out, parts, [j for j in jobs if j[0] == "identity"], recipe)
    shutil.rmtree(parts)


def _claim(out: Path, recipe: Recipe) -> None:
    """Write the recipe to a new folder, or check that the folder has the same recipe."""
    path = out / "render.json"
    wanted = recipe.__dict__
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != wanted:
            differ = ", ".join(k for k in wanted if found.get(k) != wanted[k])
            raise DataError(
                f"{out} contains another data set (its {differ} differ): choose an empty folder or use the "
                "same arguments."
            )
        return
    if (out / "manifest.csv").exists():
        raise DataError(f"{out} contains a data set that render did not create: choose an empty folder.")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(wanted, indent=1))


@contextmanager
def _pool(workers: int):
    """A map over several processes with one thread each, or the built-in map for one worker."""
    if workers <= 1:
        yield map
        return
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # read by numpy's import
    one: dict[str, str] = dict.fromkeys(names, "1")
    with environment(one), multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield partial(pool.imap_unordered, chunksize=1)


def _part(parts: Path, job: tuple[str, int]) -> Path:
    return parts / f"{job[0]}-{job[1]:06d}.zip"


def _job(recipe: Recipe, parts: Path, job: tuple[str, int]) -> None:
    """Render one identity or one edit pair into a part file, atomically."""
    kind, number = job
    made = _render_identity(recipe, number) if kind == "identity" else _render_edit(recipe, number)
    path = _part(parts, job)
    with atomic_path(path) as temporary:
        _write_part(temporary, made if isinstance(made, list) else [made])


def _write_part(path: Path, records: list[dict]) -> None:
    """Records as a zip: the bytes as members, all else in records.json. (A pickle could run code when it is read.)"""
    plain = [{k: v for k, v in r.items() if not isinstance(v, bytes)} for r in records]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("records.json", json.dumps(plain, default=lambda array: array.tolist()))
        for number, record in enumerate(records):
            for key, value in record.items():
                if isinstance(value, bytes):
                    archive.writestr(f"{number}/{key}", value)


def _read_part(path: Path) -> list[dict]:
    """The records of :func:`_write_part`. DataError for a damaged file, which is deleted: a rerun makes it again."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = json.loads(archive.read("records.json"))
            for member in archive.namelist():
                number, _, key = member.partition("/")
                if key:
                    records[int(number)][key] = archive.read(member)
    except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile) as e:
        path.unlink(missing_ok=True)
        raise DataError(f"{path} is damaged ({e}) and was deleted: run the same command again.") from None
    return records


def _render_identity(recipe: Recipe, identity: int) -> list[dict]:
    records, person = [], None
    for k in range(recipe.shots):
        picture, person, shot = render_shot(
            recipe.seed, identity, k, recipe.size, like=person, keep_buffers=recipe.drawings
        )
        record = {
            "identity": identity,
            "shot": k,
            "landmarks": picture.landmarks.astype(np.float32),
            "image": encode_photo(picture.rgb),
            "mask": encode_flat(picture.labels),
            "attributes": attributes(person.identity, person.look, shot),
        }
        if picture.buffers is not None:
            hand = tuple(HANDS)[(identity + k) % len(HANDS)]
            lines = line_drawing(picture.buffers, hand, seed=identity * 1000 + k)
            record["drawing"] = encode_drawing(lines)
            record["attributes"]["drawing_hand"] = hand
        records.append(record)
    return records


def _render_edit(recipe: Recipe, number: int) -> dict:
    """Edit pairs use other identities (from 10⁶); those of val and test use held-out phrasings."""
    identity = 1_000_000 + number
    pair = sample_edit_pair(recipe.seed, identity, recipe.size, held_out=identity % 10 >= 8)
    return {
        "before": encode_photo(pair.before.rgb),
        "after": encode_photo(pair.after.rgb),
        "mask": encode_flat(pair.mask.astype(np.uint8) * 255),
        "instruction": pair.instruction,
        "identity": identity,
        "kinds": "+".join(e.kind for e in pair.edits),
        "values": "+".join(e.value for e in pair.edits),
    }


def encode_photo(rgb: np.ndarray) -> bytes:
    """(H, W, 3) uint8 → WebP."""
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "WEBP", quality=PHOTO_QUALITY, method=4)
    return out.getvalue()


def encode_flat(grey: np.ndarray) -> bytes:
    """(H, W) uint8 → lossless WebP, all three channels equal."""
    out = io.BytesIO()
    Image.fromarray(grey).convert("RGB").save(out, "WEBP", lossless=True, quality=75, method=4)
    return out.getvalue()


def encode_drawing(grey: np.ndarray) -> bytes:
    """(H, W) uint8 → lossless WebP with eight grey levels: lines stay sharp and take two thirds of the space."""
    return encode_flat((np.round(grey / 255 * 7) * (255 / 7)).round().astype(np.uint8))


def _pack(out: Path, parts: Path, jobs: list, recipe: Recipe) -> None:
    """Join the parts into archives; the manifest is written last: a folder that has one is complete."""
    kinds = ["image", "mask"] + ["drawing"] * recipe.drawings
    splits = sorted({identity_split(number) for _, number in jobs})
    rows, landmarks, names = [], [], []
    with _archives(out, [f"{kind}s-{split}.zip" for split in splits for kind in kinds]) as archives:
        for job in jobs:
            split = identity_split(job[1])
            for record in _read_part(_part(parts, job)):
                name = f"{record['identity']:06d}_{record['shot']}"
                for kind in kinds:
                    archives[f"{kind}s-{split}.zip"].writestr(zipfile.ZipInfo(f"{name}.webp"), record[kind])
                rows.append(
                    {
                        "file": f"{name}.webp",
                        "sha256": hashlib.sha256(record["image"]).hexdigest(),
                        "mask_sha256": hashlib.sha256(record["mask"]).hexdigest(),
                        "identity": record["identity"],
                        "shot": record["shot"],
                        "split": split,
                        **record["attributes"],
                    }
                )
                landmarks.append(np.array(record["landmarks"], np.float32))
                names.append(name)
    with atomic_path(out / "landmarks.npz") as temporary, open(temporary, "wb") as f:
        points = np.round(np.stack(landmarks) * 8).astype(np.int16)  # eighths of a pixel
        np.savez_compressed(f, names=np.array(names), points=points, scale=8, size=recipe.size)
    _write_csv(out / "manifest.csv", rows)


def _pack_edits(out: Path, parts: Path, n: int) -> None:
    rows = []
    with _archives(out, ["edits.zip"]) as archives:
        for k in range(n):
            (record,) = _read_part(_part(parts, ("edit", k)))
            for what in ("before", "after", "mask"):
                archives["edits.zip"].writestr(zipfile.ZipInfo(f"{k:06d}_{what}.webp"), record.pop(what))
            rows.append({"pair": f"{k:06d}", "split": identity_split(record["identity"]), **record})
    _write_csv(out / "edits.csv", rows)


@contextmanager
def _archives(out: Path, names: list[str]):
    """Zip files that get their final names together, when all are written."""
    archives = {name: zipfile.ZipFile(out / f".{name}.part", "w") for name in names}
    try:
        yield archives
    finally:
        for archive in archives.values():
            archive.close()
    for name in names:
        os.replace(out / f".{name}.part", out / name)


def _write_csv(path: Path, rows: list[dict]) -> None:
    write_text(path, csv_text(rows), overwrite=True)
