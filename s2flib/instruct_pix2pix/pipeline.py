"""Writes, verifies, loads and downloads edit pipelines in diffusers' layout.

The tiny pipeline is shipped in data/weights/tiny-instruct-pix2pix; its SHA256SUMS covers every file in it.
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from s2flib.errors import S2FError, WeightsError
from s2flib.files import cache_dir, sha256_of, weights_dir, write_text
from s2flib.presets import TINY, Preset, get_preset
from s2flib.weights.load import SUMS, read_sums, update_sha256sums, write_sums

PUBLISHED = "timbrooks/instruct-pix2pix"
REVISION = "31519b5cb02a7fd89b906d88731cd4d6a7bbf88d"  # a commit of that repository on the Hugging Face hub
LICENCE = (
    "MIT (timbrooks/instruct-pix2pix) on Stable Diffusion 1.5, CreativeML OpenRAIL-M: no use to deceive or "
    "harm; trained on generated pairs and LAION"
)
PARTS = ("unet", "vae", "text_encoder")  # the ones with weights


def load_tokenizer():
    """CLIP's tokenizer, from the shipped pipeline; WeightsError when it is missing."""
    from transformers import CLIPTokenizer

    folder = shipped_folder() / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        raise WeightsError(
            f"{folder} is missing: restore it from the repository, or create it with python "
            "scripts/build_clip_tokenizer.py."
        )
    return CLIPTokenizer.from_pretrained(folder)


def shipped_folder() -> Path:
    """The folder of the shipped pipeline."""
    assert TINY.edit.shipped is not None
    return weights_dir() / TINY.edit.shipped


def assemble(unet, vae, text_encoder, tokenizer, scheduler):
    """diffusers' pipeline with these parts, without a safety checker: tiny only generates synthetic faces."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    absent: Any = None  # which the annotations do not allow
    with quiet():
        pipe = StableDiffusionInstructPix2PixPipeline(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            safety_checker=absent,
            feature_extractor=absent,
            requires_safety_checker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_pipeline(pipe, folder: str | Path) -> Path:
    """Write ``folder`` in diffusers' layout, with tensors as float16 safetensors and SHA256SUMS of all files."""
    folder = Path(folder)
    halves = {k: copy.deepcopy(getattr(pipe, k)).half() for k in PARTS}
    pipe = assemble(**halves, tokenizer=pipe.tokenizer, scheduler=pipe.scheduler)
    with quiet():
        pipe.save_pretrained(folder, safe_serialization=True)
    for path in folder.glob("*/config.json"):  # remove the folder that a network was loaded from
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None):
            write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n", overwrite=True)
    update_pipeline_sums(folder)
    return folder


def update_pipeline_sums(folder: str | Path) -> Path:
    """Write SHA256SUMS for every file in a pipeline's folder; returns its path."""
    folder = Path(folder)
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != SUMS and not p.name.startswith("."))
    return write_sums(folder, sorted(files))


def update_all_sums(folder: str | Path | None = None) -> list[Path]:
    """Write SHA256SUMS for a weights folder (default: the shipped one) and its pipelines; returns their paths."""
    folder = Path(folder) if folder else weights_dir()
    return [
        update_sha256sums(folder),
        *(update_pipeline_sums(p.parent) for p in sorted(folder.glob("*/model_index.json"))),
    ]


def verify_pipeline(folder: str | Path) -> None:
    """WeightsError unless every file listed in a pipeline's SHA256SUMS matches and every weights file is listed."""
    folder = Path(folder)
    try:
        listed = read_sums(folder)
    except OSError:
        raise WeightsError(
            f"{folder / SUMS} is missing: restore {folder} with git checkout, or run "
            "python scripts/update_sha256sums.py."
        ) from None
    for name, digest in listed.items():
        if not (folder / name).is_file():
            raise WeightsError(
                f"{folder / name} is missing: restore it with git checkout, or train the pipeline "
                "with s2f train-editor."
            )
        if sha256_of(folder / name) != digest:
            raise WeightsError(
                f"{folder / name} does not match its line in {SUMS}: restore it with git checkout, or "
                "run python scripts/update_sha256sums.py if you changed it on purpose."
            )
    for path in folder.rglob("[!.]*.safetensors"):  # .*: what a kill left (files.atomic_path)
        if path.relative_to(folder).as_posix() not in listed:
            raise WeightsError(
                f"{path} is not listed in {SUMS}: run python scripts/update_sha256sums.py if you put "
                "it there on purpose."
            )


def load_pipeline(
    preset: str | Preset = "tiny",
    folder: str | Path | None = None,  # another pipeline in diffusers' layout
    device: str | None = None,  # None: the GPU if there is one
):
    """The preset's StableDiffusionInstructPix2PixPipeline, frozen; WeightsError, with the fix, when it is missing.

    On a GPU the published networks run in float16; with less than 8 GB free they stay in main memory and are moved to
    the GPU one at a time (model offload), with sliced attention. On a CPU everything is float32.
    """
    p = get_preset(preset)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if folder is not None:
        folder, own = Path(folder), (Path(folder) / SUMS).is_file()
    elif p.edit.shipped is not None:
        folder, own = weights_dir() / p.edit.shipped, True
    else:
        folder, own = published_folder(), False
    if not (folder / "model_index.json").is_file():
        raise WeightsError(
            f"there is no edit pipeline in {folder}: "
            + (
                "train it with s2f train-editor, or restore it from the repository."
                if p.edit.trained_here
                else "download it with s2f edit --fetch."
            )
        )
    if own:
        verify_pipeline(folder)
    half = device == "cuda" and p.edit.half_on_gpu
    pipe = _read(folder, torch.float16 if half else torch.float32)
    channels = (pipe.unet.config.in_channels, pipe.vae.config.latent_channels)
    if channels[0] != 2 * channels[1]:
        raise WeightsError(
            f"{folder} is not an InstructPix2Pix pipeline, because its UNet takes {channels[0]} "
            f"channels instead of twice the VAE's {channels[1]}: choose another folder."
        )
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        if half and free < 8 * 2**30:
            pipe.enable_attention_slicing()
            pipe.enable_model_cpu_offload()
            return pipe
    return pipe.to(device)


def _read(folder: Path, dtype: torch.dtype):
    """diffusers' loader, restricted to local files and safetensors; every failure becomes a WeightsError."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    import s2flib.instruct_pix2pix.unet  # noqa: F401  (diffusers finds classes in modules that are already imported)

    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch_dtype: older versions have no other name
            return StableDiffusionInstructPix2PixPipeline.from_pretrained(
                folder,
                torch_dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                safety_checker=None,
                requires_safety_checker=False,
            )
    except S2FError:
        raise
    except Exception as e:  # noqa: BLE001  (diffusers and transformers raise many types for a broken folder)
        raise WeightsError(
            f"the edit pipeline in {folder} cannot be read ({type(e).__name__}: "
            f"{str(e).splitlines()[0] if str(e) else 'no reason given'}): restore or download "
            "it again."
        ) from e


def published_folder() -> Path:
    """The folder of timbrooks/instruct-pix2pix after ``fetch_published``."""
    return cache_dir() / "instruct-pix2pix"


def fetch_published() -> Path:
    """Download timbrooks/instruct-pix2pix (float16, about 2.1 GB) once and pin it; later calls verify it.

    The commit is fixed (REVISION). The first download writes the SHA-256 of every file to SHA256SUMS, and every later
    load is checked against it (as registry.fetch does for single files).
    """
    from huggingface_hub import HfApi, snapshot_download

    folder = published_folder()
    if (folder / SUMS).is_file():
        verify_pipeline(folder)
        return folder
    print(f"{PUBLISHED}. Licence: {LICENCE}.", file=sys.stderr)
    try:
        files = HfApi().model_info(PUBLISHED, revision=REVISION).siblings
        assert files is not None  # model_info always lists them
        snapshot_download(
            PUBLISHED, revision=REVISION, local_dir=folder, allow_patterns=wanted_files([s.rfilename for s in files])
        )
    except Exception as e:  # noqa: BLE001  (the hub's client raises its own types and those of its transport)
        raise WeightsError(
            f"{PUBLISHED} could not be downloaded ({type(e).__name__}): check the network and run the "
            "same command again; it continues where it stopped."
        ) from e
    for path in sorted(folder.glob("*/*.fp16.safetensors")):  # the loader expects names without .fp16
        path.rename(path.with_name(path.name.replace(".fp16.", ".")))
    update_pipeline_sums(folder)
    warnings.warn(f"{PUBLISHED} at {REVISION[:12]} is now PINNED to the hashes in {folder / SUMS}", stacklevel=2)
    return folder


def wanted_files(names: list[str]) -> list[str]:
    """The files needed from a repository: configs, tokenizer, and each network once, in float16 if available."""
    wanted = [
        n
        for n in names
        if n == "model_index.json"
        or n.startswith(("scheduler/", "tokenizer/"))
        or n in {f"{part}/config.json" for part in PARTS}
    ]
    for part in PARTS:
        files = [n for n in names if n.startswith(f"{part}/") and n.endswith(".safetensors") and "ema" not in n]
        half = [n for n in files if ".fp16." in n]
        wanted += half or files
    return wanted


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the notices of diffusers and transformers, which concern options that are set deliberately."""
    import diffusers
    import transformers

    loggers = diffusers.utils.logging, transformers.utils.logging
    levels, bars = [each.get_verbosity() for each in loggers], transformers.utils.logging.is_progress_bar_enabled()
    for each in loggers:
        each.set_verbosity_error()
        each.disable_progress_bar()
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.set_verbosity(level)
            if bars:
                each.enable_progress_bar()
