"""Edit pipelines on disk: written, verified, read back; the published one's layout, download and pins."""

import numpy as np
import pytest
from editing_stand_in import (  # noqa: F401  (fixtures)
    close,
    face_fixture,
    published_fixture,
    published_template,
    tiny_pipe_fixture,
    tiny_pipeline_folder_fixture,
)

from s2flib.errors import ImageError, S2FError, WeightsError
from s2flib.instruct_pix2pix import edit
from s2flib.instruct_pix2pix import pipeline as edit_pipeline
from s2flib.instruct_pix2pix.inputs import frame
from s2flib.presets import COLAB

FAST = dict(steps=2)
WORDS = "make the hair blond"


def test_saved_pipeline_is_verified_and_gives_the_same_pictures(face, tiny_pipe, tiny_pipeline_folder, monkeypatch):
    monkeypatch.setenv("S2F_WEIGHTS", str(tiny_pipeline_folder.parent))
    loaded = edit_pipeline.load_pipeline("tiny", device="cpu")
    a, b = (edit(face, WORDS, pipe=p, **FAST).image.astype(int) for p in (tiny_pipe, loaded))
    assert np.abs(a - b).mean() < 2  # float16 on disk
    assert max(p.stat().st_size for p in tiny_pipeline_folder.rglob("*")) < 25e6
    assert sum(p.stat().st_size for p in tiny_pipeline_folder.rglob("*") if p.is_file()) < 40e6


def test_a_pipeline_written_again_names_no_folder_of_its_past(tiny_pipeline_folder, tmp_path):
    pipe = edit_pipeline.load_pipeline("tiny", tiny_pipeline_folder, "cpu")
    again = edit_pipeline.save_pipeline(pipe, tmp_path / "again")
    edit_pipeline.verify_pipeline(again)
    for file in [*again.rglob("*.json"), *edit_pipeline.shipped_folder().rglob("*.json")]:
        assert str(tiny_pipeline_folder) not in file.read_text() and "_name_or_path" not in file.read_text(), file


def test_a_damaged_missing_or_foreign_file_is_named(tiny_pipeline_folder, tmp_path):
    import shutil

    copy = shutil.copytree(tiny_pipeline_folder, tmp_path / "copy")
    config = copy / "unet" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(WeightsError, match="config.json does not match"):
        edit_pipeline.load_pipeline("tiny", copy)
    edit_pipeline.update_pipeline_sums(copy)
    (copy / "vae" / ".extra.0123abcd.safetensors").write_bytes(b"half")  # what a kill left
    edit_pipeline.verify_pipeline(copy)
    (copy / "vae" / "extra.safetensors").write_bytes(b"x")
    with pytest.raises(WeightsError, match="extra.safetensors is not listed"):
        edit_pipeline.load_pipeline("tiny", copy)
    (copy / "vae" / "extra.safetensors").unlink()
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError, match="is missing"):
        edit_pipeline.load_pipeline("tiny", copy)
    (copy / "SHA256SUMS").unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        edit_pipeline.load_pipeline("tiny", copy)


def test_sums_of_a_weights_folder_cover_its_pipelines(tiny_pipeline_folder):
    weights = tiny_pipeline_folder.parent
    assert [p.relative_to(weights).as_posix() for p in edit_pipeline.update_all_sums(weights)] == [
        "SHA256SUMS",
        "tiny-instruct-pix2pix/SHA256SUMS",
    ]
    lines = (tiny_pipeline_folder / "SHA256SUMS").read_text().splitlines()
    listed = {line.split(maxsplit=1)[1] for line in lines}
    assert {
        "model_index.json",
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
    } <= listed


@pytest.mark.parametrize("preset", ["colab", "paper"])
def test_the_published_layout_runs_by_the_same_call(published, astronaut, preset, tmp_path):
    made = edit(astronaut[:400], "turn her into a painting", preset=preset, steps=2)
    assert made.image.shape == (512, 640, 3) and "edited at 640×512" in made.notes[0]
    assert made.parameters["preset"] == preset and made.parameters["keep_detail"] is False
    again = edit(astronaut[:400], "turn her into a painting", preset=preset, steps=2)
    assert close(made.image, again.image)  # an ancestral sampler's noise is seeded, too
    with pytest.raises(S2FError, match="at most 75"):
        edit(astronaut, "paint her " * 100, preset=preset, steps=2)


def test_frames_for_the_published_model():
    assert frame(np.zeros((512, 512, 3), np.uint8), COLAB.edit)[0].shape == (512, 512, 3)
    assert frame(np.zeros((300, 200, 3), np.uint8), COLAB.edit)[0].shape == (768, 512, 3)
    with pytest.raises(ImageError, match="three to one"):
        frame(np.zeros((100, 900, 3), np.uint8), COLAB.edit)


def test_files_wanted_of_the_published_repository():
    names = [
        "README.md",
        "model_index.json",
        "instruct-pix2pix-00-22000.ckpt",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "safety_checker/model.safetensors",
    ]
    assert sorted(edit_pipeline.wanted_files(names)) == sorted(
        [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/vocab.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
        ]
    )


def test_a_download_is_pinned_to_a_revision_and_its_hashes(published, monkeypatch, tmp_path):
    """The hub is played by a folder: the first use records the hashes of what came, later ones hold to them."""
    import shutil
    from types import SimpleNamespace

    import huggingface_hub

    asked = []

    class Hub:
        def model_info(self, name, revision=None):
            asked.append(revision)
            files = [p.relative_to(published).as_posix() for p in published.rglob("*") if p.is_file()]
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=f) for f in files])

    def download(name, revision, local_dir, allow_patterns):
        assert (name, revision) == ("timbrooks/instruct-pix2pix", edit_pipeline.REVISION)
        for file in allow_patterns:
            target = local_dir / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(published / file, target)

    monkeypatch.setenv("S2F_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.warns(UserWarning, match="PINNED to the hashes"):
        folder = edit_pipeline.fetch_published()
    assert edit_pipeline.fetch_published() == folder and asked == ["31519b5cb02a7fd89b906d88731cd4d6a7bbf88d"]
    edit_pipeline.load_pipeline("colab", device="cpu")
    (folder / "unet" / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="does not match"):
        edit_pipeline.fetch_published()


def test_no_network_is_a_sentence(monkeypatch, tmp_path):
    import huggingface_hub

    class Hub:
        def model_info(self, *_, **__):
            raise OSError("no route to host")

    monkeypatch.setenv("S2F_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    with pytest.raises(WeightsError, match="check the network"):
        edit_pipeline.fetch_published()
