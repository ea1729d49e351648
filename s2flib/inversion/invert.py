"""Inverts photo files; the implementation of ``s2f invert``.

All inputs are read and checked before the first photo is inverted. What was found is written, too, so that it can be
edited later (:func:`load_inversion`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import s2flib
from s2flib import images
from s2flib.datasets.align import align_face
from s2flib.errors import S2FError, WeightsError, printable
from s2flib.files import check_free, sha256_of, unique_stems
from s2flib.inversion.methods import BUDGETS, Budget, check_method, load_method
from s2flib.inversion.networks import NETWORKS, load_network, network_file
from s2flib.inversion.protocol import Inversion, Method, Step, Watch, pooled, synthesise
from s2flib.judges.load import perceptual_judge
from s2flib.presets import Preset, get_preset
from s2flib.stylegan2 import Generator
from s2flib.weights.load import fingerprint, load_generator, load_tensors, save_safetensors
from s2flib.weights.published import check_values

BATCH = 4  # photos at a time, with the methods that do not optimise
COLUMNS, CELL, GAP = 6, 256, 4  # of the picture of the steps: pictures in a row, at most; their side and distance, px
CHANGED = "generator."  # in the file: before the names of the tensors that replace the generator's


class Files(NamedTuple):
    """What is written for a photo: the reconstruction, a picture of all steps, and what was found."""

    picture: Path
    steps: Path
    found: Path


class Measured(NamedTuple):
    """Distances of a reconstruction from its photo, at the preset's loss_size: the mean squared error in
    [−1, 1], and the perceptual judge's."""

    mse: float
    perceptual: float


@dataclass(frozen=True)
class InvertedPhoto:
    """source: the photo's file; seconds: its share of its batch; start, end: the method's first picture and its
    result."""

    source: Path
    files: Files
    seconds: float
    start: Measured
    end: Measured


def invert_files(
    photos: Sequence[str | Path],  # image files
    out: str | Path,  # folder for the results; created if missing
    preset: str | Preset = "tiny",
    method: str = "w-plus",
    weights_file: str | Path | None = None,  # another file of the method's network; for pti: an e4e for its pivot
    align: bool = False,  # find the face and crop it as in training
    which: int | None = None,  # with align: the face to use, counted from the left, if there are several
    budget: Budget | None = None,  # of the methods that optimise; None: the preset's
    mark: bool = False,  # also add a visible SYNTHETIC strip
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> list[InvertedPhoto]:
    """Invert each photo file, and write for each

    * ``OUT/<name>_<method>.png``, the reconstruction,
    * ``OUT/<name>_<method>_steps.png``: the photo, then the method's pictures from the starting point to the result,
    * ``OUT/<name>_<method>.safetensors`` for :func:`load_inversion`.

    Photos must be framed like the generator's training data. With ``align`` the face is found and cropped, otherwise
    the centre square is taken. The PNG metadata of both pictures states that they are synthetic and how they were made.

    Raises S2FError (ImageError, WeightsError) with the file's name; nothing has then been written, unless the
    inversion or writing itself failed (a full disk).
    """
    preset, out = get_preset(preset), Path(out)
    sources = [Path(photo) for photo in photos]
    if not sources:
        raise S2FError("no photo was given: name at least one image file.")
    check_method(method)
    if which is not None and not align:
        raise S2FError("choosing a face requires face detection: add --align.")
    if out.suffix.lower() in images.SUFFIXES and not out.is_dir():
        raise S2FError(f"{out} is a picture's name, but several files are written: choose a folder, such as inverted/.")
    names = [f"{name}_{method}" for name in unique_stems(sources)]
    files = [Files(*(out / f"{name}{end}" for end in (".png", "_steps.png", ".safetensors"))) for name in names]
    check_free([file for each in files for file in each], overwrite, sources)

    pictures = torch.stack([_read(path, preset, align, which) for path in sources])
    weights_file = _network_file(method, preset, weights_file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    judge = perceptual_judge(preset).to(device)
    ready = _load(method, preset, weights_file, load_generator(preset).to(device), judge, budget)
    about = _how_made(method, preset, weights_file)
    out.mkdir(parents=True, exist_ok=True)
    done, size = [], 1 if method in BUDGETS else BATCH
    for first in range(0, len(sources), size):
        batch = pictures[first : first + size].to(device)
        found = ready.invert(batch, _watch(sources[first], progress) if method in BUDGETS else None)
        start, end = (_measured(found.trace[k], batch, judge, preset.loss_size) for k in (0, -1))
        for i in range(len(batch)):
            k, one = first + i, _only(found, i)
            made = InvertedPhoto(sources[k], files[k], one.seconds, start[i], end[i])
            _write(made, pictures[k], one, about, mark, overwrite)
            progress(
                f"{made.source}: {method}, {made.seconds:.1f} s; MSE {made.end.mse:.4f} (start {made.start.mse:.4f}), "
                f"{judge.label} {made.end.perceptual:.3f} (start {made.start.perceptual:.3f}) -> {made.files.picture}"
            )
            done.append(made)
    return done


def load_inversion(path: str | Path, preset: str | Preset = "tiny", generator: Generator | None = None) -> Inversion:
    """The inversion of one photo from a file of :func:`invert_files`: a batch of one, with an empty trace.

    Its picture is the one that was written, up to the rounding of codes and tensors to float16.

    generator: the one in front of which the photo was inverted; None: the preset's own. WeightsError for a file of
    another kind, preset or generator, or a damaged one.
    """
    p, what = get_preset(preset), str(path)
    tensors, meta = load_tensors(path, "inversion", p.name, with_metadata=True)
    generator = _made_with(meta, p, generator, what)
    own = generator.state_dict()
    w_plus, changed = tensors.pop("w_plus", None), {}
    check_values(w_plus, "w_plus", what)
    if tuple(w_plus.shape) != (generator.n_styles, generator.style_dim):
        raise WeightsError(
            f"{what} has w_plus as {tuple(w_plus.shape)} instead of {(generator.n_styles, generator.style_dim)}: the "
            "file is damaged; invert the photo again."
        )
    for key, value in tensors.items():
        name = key.removeprefix(CHANGED)
        check_values(value, key, what)
        if not key.startswith(CHANGED) or name not in own or value.shape != own[name].shape:
            raise WeightsError(
                f"{what} has {printable(key)} as {tuple(value.shape)}, which the generator does not have: the file is "
                "damaged; invert the photo again."
            )
        changed[name] = value.to(own[name])
    weights = (changed,) if changed else None
    w_plus = w_plus[None].to(generator.input.input)
    with torch.no_grad():
        picture = synthesise(generator, w_plus, weights)
    return Inversion(generator, w_plus, picture, (), float(meta.get("seconds", "nan")), weights)


def _made_with(meta: dict[str, str], p: Preset, generator: Generator | None, what: str) -> Generator:
    """The generator of a file with this metadata; WeightsError if it is neither the given nor the preset's own."""
    method = meta.get("method")
    if generator is None:
        generator = load_generator(p)
        if meta.get("decoder") != fingerprint(generator) and method in dict(p.inversion.published):
            generator = load_network(str(method), p).decoder  # published encoders have a copy of their own
    if meta.get("decoder") != fingerprint(generator):
        raise WeightsError(f"{what} was made with another generator: pass that one, or invert the photo again.")
    return generator


def _read(path: Path, preset: Preset, align: bool, which: int | None) -> Tensor:
    """One input file → (3, S, S) in [−1, 1]."""
    array = images.load_image(path)
    try:
        return images.to_photo(align_face(array, preset.size, which=which) if align else array, preset.size)
    except S2FError as error:
        raise type(error)(f"{path}: {error}") from error


def _network_file(method: str, preset: Preset, path: str | Path | None) -> Path | None:
    """The file of the method's network, or of an e4e that finds PTI's pivot; None: the method has none."""
    if method in NETWORKS:
        return network_file(method, preset) if path is None else Path(path)
    if method == "pti" and path is not None:
        return Path(path)
    if path is not None:
        raise S2FError(f"{method} has no network of its own: leave out --weights.")
    return None


def _load(
    method: str, p: Preset, path: Path | None, generator: Generator, judge: nn.Module, budget: Budget | None
) -> Method:
    if method == "pti" and path is not None:
        pivot = load_method("e4e", p, path, generator)
        return load_method(method, p, None, generator, judge, pivot, budget=budget)
    return load_method(method, p, path, generator, judge, budget=budget)


def _how_made(method: str, p: Preset, path: Path | None) -> dict[str, str]:
    """The metadata of every result: version, preset, method and the network's weights."""
    about = {"software": f"s2flib {s2flib.__version__}", "preset": p.name, "label": p.label, "method": method}
    return about if path is None else about | {"weights_sha256": sha256_of(path)}


def _watch(source: Path, progress: Callable[[str], None]) -> Watch:
    """Tells how far the only photo of a batch is."""

    def tell(step: Step) -> None:
        progress(f"  {source.name}: step {step.step}, {step.seconds:.1f} s, MSE {float(step.error[0]):.4f}")

    return tell


@torch.no_grad()
def _measured(step: Step, photos: Tensor, judge: nn.Module, size: int) -> list[Measured]:
    """The distances of a step's pictures from photos (B, 3, H, H)."""
    far = judge(pooled(step.reconstruction.to(photos), size), pooled(photos, size))
    return [Measured(*pair) for pair in zip(step.error.tolist(), far.flatten().tolist(), strict=True)]


def _only(found: Inversion, i: int) -> Inversion:
    """Photo i of a batch, with its share of the batch's time."""
    n, own = len(found.w_plus), slice(i, i + 1)
    trace = tuple(Step(s.step, s.seconds / n, s.error[own], s.reconstruction[own]) for s in found.trace)
    weights = None if found.weights is None else found.weights[own]
    return Inversion(found.generator, found.w_plus[own], found.reconstruction[own], trace, found.seconds / n, weights)


def _write(made: InvertedPhoto, photo: Tensor, one: Inversion, about: dict[str, str], mark: bool, overwrite: bool):
    """The three files of a photo (3, S, S) and its inversion."""
    state = one.generator.state_dict()
    details = about | {
        "generator": fingerprint(one.generator),
        "photo": made.source.name,
        "photo_sha256": sha256_of(made.source),
        "mse": f"{made.end.mse:.6f}",
        "perceptual": f"{made.end.perceptual:.6f}",
        "updates": str(one.trace[-1].step),
    }
    own = {} if one.weights is None else one.weights[0]
    changed = {CHANGED + k: v for k, v in own.items() if not torch.equal(v, state[k])}
    meta = {"kind": "inversion", "decoder": details["generator"], "seconds": f"{made.seconds:.3f}", "synthetic": "true"}
    save_safetensors(made.files.found, {"w_plus": one.w_plus[0], **changed}, details | meta, overwrite=overwrite)
    details |= images.inherited(made.source)[0]
    pages = [photo, *(step.reconstruction[0] for step in one.trace)]
    titles = ["photo", *(f"step {step.step}, {step.seconds:.1f} s" for step in one.trace)]
    rows = math.ceil(len(pages) / COLUMNS)
    sheet = images.contact_sheet(
        [images.to_array(page) for page in pages],
        columns=math.ceil(len(pages) / rows),
        titles=titles,
        cell=min(CELL, photo.shape[-1]),
        gap=GAP,
    )
    what = {"what": "photo, then the method's steps"}
    images.save_image(made.files.steps, sheet, metadata=details | what, overwrite=overwrite, mark=mark)
    picture = images.to_array(one.reconstruction[0])
    images.save_image(made.files.picture, picture, metadata=details, overwrite=overwrite, mark=mark)
