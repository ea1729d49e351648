"""Edit pipelines on disk, in diffusers' layout: written, listed, verified, loaded, and the published one fetched.

The tiny pipeline is shipped in data/weights/tiny-instruct-pix2pix; its SHA256SUMS covers every file below it.
"""

from __future__ import annotations

import copy
import json
import sys
import warnings
from pathlib import Path

import torch

from s2flib.errors import S2FError, WeightsError
from s2flib.files import atomic_path, cache_dir, sha256_of, weights_dir, write_text
from s2flib.presets import TINY, Preset, get_preset
from s2flib.weights.load import SUMS, update_sha256sums

PUBLISHED = "timbrooks/instruct-pix2pix"
REVISION = "31519b5cb02a7fd89b906d88731cd4d6a7bbf88d"          # a commit of that repository on the Hugging Face hub
LICENCE = ("MIT (timbrooks/instruct-pix2pix) on Stable Diffusion 1.5, CreativeML OpenRAIL-M: no use to deceive or "
           "harm; trained on generated pairs and LAION")
PARTS = ("unet", "vae", "text_encoder")              # those with weights


def load_tokenizer(folder: str | Path | None = None):
    """CLIP's tokenizer, from a pipeline's folder (default: the shipped one); WeightsError when it is not there."""
    from transformers import CLIPTokenizer

    folder = Path(folder) if folder else shipped_folder()
    if not (folder / "tokenizer" / "tokenizer.json").is_file():
        raise WeightsError(f"{folder / 'tokenizer'} is missing: restore it from the repository, or make it with "
                           "python scripts/build_clip_tokenizer.py.")
    return CLIPTokenizer.from_pretrained(folder / "tokenizer")


def shipped_folder() -> Path:
    """Where the shipped pipeline is."""
    return weights_dir() / TINY.edit.shipped


# --- on disk ----------------------------------------------------------------------------------------------------


def assemble(unet, vae, text_encoder, tokenizer, scheduler):
    """diffusers' pipeline of these parts; no safety checker: every part here draws faces of nobody."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    with quiet():
        pipe = StableDiffusionInstructPix2PixPipeline(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
            safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_pipeline(pipe, folder: str | Path, card: str = "") -> Path:
    """Write ``folder`` in diffusers' layout, tensors as float16 safetensors, with SHA256SUMS over all of it."""
    folder = Path(folder)
    halves = {k: copy.deepcopy(getattr(pipe, k)).half() for k in PARTS}
    pipe = assemble(**halves, tokenizer=pipe.tokenizer, scheduler=pipe.scheduler)
    with quiet():
        pipe.save_pretrained(folder, safe_serialization=True)
    for path in folder.glob("*/config.json"):            # a network that was read from a folder would name it
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None):
            write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n", overwrite=True)
    if card:
        write_text(folder / "README.md", card, overwrite=True)
    update_pipeline_sums(folder)
    return folder


def update_pipeline_sums(folder: str | Path) -> Path:
    """SHA256SUMS (sha256sum's format, paths relative to ``folder``) over every file below a pipeline's folder."""
    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SUMS and not p.name.startswith("."))
    with atomic_path(folder / SUMS) as part:
        Path(part).write_text("".join(f"{sha256_of(p)}  {p.relative_to(folder).as_posix()}\n" for p in files))
    return folder / SUMS


def update_all_sums(folder: str | Path | None = None) -> list[Path]:
    """SHA256SUMS of a weights folder (default: the shipped one) and of every pipeline in it; → the files written."""
    folder = Path(folder) if folder else weights_dir()
    return [update_sha256sums(folder), *(update_pipeline_sums(p.parent)
                                         for p in sorted(folder.glob("*/model_index.json")))]


def verify_pipeline(folder: str | Path) -> None:
    """Every file of a pipeline's folder must be listed in its SHA256SUMS with its hash, and be there."""
    folder = Path(folder)
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except OSError:
        raise WeightsError(f"{folder / SUMS} is missing: restore {folder} with git checkout, or run "
                           "python scripts/update_sha256sums.py.") from None
    for line in filter(str.strip, lines):
        digest, name = line.split(maxsplit=1)
        if not (folder / name).is_file():
            raise WeightsError(f"{folder / name} is missing: restore it with git checkout, or train the pipeline "
                               "with s2f train-editor.")
        if sha256_of(folder / name) != digest:
            raise WeightsError(f"{folder / name} does not match its line in {SUMS}: restore it with git checkout, or "
                               "run python scripts/update_sha256sums.py if you changed it on purpose.")
    listed = {line.split(maxsplit=1)[1] for line in lines if line.strip()}
    for path in folder.rglob("*.safetensors"):
        if path.relative_to(folder).as_posix() not in listed:
            raise WeightsError(f"{path} is not listed in {SUMS}: run python scripts/update_sha256sums.py if you put "
                               "it there on purpose.")


def load_pipeline(
    preset: str | Preset = "tiny",
    folder: str | Path | None = None,      # a pipeline of your own, in diffusers' layout
    device: str | None = None,             # None: the GPU if there is one
):
    """The preset's StableDiffusionInstructPix2PixPipeline, frozen and ready; WeightsError says how to get it.

    On a GPU the published networks run in float16; with less than 8 GB free they stay in main memory and take turns
    on the GPU (model offload), with attention computed in slices. On a CPU everything is float32.
    """
    p = get_preset(preset)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if folder is None:
        own = p.edit.shipped is not None
        folder = weights_dir() / p.edit.shipped if own else published_folder()
    else:
        folder, own = Path(folder), (Path(folder) / SUMS).is_file()
    if not (folder / "model_index.json").is_file():
        raise WeightsError(f"there is no edit pipeline in {folder}: " + (
            "train it with s2f train-editor, or restore it from the repository." if p.edit.trained_here else
            "fetch it with s2f edit --fetch."))
    if own:
        verify_pipeline(folder)
    half = device == "cuda" and p.edit.half_on_gpu
    pipe = _read(folder, torch.float16 if half else torch.float32)
    channels = (pipe.unet.config.in_channels, pipe.vae.config.latent_channels)
    if channels[0] != 2 * channels[1]:
        raise WeightsError(f"{folder} is no InstructPix2Pix pipeline: its UNet takes {channels[0]} channels, and twice "
                           f"the VAE's {channels[1]} are needed.")
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
    """diffusers' reader, local files and safetensors only; whatever fails in it becomes one sentence."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    import s2flib.instruct_pix2pix.unet  # noqa: F401  (diffusers takes classes from modules that are imported already)

    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)    # torch_dtype: older versions know no other name
            return StableDiffusionInstructPix2PixPipeline.from_pretrained(
                folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, safety_checker=None,
                requires_safety_checker=False)
    except S2FError:
        raise
    except Exception as e:  # noqa: BLE001  (diffusers and transformers raise a dozen kinds for a broken folder)
        raise WeightsError(f"the edit pipeline in {folder} cannot be read ({type(e).__name__}: "
                           f"{str(e).splitlines()[0] if str(e) else 'no reason given'}): restore or fetch it "
                           "again.") from e


# --- the published one ------------------------------------------------------------------------------------------


def published_folder() -> Path:
    """Where ``fetch_published`` puts timbrooks/instruct-pix2pix."""
    return cache_dir() / "instruct-pix2pix"


def fetch_published() -> Path:
    """Download timbrooks/instruct-pix2pix (float16, about 2.1 GB) once, and pin it; later calls verify it.

    The commit is fixed (REVISION). The SHA-256 of every file that came is written into SHA256SUMS at the first
    download, and every later load is held to it (as registry.fetch does for single files).
    """
    from huggingface_hub import HfApi, snapshot_download

    folder = published_folder()
    if (folder / SUMS).is_file():
        verify_pipeline(folder)
        return folder
    print(f"{PUBLISHED}. Licence: {LICENCE}.", file=sys.stderr)
    try:
        info = HfApi().model_info(PUBLISHED, revision=REVISION)
        snapshot_download(PUBLISHED, revision=REVISION, local_dir=folder,
                          allow_patterns=wanted_files([s.rfilename for s in info.siblings]))
    except Exception as e:  # noqa: BLE001  (the hub's client raises its own kinds, and its transport's)
        raise WeightsError(f"{PUBLISHED} could not be downloaded ({type(e).__name__}): check the network and run the "
                           "same command again, which goes on where it stopped.") from e
    for path in sorted(folder.glob("*/*.fp16.safetensors")):      # the plain names are what is loaded
        path.rename(path.with_name(path.name.replace(".fp16.", ".")))
    update_pipeline_sums(folder)
    warnings.warn(f"{PUBLISHED} at {REVISION[:12]} is now PINNED to the hashes in {folder / SUMS}", stacklevel=2)
    return folder


def wanted_files(names: list[str]) -> list[str]:
    """Of a repository: the settings, the tokenizer, and each network once, in float16 where there is such a file."""
    wanted = [n for n in names if n == "model_index.json" or n.startswith(("scheduler/", "tokenizer/"))
              or n in {f"{part}/config.json" for part in PARTS}]
    for part in PARTS:
        files = [n for n in names if n.startswith(f"{part}/") and n.endswith(".safetensors") and "ema" not in n]
        half = [n for n in files if ".fp16." in n]
        wanted += half or files
    return wanted


class quiet:
    """``with quiet():`` diffusers' and transformers' notices stay silent (they are about options we set on purpose)."""

    def __enter__(self):
        import diffusers
        import transformers

        self.loggers = diffusers.utils.logging, transformers.utils.logging
        self.levels = [each.get_verbosity() for each in self.loggers]
        self.bars = transformers.utils.logging.is_progress_bar_enabled()
        for each in self.loggers:
            each.set_verbosity_error()
            each.disable_progress_bar()

    def __exit__(self, *_):
        for each, level in zip(self.loggers, self.levels, strict=True):
            each.set_verbosity(level)
            if self.bars:
                each.enable_progress_bar()
