"""s2f generate: the files it writes, and checkpoints it refuses."""

import os

import torch
from commands import refused, s2f
from PIL import Image
from stand_in import drawing

from s2flib import weights
from s2flib.psp import PSP


def test_generate(stand_in, page, tmp_path):
    result = s2f("generate", page, "-o", tmp_path / "out", "--n", 2, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "overview.png",
        "page_face_1.png",
        "page_face_2.png",
    ]
    assert "synthetic" in result.output and "overview.png" in result.output
    refused(s2f("generate", page, "-o", tmp_path / "out"), "exists already", "--overwrite")
    assert s2f("generate", page, "-o", tmp_path / "out", "--n", 1, "--overwrite").exit_code == 0


def test_generate_says_what_it_did_to_the_drawing(stand_in, tmp_path):
    Image.fromarray(255 - drawing()).save(tmp_path / "chalk.png")
    result = s2f("generate", tmp_path / "chalk.png", "-o", tmp_path / "out", "--n", 1)
    assert result.exit_code == 0 and "chalk.png: light lines on a dark background: inverted" in result.output


def test_another_presets_checkpoint(stand_in, page, tmp_path):
    model = PSP.from_preset("tiny")
    other = weights.save_safetensors(
        tmp_path / "other.safetensors", model.encoder.state_dict(), {"kind": "psp", "preset": "colab"}
    )
    refused(s2f("generate", page, "-o", tmp_path / "out", "--weights", other), "preset", "other.safetensors")
    refused(
        s2f("generate", page, "-o", tmp_path / "out", "--weights", stand_in / "weights" / "tiny-stylegan2.safetensors"),
        "checkpoint",
    )
    assert not (tmp_path / "out").exists()


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_pickle_with_code_is_not_run(stand_in, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    refused(s2f("generate", page, "-o", tmp_path / "out", "--weights", tmp_path / "evil.pt"), "evil.pt", "code")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_missing_and_damaged_weights(stand_in, page, tmp_path):
    refused(s2f("generate", page, "-o", tmp_path / "out", "--weights", tmp_path / "no.safetensors"), "no.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((stand_in / "weights" / "tiny-psp.safetensors").read_bytes()[:5000])
    refused(s2f("generate", page, "-o", tmp_path / "out", "--weights", cut), "cut.safetensors", "damaged")
