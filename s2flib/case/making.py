"""What a case's steps make, as functions of recorded inputs: called once to write a step, and again to verify it.

A step's inputs are checked here field by field, because they may come from a stranger's file.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from s2flib.datasets.align import align_face
from s2flib.datasets.faces import SPLITS, open_dataset
from s2flib.datasets.user_drawing import Drawing, prepare_drawing
from s2flib.errors import DataError, ImageError, S2FError, printable
from s2flib.evaluation.evaluate import pool
from s2flib.evaluation.lineup import rank_probes, shots
from s2flib.files import sha256_of, weights_dir
from s2flib.generate import FAR, MAX_FACES, UNUSUAL, how_made, sample_faces
from s2flib.images import SUFFIXES, as_float, inherited, load_image, png_info, to_array, to_photo
from s2flib.instruct_pix2pix.editing import EditOptions, identity_of
from s2flib.instruct_pix2pix.pipeline import load_pipeline
from s2flib.instruct_pix2pix.session import EditSession
from s2flib.judges.load import identity_judge
from s2flib.presets import PRESETS, Preset, get_preset
from s2flib.psp import PSP
from s2flib.runs import git_revision, hardware, versions
from s2flib.weights.load import SUMS, load_psp, psp_file
from s2flib.weights.registry import fetch

KS = (1, 10)
TOP = 20  # gallery photos that a line-up lists
CONTROLS = 20  # other people's drawings in a line-up's shuffled control
BATCH = 16  # photos that are embedded at a time
MAX_PHOTOS = 100_000
SHIPPED_JUDGES = {"dlib": "dlib-resnet.safetensors", "synthface-id": "tiny-id.safetensors"}


@dataclass(frozen=True)
class Model:
    """A preset's encoder, with what the case records of its files."""

    preset: Preset
    psp: PSP
    encoder_file: Path
    weights: dict[str, dict[str, str]]  # "encoder", "generator" → file, sha256


def load_model(preset: str | Preset, weights: Path | None = None, generator: Path | None = None) -> Model:
    """The encoder and its generator, on the GPU if there is one; WeightsError."""
    p = get_preset(preset)
    file = psp_file(p, weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    psp = load_psp(p, file, generator).eval().to(device)
    behind = file  # a published .pt holds its generator
    if file.suffix == ".safetensors":
        behind = generator or (
            weights_dir() / p.shipped_generator if p.shipped_generator else fetch(p.published_generator or "")
        )
    return Model(p, psp, file, {"encoder": _digest(file), "generator": _digest(Path(behind))})


def _digest(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": sha256_of(path)}


def made_with() -> dict[str, Any]:
    """Where a step was made: versions, git revision, hardware."""
    return {"versions": versions(), "git": git_revision(), "hardware": hardware()}


def preset_of(data: Mapping[str, Any]) -> Preset:
    """The preset of a case's first entry; DataError for a name that this version does not know."""
    name = field(data, "preset", str)
    if name not in PRESETS:
        raise DataError(f"the case's preset {name[:40]!r} is unknown: use the version of s2flib that made it.")
    return PRESETS[name]


def field(data: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """data[key], of this type; DataError (True is no number)."""
    value = data.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DataError(f"the case's log has no valid {key!r}: it was not written by s2f case.")
    return value


def picture(blob: bytes, name: str) -> np.ndarray:
    """A picture inside a case as (H, W, 3) uint8; ImageError with its name."""
    return load_image(_file(blob, name))


def _file(blob: bytes, name: str) -> io.BytesIO:
    file = io.BytesIO(blob)
    file.name = name  # for messages
    return file


def png(array: np.ndarray, metadata: Mapping[str, Any]) -> bytes:
    """A generated picture as PNG bytes, marked synthetic as images.save_image does."""
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG", pnginfo=png_info(metadata))
    return out.getvalue()


def check_count(n: int) -> None:
    """S2FError unless so many faces can be made."""
    if not 1 <= n <= MAX_FACES:
        raise S2FError(f"n must be between 1 and {MAX_FACES} faces, not {n}.")


def prepared(drawing: bytes, name: str, preset: Preset) -> Drawing:
    """The bytes of a drawing's file, made ready for the encoder; ImageError with its name."""
    name = printable(name)  # it may be a stranger's
    try:
        return prepare_drawing(picture(drawing, name), preset.size)
    except ImageError as error:
        raise ImageError(str(error) if name in str(error) else f"{name}: {error}") from None


def faces(
    drawing: bytes, name: str, model: Model, n: int, seed: int
) -> tuple[dict[str, bytes], list[str], float | None]:
    """The variants of a drawing as s2f generate makes them: {member: PNG}, notes, and the drawing's input distance."""
    check_count(n)
    ready, device = prepared(drawing, name, model.preset), model.psp.latent_avg.device
    sketch, notes = ready.sketch.to(device), list(ready.notes)
    with torch.no_grad():
        found = model.psp.input_distance(sketch[None])
    distance = None if found is None else float(found)
    about = how_made(model.psp, model.preset, model.encoder_file) | inherited(_file(drawing, name))[0]
    about |= {"seed": seed, "sketch": name, "sketch_sha256": hashlib.sha256(drawing).hexdigest()}
    if distance is not None:
        about["input_distance"] = f"{distance:.2f}"
        notes += [UNUSUAL.format(distance)] if distance > FAR else []
    out = {}
    for i, face in enumerate(sample_faces(model.psp, sketch, n, seed), start=1):
        details = {"face": i, "styles": "encoder" if i == 1 else "coarse: encoder, fine: sampled at random"}
        out[f"faces/{i:02d}.png"] = png(to_array(face), about | details)
    return out, notes, distance


def pipeline(preset: Preset) -> tuple[Any, dict[str, str]]:
    """The preset's edit pipeline and what the case records of it."""
    pipe = load_pipeline(preset)
    record = {"unet": identity_of(pipe)}
    if preset.edit.shipped is not None:
        record |= {
            "file": f"{preset.edit.shipped}/{SUMS}",
            "sha256": sha256_of(weights_dir() / preset.edit.shipped / SUMS),
        }
    return pipe, record


def edits(
    source: bytes,
    source_name: str,
    words: str,
    options: Mapping[str, Any],  # seed, guidance, image_guidance, steps; None: the preset's
    preset: Preset,
    pipe,
    step: int,  # of the case: the number in the members' names
) -> tuple[dict[str, bytes], list[str], list[str]]:
    """An instruction applied to a picture: {member: PNG} in order, the single wishes, and notes."""
    session = EditSession(picture(source, source_name), preset, pipe=pipe)
    made = session.chain([words], **options)
    about = inherited(_file(source, source_name))[0] | {"edited": source_name}
    out = {f"edits/{step:04d}_{k:02d}.png": png(each.image, each.parameters | about) for k, each in enumerate(made, 1)}
    notes = list(dict.fromkeys((*session.notes, *(note for each in made for note in each.notes))))
    return out, [each.instruction for each in made], notes


def edit_settings(options: Mapping[str, Any], preset: Preset) -> dict[str, Any]:
    """An edit's steps, guidance, image guidance and interval with the preset's values filled in, to be read."""
    chosen = EditOptions(**{k: v for k, v in options.items() if k != "seed"}).resolved(preset.edit)
    return {
        "steps": chosen.steps,
        "guidance": str(chosen.guidance),
        "image_guidance": chosen.image_guidance,
        "interval": chosen.interval,
        "keep_detail": chosen.keep,
    }


@dataclass(frozen=True)
class Gallery:
    """One photo of every person, and a second one where there is any. photos: (name, SHA-256, array) …"""

    record: dict[str, Any]  # kind, name, limit, people, sha256, left_out
    names: list[str]
    photos: list[torch.Tensor]  # (3, S, S) in [−1, 1]
    second: list[tuple[int, torch.Tensor]]  # (index of the person, another photo of them)


def folder_gallery(folder: Path, preset: Preset) -> Gallery:
    """The photos of a folder, faces framed as in training. Photos in a subfolder show one person, whose second photo is
    the control; every other photo is a person of its own. Pictures without exactly one face are left out."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: choose a folder of photos for the line-up.")
    names, photos, digests, left_out = [], [], [], {}
    second: list[tuple[int, torch.Tensor]] = []
    people: dict[str, list[int]] = {}
    files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    if len(files) > MAX_PHOTOS:
        raise DataError(f"{folder} contains {len(files):,} pictures: choose a folder of at most {MAX_PHOTOS:,}.")
    for path in files:
        name = path.relative_to(folder).as_posix()
        person = name.split("/")[0] if "/" in name else name
        try:
            photo = to_photo(align_face(load_image(path), preset.size), preset.size)
        except S2FError as error:
            left_out[name] = str(error).split(":")[0]
            continue
        seen = people.setdefault(person, [])
        if len(seen) > 1:
            continue  # a third photo of one person has no part in it
        digests.append(f"{name} {sha256_of(path)}")
        if seen:
            second.append((seen[0], photo))
            seen.append(seen[0])
        else:
            seen.append(len(photos))
            names.append(name)
            photos.append(photo)
    record = {"kind": "folder", "name": folder.name, "left_out": left_out}
    return _gallery(record, names, photos, second, digests, str(folder))


def split_gallery(split: str, limit: int | None, preset: Preset) -> Gallery:
    """The first photo of every person of a split of the preset's data set, and the second as the control."""
    dataset = open_dataset(preset, split, None, limit)
    shot = shots(dataset.identities, np.asarray(dataset.names))
    first = {int(dataset.identities[i]): n for n, i in enumerate(np.flatnonzero(shot == 0).tolist())}
    names, photos, digests, second = [], [], [], []
    for i in np.flatnonzero(shot == 0).tolist():
        photo = dataset[i]["photo"]
        names.append(dataset.names[i])
        photos.append(photo)
        digests.append(f"{dataset.names[i]} {hashlib.sha256(to_array(photo).tobytes()).hexdigest()}")
    for i in np.flatnonzero(shot == 1).tolist():
        second.append((first[int(dataset.identities[i])], dataset[i]["photo"]))
    record = {"kind": "split", "name": split, "limit": limit, "left_out": {}}
    return _gallery(record, names, photos, second, digests, f"the {split} split")


def _gallery(record, names, photos, second, digests, where: str) -> Gallery:
    if len(photos) < 2:
        raise DataError(f"{where} shows fewer than two people: a line-up needs more photos, each of one face.")
    digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return Gallery(record | {"people": len(photos), "sha256": digest}, names, photos, second)


def judge_record(preset: Preset) -> dict[str, str]:
    """The measuring network's file."""
    shipped = SHIPPED_JUDGES.get(preset.id_measure)
    return _digest(weights_dir() / shipped if shipped else fetch(preset.id_measure))


def lineup(probe: bytes, name: str, gallery: Gallery, model: Model) -> dict[str, Any]:
    """The gallery's photos by similarity to a face, with three controls.

    *Shuffled:* the faces of other people's drawings, who are not in the gallery: how high their best similarity is
    says what the probe's best one means. *Photo against photo:* the rank of people's second photos, the judge's own
    ceiling in this gallery; None without any. *Chance:* k of the number of people.
    """
    p = model.preset
    device = model.psp.latent_avg.device
    judge = identity_judge(p, role="measure").to(device)

    def embed(pictures: list[torch.Tensor]) -> np.ndarray:
        with torch.inference_mode():
            batches = [torch.stack(pictures[i : i + BATCH]).to(device) for i in range(0, len(pictures), BATCH)]
            parts = [judge.embed(pool(batch, p.eval_size)).float().cpu().numpy() for batch in batches]
        return np.concatenate(parts).astype(np.float64)

    photos = embed(gallery.photos)
    similarity = (embed([to_photo(picture(probe, name), p.size)]) @ photos.T)[0]
    order = np.argsort(-similarity, kind="stable")[:TOP]
    ceiling = None
    if gallery.second:
        who = np.array([person for person, _ in gallery.second])
        ranks = rank_probes(embed([photo for _, photo in gallery.second]), who, photos, np.arange(len(photos)))
        ceiling = {"n": len(who), **{f"rank{k}": ranks.rate(k).value for k in KS}}
    others, source = _other_faces(model, gallery)
    best = (embed(others) @ photos.T).max(axis=1) if others else np.empty(0)
    return {
        "judge": judge.label,
        "top": [{"photo": gallery.names[i], "similarity": round(float(similarity[i]), 6)} for i in order],
        "chance": {f"rank{k}": min(k / len(photos), 1.0) for k in KS},
        "photo_against_photo": ceiling,
        "shuffled": {
            "what": source,
            "n": len(best),
            "best_similarities": [round(float(b), 6) for b in sorted(best, reverse=True)],
            "as_high_as_the_probe": int((best >= similarity.max()).sum()),
        },
    }


def _other_faces(model: Model, gallery: Gallery) -> tuple[list[torch.Tensor], str]:
    """The faces of CONTROLS people's drawings of a split that the gallery does not show, and where they are from."""
    split = next(s for s in SPLITS[1:] if s != gallery.record["name"])
    try:
        dataset = open_dataset(model.preset, split)
    except DataError:
        return [], "not measured: the preset's data set, from which other people's drawings come, is not here"
    _, first = np.unique(dataset.identities, return_index=True)
    out = []
    with torch.inference_mode():
        for i in first[:CONTROLS]:
            sketch = dataset[int(i)]["sketch"].to(model.psp.latent_avg.device)
            face, _ = model.psp(sketch[None])
            out.append(as_float(to_array(face[0].cpu())))
    return out, f"faces of drawings of people of the {split} split"
