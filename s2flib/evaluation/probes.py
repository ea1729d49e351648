"""The drawings that are searched for in a gallery, and their embeddings: made once, then read from a folder.

For every person of a split (SynthFaces, four photos each): the gallery is the last photo, as
:func:`lineup.gallery_indices` chooses it for probes of the last but one shot; drawings are of the others. Kinds:

* ``pencil``: the paper's sketch of each of the first three photos;
* ``line, clean | sketchy | composite``: the line drawing by this hand, of the one of these photos that it drew;
* ``recall e``: a witness remembers the person with error e (:mod:`synthfaces.recall`); the face remembered is rendered
  in the first photo's pose, light and clothes, and drawn in pencil. Errors above 0 need rendering, so these kinds have
  the first ``people`` people only; error 0.5 has three witnesses. ``recall 0`` is the pencil sketch itself.

A drawing's variants are the encoder's reconstruction and random faces of the same coarse styles
(:func:`generate.sample_faces`), here of each person's first drawing. The measuring judge embeds everything.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from s2flib.datasets.faces import FaceDataset, SynthFaces
from s2flib.errors import DataError, S2FError
from s2flib.evaluation.evaluate import pool
from s2flib.evaluation.lineup import gallery_indices, shots
from s2flib.files import atomic_path
from s2flib.generate import sample_faces
from s2flib.presets import Preset
from s2flib.psp import PSP
from s2flib.sketch import sketch
from s2flib.synthfaces.drawing import HANDS
from s2flib.synthfaces.identity import sample_identity
from s2flib.synthfaces.look import sample_look
from s2flib.synthfaces.person import Person
from s2flib.synthfaces.portrait import photograph
from s2flib.synthfaces.recall import recall
from s2flib.synthfaces.render import encode_photo
from s2flib.synthfaces.shot import sample_shot
from s2flib.synthfaces.streams import stream

ERRORS = (0.0, 0.25, 0.5, 0.75, 1.0)
WITNESSES = {0.5: 3}  # recall error → witnesses; else one
SHOTS = 4  # photos of each person: three to draw, and the gallery's
VARIANTS = 64
PENCIL, PERFECT = "pencil", "recall 0"
KINDS = (PENCIL, *(f"line, {hand}" for hand in HANDS), *(f"recall {e:g}" for e in ERRORS))
Progress = Callable[[Iterable, str], Iterable]


def _quiet(steps: Iterable, what: str) -> Iterable:
    return steps


@dataclass(frozen=True)
class Kind:
    """One kind of drawing of the first n people: drawings (n, R, S, S) uint8, R of each person; embedding (n, R, d) of
    their reconstructions; variants (m, K, d), of the first drawings of the first m people, the reconstruction first.
    All embeddings have unit length."""

    drawings: np.ndarray
    embedding: np.ndarray
    variants: np.ndarray

    def first(self, n: int) -> Kind:
        """Each person's first drawing alone, of the first n people."""
        return Kind(self.drawings[:n, :1], self.embedding[:n, :1], self.variants[:n])


@dataclass(frozen=True)
class Probes:
    """All probes of a split. identity (P,); index (P,): the gallery's photos in the data set; gallery (P, d): their
    embeddings; photo (P, 3, d): the photos that were drawn; attributes: a row of the manifest for each person."""

    identity: np.ndarray
    index: np.ndarray
    gallery: np.ndarray
    photo: np.ndarray
    attributes: list[dict]
    kinds: dict[str, Kind]


def photo_table(dataset: FaceDataset) -> tuple[SynthFaces, np.ndarray]:
    """The data set, and the index of every person's photos in it, (P, 4). S2FError unless it is SynthFaces with four
    photos of each person."""
    if not isinstance(dataset, SynthFaces):
        raise S2FError("identification needs rendered people (line drawings, recall): choose SynthFaces with --data.")
    ids = np.asarray(dataset.identities)
    people, counts = np.unique(ids, return_counts=True)
    if len(people) < 2 or (counts < SHOTS).any():
        raise S2FError(
            f"identification needs at least two people with {SHOTS} photos each: render a data set with "
            f"s2f render --shots {SHOTS}, or use a larger limit."
        )
    shot = shots(ids, np.asarray(dataset.names))
    return dataset, np.array([[np.flatnonzero((ids == p) & (shot == s))[0] for s in range(SHOTS)] for p in people])


def remembered(seed: int, identity: int, error: float, witness: int, size: int) -> np.ndarray:
    """The pencil sketch of a person of a data set as one witness remembers the first photo: (size, size) uint8.

    seed, identity: as the data set was rendered. Another witness forgets in another direction.
    """
    truth = sample_identity(seed, identity)
    face = recall(truth, error, stream(seed, identity, "witness", witness))
    person = Person(face, sample_look(truth, seed, identity))
    picture = photograph(person, sample_shot(truth, seed, identity, 0), size)
    # compressed as in the data set
    photo = np.array(Image.open(io.BytesIO(encode_photo(picture.rgb)), formats=("WEBP",)).convert("RGB"))
    return sketch(photo, picture.labels)


def check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds in the order of KINDS; S2FError for an unknown or missing one."""
    unknown = [k for k in kinds if k not in KINDS]
    if unknown or not kinds:
        raise S2FError(
            f"there is no kind of drawing {unknown[0] if unknown else ''!r}: choose from {'; '.join(KINDS)}."
        )
    return tuple(k for k in KINDS if k in kinds)


def draw(dataset: FaceDataset, kind: str, people: int, progress: Progress = _quiet) -> np.ndarray:
    """All drawings of one kind: (n, R, S, S) uint8. people: n of the kinds with recall error."""
    (kind,) = check_kinds([kind])
    synth, table = photo_table(dataset)
    if kind == PENCIL:
        rows = [[synth.drawn(i, *synth.read(i)) for i in own[:-1]] for own in progress(table, kind)]
    elif kind.startswith("line"):
        hand = kind.split(", ")[1]
        by = [[i for i in own[:-1] if synth.attributes[i]["drawing_hand"] == hand] for own in table]
        if not all(by):
            raise S2FError(f"the hand {hand!r} did not draw everybody: render the data set again with s2f render.")
        rows = [[synth.drawing(own[0])] for own in progress(by, kind)]
    else:
        error = float(kind.split()[1])
        rows = []
        for own in progress(table[:people], kind):
            who = int(synth.identities[own[0]])
            if error == 0:
                rows.append([synth.drawn(own[0], *synth.read(own[0]))])
            else:
                witnesses = range(WITNESSES.get(error, 1))
                rows.append([remembered(synth.seed, who, error, w, synth.size) for w in witnesses])
    return np.array(rows, np.uint8)


def embed_faces(
    model: PSP, judge, drawings: np.ndarray, preset: Preset, batch: int = 16, progress: Progress = _quiet
) -> np.ndarray:
    """Drawings (n, R, S, S) uint8 → the measuring judge's embeddings (n, R, d) float32 of their reconstructions."""
    device = model.latent_avg.device
    flat = torch.from_numpy(drawings).flatten(0, 1)[:, None]
    parts = []
    with torch.inference_mode():
        for part in progress(flat.split(batch), "faces"):
            faces = model(part.to(device).float() / 255)[0]
            parts.append(judge.embed(pool(faces, preset.eval_size)).float().cpu().numpy())
    return np.concatenate(parts).reshape(*drawings.shape[:2], -1)


def embed_variants(
    model: PSP, judge, drawings: np.ndarray, preset: Preset, n: int, seed: int, progress: Progress = _quiet
) -> np.ndarray:
    """The embeddings (m, n, d) of n faces of each drawing (m, S, S) uint8: as ``s2f generate -n`` makes them."""
    device = model.latent_avg.device
    out = []
    with torch.inference_mode():
        for drawing in progress(drawings, f"{n} variants"):
            faces = sample_faces(model, torch.from_numpy(drawing)[None].to(device).float() / 255, n, seed)
            embedded = [judge.embed(pool(part.to(device), preset.eval_size)) for part in faces.split(16)]
            out.append(torch.cat(embedded).float().cpu().numpy())
    return np.stack(out)


def make_probes(
    dataset: FaceDataset,
    model: PSP,
    judge,  # the measuring identity judge, on the model's device
    preset: Preset,
    kinds: Sequence[str],  # of KINDS
    people: int,  # n of the kinds with recall error, and of the variants
    variants: int,  # faces of each drawing
    seed: int,  # of the variants
    folder: Path,  # where drawings and embeddings are kept
    weights: str,  # a fingerprint of the model: embeddings of another model are made again
    progress: Progress = _quiet,
) -> Probes:
    """All probes of a split. What the folder contains already is read: a stopped run continues where it was."""
    synth, table = photo_table(dataset)
    kinds = check_kinds(kinds)
    data = json.dumps([str(synth.root.name), synth.seed, synth.split, len(synth), synth.size])
    found: dict[str, Kind] = {}
    for kind in kinds:
        drawn_of = json.dumps([data, kind, people])
        about = json.dumps([drawn_of, weights, preset.id_measure, variants, seed])
        stem = f"{synth.split}-{kind.replace(', ', '-').replace(' ', '-')}"
        if kind == PERFECT and PENCIL in found:  # the same drawings
            found[kind] = found[PENCIL].first(people)
            continue
        drawings = _kept(folder / f"{stem}-drawings.npz", drawn_of, lambda k=kind: draw(synth, k, people, progress))
        embedding = _kept(folder / f"{stem}-faces.npz", about,
                          lambda d=drawings: embed_faces(model, judge, d, preset, progress=progress))  # fmt: skip
        several = _kept(folder / f"{stem}-variants.npz", about,
                        lambda d=drawings: embed_variants(model, judge, d[:people, 0], preset, variants, seed,
                                                          progress))  # fmt: skip
        found[kind] = Kind(drawings, embedding, several)
    galleries, _ = gallery_indices(synth.identities, np.asarray(synth.names))
    gallery = galleries[SHOTS - 2]
    assert (gallery == table[:, -1]).all()
    photos = _kept(folder / f"{synth.split}-photos.npz", json.dumps([data, preset.id_measure]),
                   lambda: embed_table(synth, judge, preset, table, progress))  # fmt: skip
    attributes = [synth.attributes[i] for i in gallery]
    return Probes(synth.identities[gallery], gallery, photos[:, -1], photos[:, :-1], attributes, found)


def embed_table(
    dataset: FaceDataset, judge, preset: Preset, table: np.ndarray, progress: Progress = _quiet
) -> np.ndarray:
    """The embeddings of the photos (P, S) of a data set: (P, S, d) float32."""
    device = next(judge.parameters()).device
    out = []
    with torch.inference_mode():
        for own in progress(table, "photos"):
            photos = torch.stack([dataset[int(i)]["photo"] for i in own]).to(device)
            out.append(judge.embed(pool(photos, preset.eval_size)).float().cpu().numpy())
    return np.stack(out)


def _kept(path: Path, about: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in ``path`` if it was made for ``about``; otherwise it is made and written. DataError for a damaged
    file."""
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as file:
                if str(file["about"]) == about:
                    return file["values"]
        except Exception as e:  # zipfile, zlib and numpy have their own exceptions
            raise DataError(f"{path} is damaged: delete it and run the same command again.") from e
    arrays: dict[str, Any] = {"about": np.array(about), "values": make()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    return arrays["values"]
