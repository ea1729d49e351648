"""Edit pairs and pipelines to test with: pictures of clouds, people as the renderer draws them, networks untrained."""

import csv
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from s2flib import images
from s2flib.instruct_pix2pix.networks import build_scheduler, build_text_encoder, build_unet, build_vae
from s2flib.instruct_pix2pix.pipeline import (
    assemble,
    load_tokenizer,
    save_pipeline,
    shipped_folder,
    update_pipeline_sums,
)
from s2flib.synthfaces import edits, phrases
from s2flib.synthfaces.render import VERSION
from s2flib.training import edit_vae as editor_vae
from s2flib.weights import save_safetensors

SIZE = 64


def close(a, b):
    """The same picture? Float sums in another order may tip the rounding."""
    return np.abs(a.astype(int) - b).max() <= 2


@pytest.fixture(scope="module", name="face")
def face_fixture(astronaut):
    return images.centre_square(astronaut, 128)


def write_pairs(folder, n=30, size=SIZE):
    """A folder of edit pairs in the layout of synthfaces.render. The edit paints a square in the mask red."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "edits.zip", "w") as archive:
        for k in range(n):
            identity = 1_000_000 + k
            kind, value, words = (
                ("hair_color", "red", "red"),
                ("eye_color", "blue", "blue"),
                ("hat", "cap", "a cap"),
                ("background", "5", ""),
                ("no_hat", "", ""),
                ("age", "60.0", "older"),
            )[k % 6]
            before = Image.fromarray(rng.integers(0, 255, (6, 6, 3)).astype(np.uint8)).resize((size, size))
            before = np.array(before)
            mask = np.zeros((size, size), np.uint8)
            mask[8:40, 8:40] = 255
            after = before.copy()
            after[16:32, 16:32] = (220, 20, 20)
            for what, picture in (("before", before), ("after", after), ("mask", np.repeat(mask[..., None], 3, 2))):
                blob = io.BytesIO()
                Image.fromarray(picture).save(blob, "WEBP", lossless=True)
                archive.writestr(f"{k:06d}_{what}.webp", blob.getvalue())
            split = {8: "val", 9: "test"}.get(k % 10, "train")
            said = phrases.instruction(kind, words, k, held_out=split != "train")
            rows.append(
                {
                    "pair": f"{k:06d}",
                    "split": split,
                    "instruction": said,
                    "identity": identity,
                    "kinds": kind,
                    "values": value,
                }
            )
    with open(folder / "edits.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "render.json").write_text(json.dumps({"seed": 0, "version": VERSION}))
    assert set(edits.WORDS["hat"]) == {"beanie", "cap", "brim"}
    return folder


@pytest.fixture(scope="session", name="pairs_folder")
def pairs_folder_fixture(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session", name="vae_file")
def vae_file_fixture(tmp_path_factory):
    """An autoencoder that has learnt nothing yet, as stage 1 would write it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    return save_safetensors(path, build_vae().state_dict(), {"kind": editor_vae.KIND, "preset": "tiny"}, half=False)


@pytest.fixture(scope="session", name="tiny_pipe")
def tiny_pipe_fixture():
    """The tiny pipeline with random weights, in memory."""
    torch.manual_seed(0)
    return assemble(
        build_unet().eval(), build_vae().eval(), build_text_encoder().eval(), load_tokenizer(), build_scheduler()
    )


@pytest.fixture(scope="session", name="tiny_pipeline_folder")
def tiny_pipeline_folder_fixture(tiny_pipe, tmp_path_factory):
    return save_pipeline(tiny_pipe, tmp_path_factory.mktemp("data") / "weights" / "tiny-instruct-pix2pix")


@pytest.fixture(name="published")
def published_fixture(_published, tmp_path, monkeypatch):
    """A cache that holds a stand-in of timbrooks/instruct-pix2pix: its classes, its file names, 4 + 4 channels."""
    monkeypatch.setenv("S2F_CACHE", str(_published.parent))
    return _published


@pytest.fixture(scope="session", name="_published")
def published_template(tmp_path_factory):
    from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(1)
    tokenizer = CLIPTokenizer.from_pretrained(shipped_folder() / "tokenizer", model_max_length=77)
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            projection_dim=16,
            max_position_embeddings=77,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=64,
        in_channels=8,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        latent_channels=4,
        mid_block_add_attention=False,
    )
    folder = tmp_path_factory.mktemp("cache") / "instruct-pix2pix"
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
    )
    assemble(unet, vae, text, tokenizer, scheduler).save_pretrained(folder)
    update_pipeline_sums(folder)
    return folder
