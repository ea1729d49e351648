"""The edit pipeline's stages one after the other, by their command."""

import torch
from editing_stand_in import pairs_folder_fixture  # noqa: F401  (fixtures)
from typer.testing import CliRunner

from s2flib.cli import app as cli
from s2flib.instruct_pix2pix import pipeline as edit_pipeline
from s2flib.training import edit_vae as editor_vae
from s2flib.weights import load_tensors


def test_command_trains_all_stages_and_lists_its_fields(pairs_folder, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(cli.app, ["train-editor", "--pairs", str(pairs_folder), *map(str, arguments)])

    small = ["--limit", 4, "--cpu", "--mixed-precision", "no", "--set", "vae.photos=false"]
    for field in (
        "vae.steps=1",
        "vae.batch=2",
        "unet.steps=1",
        "unet.batch=2",
        "unet.pretrain_text=1",
        "decoder.steps=2",
        "decoder.batch=2",
        "decoder.photos=false",
    ):
        small += ["--set", field]
    done = run("-o", tmp_path / "run", *small)
    assert done.exit_code == 0, done.output
    pipe = edit_pipeline.load_pipeline("tiny", tmp_path / "run" / "unet" / "pipeline")
    first, last = (
        load_tensors(tmp_path / "run" / name / "vae.safetensors", editor_vae.KIND) for name in ("vae", "decoder")
    )
    for key, tensor in pipe.vae.state_dict().items():  # the encoder of stage 1, the decoder of stage 3
        assert torch.equal(tensor.half(), last[key].half())
        assert torch.equal(first[key], last[key]) or key.startswith(("decoder.", "post_quant_conv."))
    assert not torch.equal(first["decoder.conv_in.weight"], last["decoder.conv_in.weight"])
    assert "focus" in run("-o", tmp_path, "--list").output
    for bad in (
        ["--stage", "x"],
        ["--set", "steps=3"],
        ["--set", "vae.nothing=3"],
        ["-p", "colab"],
        ["--stage", "unet"],
        ["--stage", "decoder"],
    ):
        refused = run("-o", tmp_path / "other", *bad)
        assert refused.exit_code == 2 and len(refused.output.strip().splitlines()) == 1, refused.output
