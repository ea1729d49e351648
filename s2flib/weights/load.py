"""Reads and writes weights without running code from them, and verifies them.

Shipped weights are in ``data/weights`` with a ``SHA256SUMS``; published ones are downloaded once into the cache
(:mod:`s2flib.weights.registry`).
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from s2flib.errors import WeightsError, printable
from s2flib.files import atomic_path, sha256_of, trained_dir, weights_dir
from s2flib.input_distance import InputDistance
from s2flib.presets import Preset, get_preset
from s2flib.psp import PSP, GradualStyleEncoder
from s2flib.stylegan2 import Generator
from s2flib.weights.published import (
    IRSE50,
    build_ir_se50,
    build_psp,
    check_latent_avg,
    input_channels,
    load_strict,
    load_stylegan2,
    mean_style,
    read_psp,
    under,
)
from s2flib.weights.registry import fetch
from s2flib.weights.sniff import ADVICE, sniff

SUMS = "SHA256SUMS"
Network = TypeVar("Network", bound=nn.Module)


def safe_load(path: str | Path, with_metadata: bool = False) -> Any:
    """The contents of a weights file, on the CPU, read without running code from it.

    ``.safetensors`` → dict of tensors as stored (often float16). Anything else → torch.load with
    ``weights_only=True``: tensors, containers, numbers and strings. A file in ``data/weights`` must match its line in
    SHA256SUMS. With ``with_metadata``: (contents, dict of the safetensors metadata, otherwise empty). A file that is
    missing, empty or damaged, or a pickle that runs code → WeightsError.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}: check the path, or train or download it first.")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty: download or train it again.")
    if (kind := sniff(path)) is not None:
        raise WeightsError(f"{path} is {kind}: {ADVICE[kind]}.")
    verify_shipped(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as f:
                contents = {k: f.get_tensor(k) for k in f.keys()}
                metadata = dict(f.metadata() or {})
        else:
            _check_packing(path)
            # rosinality's and pSp's files store their options in a Namespace, which contains only values
            with torch.serialization.safe_globals([argparse.Namespace]):
                contents, metadata = torch.load(path, map_location="cpu", weights_only=True), {}
    except Exception as e:  # the parsers of foreign formats raise anything
        if isinstance(e, pickle.UnpicklingError) and re.search("unsupported (global|class)", str(e), re.IGNORECASE):
            raise WeightsError(
                f"{path} is a pickle that would run code, so it was not opened: use weights saved as "
                "safetensors or as plain tensors."
            ) from e
        raise WeightsError(f"{path} is damaged or not a weights file: download or train it again.") from e
    _check_storage(contents, path)
    return (contents, metadata) if with_metadata else contents


def _check_packing(path: Path) -> None:
    """ValueError for a torch archive that unpacks to far more than its own size: torch itself never packs."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > 2 * path.stat().st_size + (1 << 20):
            raise ValueError(f"it unpacks to {unpacked:,} bytes")


def _check_storage(contents: Any, path: Path) -> None:
    """WeightsError for a tensor that claims more values than the file stores for it (a view that repeats a few): it
    would take memory that its file size does not show as soon as it is converted."""
    waiting, seen = [contents], set()
    while waiting:  # not recursive: a damaged file may contain itself
        value = waiting.pop()
        if isinstance(value, Tensor):
            dense = value.layout == torch.strided and not value.is_meta
            if dense and value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise WeightsError(
                    f"{path} is damaged (a tensor of {tuple(value.shape)} stores fewer values than that)."
                )
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, Mapping) else value


def save_safetensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    half: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write tensors and metadata (by convention "kind" and "preset") atomically; returns the path.

    half: floating tensors are stored as float16, except those with values outside its range. An existing file raises
    WeightsError unless ``overwrite``.
    """
    path, out = Path(path), {}
    for key, value in tensors.items():
        value = value.detach().cpu()
        if half and value.is_floating_point() and not (value.abs() > 65504).any():
            value = value.half()
        out[key] = value.contiguous().clone()  # safetensors refuses tensors that share memory
    if path.exists() and not overwrite:
        raise WeightsError(f"{path} exists already: choose another name or pass overwrite=True.")
    with atomic_path(path) as part:
        save_file(out, part, {k: str(v) for k, v in metadata.items()})
        part.chmod(0o644)  # safetensors creates files that only the owner can read
    return path


def verify_shipped(path: str | Path) -> None:
    """WeightsError if a file in ``data/weights`` does not have the hash listed in SHA256SUMS."""
    path = Path(path).resolve()
    sums = weights_dir().resolve() / SUMS
    if path.parent != sums.parent or not sums.exists():
        return
    listed = read_sums(sums.parent)
    if path.name not in listed:
        raise WeightsError(
            f"{path.name} is not listed in {sums}: run python scripts/update_sha256sums.py if "
            "you put it there on purpose."
        )
    if sha256_of(path) != listed[path.name]:
        raise WeightsError(
            f"{path} does not match its line in {SUMS}: restore it with git checkout, or run "
            "python scripts/update_sha256sums.py if you changed it on purpose."
        )


def update_sha256sums(folder: str | Path | None = None) -> Path:
    """Write SHA256SUMS for every ``.safetensors`` file in ``data/weights`` (or another folder); returns its path."""
    folder = Path(folder) if folder else weights_dir()
    return write_sums(folder, sorted(folder.glob("[!.]*.safetensors")))  # .*: what a kill left (files.atomic_path)


def write_sums(folder: Path, files: Iterable[Path]) -> Path:
    """Write ``folder``/SHA256SUMS (the format of sha256sum, relative paths) for these files; returns its path."""
    with atomic_path(folder / SUMS) as part:
        part.write_text("".join(f"{sha256_of(p)}  {p.relative_to(folder).as_posix()}\n" for p in files))
    return folder / SUMS


def read_sums(folder: Path) -> dict[str, str]:
    """File → hash, as listed in ``folder``/SHA256SUMS."""
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    found = [re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line) for line in lines if line.strip()]
    if not all(found):
        raise WeightsError(
            f"{folder / SUMS} is damaged: restore it with git checkout, or run python scripts/update_sha256sums.py."
        )
    return {line[2]: line[1] for line in found if line}


def load_tensors(path: str | Path, kind: str, preset: str | None = None, with_metadata: bool = False) -> Any:
    """Float32 tensors of a safetensors file whose metadata has this ``kind`` and, if given, this ``preset``.

    With ``with_metadata``: (tensors, metadata). Another kind or preset → WeightsError.
    """
    tensors, meta = safe_load(path, with_metadata=True)
    for key, wanted in (("kind", kind), ("preset", preset)):
        if wanted is not None and meta.get(key) != wanted:
            what = "a checkpoint of another preset" if key == "preset" else "another kind of checkpoint"
            raise WeightsError(
                f"{path} is {what} ({printable(meta.get(key, 'not stated'))}, not {wanted}): choose a "
                f"file that was saved as {wanted}."
            )
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    return (tensors, meta) if with_metadata else tensors


def load_network(network: Network, path: str | Path, kind: str) -> Network:
    """Load all tensors of a network from a safetensors file of this ``kind``; returns it, frozen, in eval mode."""
    load_strict(network, load_tensors(path, kind), str(path))
    return network.requires_grad_(False).eval()


def fingerprint(module: nn.Module) -> str:
    """16 hex digits of a hash of a module's tensors, rounded to float16: the same before saving and after loading."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_generator(preset: str | Preset, path: str | Path | None = None) -> Generator:
    """The preset's trained StyleGAN2, in eval mode and frozen, with w̄ (style_dim,) in its buffer latent_avg.

    path: another file instead of the preset's: ``.safetensors`` as written by training (the generator's tensors and
    latent_avg), or a ``.pt`` in the published layout. tiny is shipped; colab and paper are downloaded.
    """
    p = get_preset(preset)
    generator = Generator.from_preset(p)
    if path is None:
        path = weights_dir() / p.shipped_generator if p.shipped_generator else fetch(p.published_generator or "")
    path = Path(path)
    if path.suffix == ".safetensors":
        tensors = load_tensors(path, "stylegan2", p.name)
        latent_avg = tensors.pop("latent_avg", None)
        load_strict(generator, tensors, str(path))
        latent_avg = generator.mean_latent() if latent_avg is None else mean_style(latent_avg, p.style_dim, str(path))
    else:
        latent_avg = load_stylegan2(generator, safe_load(path), str(path))
    generator.register_buffer("latent_avg", latent_avg, persistent=False)
    return generator.eval().requires_grad_(False)


def save_psp(
    path: str | Path, psp: PSP, preset: str | Preset, metadata: Mapping[str, str] | None = None, overwrite: bool = False
) -> Path:
    """Write encoder.*, latent_avg and typical.* as float16 safetensors that :func:`load_psp` reads; not the decoder.

    The metadata contains the decoder's fingerprint, because an encoder fits only the generator it was trained with.
    """
    tensors = {k: v for k, v in psp.state_dict().items() if not k.startswith("decoder.")}
    meta = {**(metadata or {}), "kind": "psp", "preset": get_preset(preset).name, "decoder": fingerprint(psp.decoder)}
    return save_safetensors(path, tensors, meta, overwrite=overwrite)


def psp_file(preset: str | Preset, path: str | Path | None = None) -> Path:
    """The file of a sketch encoder: ``path``, or the preset's, which is downloaded first if it is not shipped."""
    p = get_preset(preset)
    if path is not None:
        return Path(path)
    if p.shipped_psp:
        return weights_dir() / p.shipped_psp
    if p.published_psp:
        return fetch(p.published_psp)
    trained = trained_dir() / p.name / "encoder.safetensors"
    if not trained.is_file():
        raise WeightsError(
            f"no sketch encoder at {p.size} px is published: train one in notebook 06, or with s2f train --preset "
            f"{p.name} -o {trained.parent}, where it is then found."
        )
    return trained


def load_psp(
    preset: str | Preset, path: str | Path | None = None, generator: str | Path | None = None, input_nc: int = 1
) -> PSP:
    """The preset's sketch-to-face model, in eval mode and frozen (:meth:`s2flib.psp.PSP.for_inference`).

    path:       an encoder of your own (``.safetensors`` by :func:`save_psp`), or a published ``psp_*.pt``;
                None means the preset's own: shipped under tiny, fetched under paper, under colab the one that you
                trained (:func:`s2flib.files.trained_dir`)
    generator:  the generator file behind it, when that is not the preset's own either
    input_nc:   the channels that the encoder must read: 1 for sketches, 3 for photos
    A checkpoint of another preset or kind, or an encoder trained with another generator → WeightsError.
    """
    p, path = get_preset(preset), psp_file(preset, path)
    if path.suffix != ".safetensors":
        checkpoint = safe_load(path)
        n_styles = read_psp(checkpoint, str(path)).n_styles
        if n_styles != p.n_styles:
            raise WeightsError(
                f"{path} is a checkpoint of another preset ({n_styles} styles, not {p.n_styles}): "
                f"choose one for {p.size} px."
            )
        return _reads(build_psp(checkpoint, str(path)), input_nc, path)
    tensors, meta = load_tensors(path, "psp", p.name, with_metadata=True)
    if "latent_avg" not in tensors or "encoder.input_layer.0.weight" not in tensors:
        raise WeightsError(f"{path} lacks latent_avg or the encoder: save it with s2flib.weights.load.save_psp.")
    state = under(tensors, "encoder.")
    encoder = GradualStyleEncoder.from_preset(p, input_channels(state, str(path)))
    load_strict(encoder, state, str(path))
    decoder = load_generator(p, generator)
    if meta.get("decoder", "") not in ("", fingerprint(decoder)):
        raise WeightsError(
            f"{path} was trained with another generator: pass the generator file it was trained with, "
            "or train the encoder again."
        )
    check_latent_avg(tensors["latent_avg"], encoder.n_styles, encoder.style_dim, str(path))
    typical, measured = None, under(tensors, "typical.")
    if measured:
        typical = InputDistance(p.encoder_widths[-1])
        load_strict(typical, measured, str(path))
    return _reads(PSP(encoder, decoder, tensors["latent_avg"], typical), input_nc, path)


def _reads(psp: PSP, input_nc: int, path: Path) -> PSP:
    """The model, if its encoder reads images of this many channels."""
    found, kinds = psp.encoder.input_nc, {1: "sketches", 3: "photos"}
    if found != input_nc:
        raise WeightsError(
            f"{path} reads {kinds.get(found, f'{found}-channel maps')}, not {kinds.get(input_nc, 'this input')}: use "
            "another encoder, such as psp-sketch for sketches."
        )
    return psp.for_inference()


def load_ir_se50() -> IRSE50:
    """ArcFace's IR-SE-50, downloaded, frozen, in eval mode; see :class:`s2flib.weights.published.IRSE50`."""
    path = fetch("ir-se50")
    return build_ir_se50(safe_load(path), str(path))
