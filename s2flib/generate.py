"""Generates faces from sketch files; the implementation of ``s2f generate``.

For every sketch the first face is the encoder's reconstruction, G(E(sketch)); the others keep its coarse styles and
sample the fine ones at random (:meth:`s2flib.psp.PSP.multimodal`; seed paper, Fig. 5). All inputs are read and checked
before the first face is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import s2flib
from s2flib import images
from s2flib.datasets.align import align_face
from s2flib.datasets.foreground import person_mask
from s2flib.datasets.user_drawing import prepare_drawing
from s2flib.errors import S2FError
from s2flib.files import check_free, sha256_of, unique_stems
from s2flib.presets import Preset, get_preset
from s2flib.psp import PSP
from s2flib.runs import check_seed
from s2flib.sketch import sketch
from s2flib.weights.load import fingerprint, load_psp, psp_file

OVERVIEW = "overview.png"
GAP = 4  # px of white between the overview's images
MAX_FACES = 64  # per sketch
FAR = 1.0  # distance of an unusual input, see input_distance.InputDistance
UNUSUAL = (
    "unlike the drawings that the encoder was trained on (distance {:.2f}; 99 of 100 validation sketches have less "
    "than 1): the figures of the model's card do not hold for this face"
)


@dataclass(frozen=True)
class GeneratedFaces:
    """source: the sketch's file; faces: the files written; notes: the changes made to the drawing first."""

    source: Path
    faces: list[Path]
    notes: list[str]


def generate(
    sketches: Sequence[str | Path],  # image files
    out: str | Path,  # folder for the faces; created if missing
    preset: str | Preset = "tiny",
    n: int = 4,  # faces per sketch
    seed: int = 0,  # of the randomly sampled styles
    weights_file: str | Path | None = None,  # another encoder for this preset
    generator_file: str | Path | None = None,  # the generator it was trained with, if not the preset's
    from_photo: bool = False,  # the inputs are photos: sketch them first (seed paper, Sec. 3.2)
    align: bool = False,  # with from_photo: find the face and crop it as in training
    which: int | None = None,  # with align: the face to use, counted from the left, if there are several
    mark: bool = False,  # also add a visible SYNTHETIC strip
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> list[GeneratedFaces]:
    """Generate ``n`` faces for each sketch file, ``OUT/<name>_face_<i>.png``, and one ``OUT/overview.png``.

    The PNG metadata of every file states that it is synthetic, how it was generated (preset, seed, styles, the
    sketch's sha256) and with which weights (sha256). The same inputs and seed give the same faces.

    Raises S2FError (ImageError, WeightsError) with the file's name; no face has then been written, unless writing
    itself failed (a full disk).
    """
    preset, out = get_preset(preset), Path(out)
    sources = [Path(sketch) for sketch in sketches]
    if not sources:
        raise S2FError("no sketch was given: name at least one image file.")
    if not 1 <= n <= MAX_FACES:
        raise S2FError(f"n must be between 1 and {MAX_FACES} faces per sketch, not {n}.")
    check_seed(seed)
    if (align or which is not None) and not from_photo:
        raise S2FError("alignment works only on photos, not on drawings: add --from-photo.")
    if which is not None and not align:
        raise S2FError("choosing a face requires face detection: add --align.")
    if out.suffix.lower() in images.SUFFIXES and not out.is_dir():
        raise S2FError(f"{out} is a picture's name, but several pictures are written: choose a folder, such as faces/.")
    names = unique_stems(sources)
    files = [[out / f"{name}_face_{i + 1}.png" for i in range(n)] for name in names]
    check_free([*sum(files, []), out / OVERVIEW], overwrite, sources)

    prepared = [_read(path, preset, from_photo, align, which) for path in sources]
    weights_file = psp_file(preset, weights_file)
    model = load_psp(preset, weights_file, generator_file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device)
    about = how_made(model, preset, weights_file) | {"seed": seed}
    out.mkdir(parents=True, exist_ok=True)
    done, shown = [], []
    for path, (drawing, notes), targets in zip(sources, prepared, files, strict=True):
        faces = sample_faces(model, drawing.to(device), n, seed)
        distance = model.input_distance(drawing[None].to(device))
        far = {} if distance is None else {"input_distance": f"{float(distance):.2f}"}
        if distance is not None and distance > FAR:
            notes = [*notes, UNUSUAL.format(float(distance))]
        pictures = [images.to_array(face) for face in faces]
        for i, (picture, target) in enumerate(zip(pictures, targets, strict=True)):
            details = (
                about
                | images.inherited(path)[0]
                | {
                    "sketch": path.name,
                    "sketch_sha256": sha256_of(path),
                    "face": i + 1,
                    **far,
                    "styles": "encoder" if i == 0 else "coarse: encoder, fine: drawn by chance",
                }
            )
            images.save_image(target, picture, metadata=details, overwrite=overwrite, mark=mark)
        progress(f"{path}: {n} face{'s' if n > 1 else ''} -> {targets[0].parent}")
        shown += [np.uint8(np.round(drawing[0].numpy() * 255)), *pictures]
        done.append(GeneratedFaces(path, targets, notes))
    sheet = images.contact_sheet(shown, columns=n + 1, gap=GAP)
    details = about | {"what": "sketch, then its faces", "sketches": [path.name for path in sources]}
    before = {path.name: json.loads(text) for path in sources for text in images.inherited(path)[0].values()}
    details |= {"source_metadata": json.dumps(before)} if before else {}
    images.save_image(out / OVERVIEW, sheet, metadata=details, overwrite=overwrite, mark=mark)
    return done


def how_made(model: PSP, preset: Preset, weights_file: str | Path | None = None) -> dict[str, str]:
    """The metadata of every face that ``model`` makes: version, preset and weights. weights_file: the encoder's."""
    return {
        "software": f"s2flib {s2flib.__version__}",
        "preset": preset.name,
        "label": preset.label,
        "weights_sha256": sha256_of(psp_file(preset, weights_file)),
        "generator": fingerprint(model.decoder),
    }


@torch.no_grad()
def sample_faces(model: PSP, sketch: Tensor, n: int, seed: int) -> Tensor:
    """sketch (1, H, W) in [0, 1] → (n, 3, S, S): the encoder's reconstruction, then n − 1 random variants."""
    first, _ = model(sketch[None])
    if n == 1:
        return first.cpu()
    return torch.cat([first, model.multimodal(sketch, n - 1, seed)]).cpu()


def _read(path: Path, preset: Preset, from_photo: bool, align: bool, which: int | None) -> tuple[Tensor, list[str]]:
    """One input file → (sketch (1, S, S) in [0, 1], notes)."""
    array = images.load_image(path)
    try:
        if not from_photo:
            drawing = prepare_drawing(array, preset.size)
            return drawing.sketch, drawing.notes
        if align:
            array = align_face(array, preset.size, which=which)
        photo = images.to_photo(array, preset.size)
        mask = torch.from_numpy(person_mask(images.to_array(photo)))
        return sketch(photo, mask), ["a photo: the person was cut out and sketched first"]
    except S2FError as error:
        if path.name in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
