"""The tiny pipeline's UNet: the sum, and that diffusers alone reads it back."""

import json
import subprocess
import sys

import pytest
import torch
from diffusers import UNet2DConditionModel

from s2flib.instruct_pix2pix.networks import SIZE, build_scheduler, build_text_encoder, build_unet, build_vae
from s2flib.instruct_pix2pix.pipeline import assemble, load_pipeline, load_tokenizer, save_pipeline
from s2flib.instruct_pix2pix.unet import ResidualUNet


@torch.no_grad()
def test_what_the_net_says_is_added_to_the_scaled_picture():
    torch.manual_seed(0)
    unet = build_unet().eval()
    plain = UNet2DConditionModel.from_config(unet.config).eval()
    weights = unet.state_dict()
    assert weights.pop("picture_scale") == 1
    plain.load_state_dict(weights)
    unet.picture_scale.fill_(0.3)
    noisy, picture, words = torch.randn(2, 16, 16, 16), torch.randn(2, 16, 16, 16), torch.randn(2, 5, 96)
    sample, t = torch.cat([noisy, picture], 1), torch.tensor([10, 900])
    expected = plain(sample, t, words).sample + 0.3 * picture
    assert torch.allclose(unet(sample, t, words).sample, expected, atol=1e-6)
    as_tuple = unet(sample, t, encoder_hidden_states=words, return_dict=False)
    assert torch.equal(as_tuple[0], unet(sample, t, words).sample)
    nothing = torch.cat([noisy, torch.zeros_like(picture)], 1)  # no picture: nothing is added
    assert torch.allclose(unet(nothing, t, words).sample, plain(nothing, t, words).sample, atol=1e-6)


def test_diffusers_reads_it_back_by_itself(tmp_path):
    from diffusers import DiffusionPipeline

    torch.manual_seed(0)
    unet = build_unet().eval()
    unet.picture_scale.fill_(0.25)
    pipe = assemble(unet, build_vae().eval(), build_text_encoder().eval(), load_tokenizer(), build_scheduler())
    folder = save_pipeline(pipe, tmp_path / "pipe")
    index = json.loads((folder / "model_index.json").read_text())
    assert index["unet"] == ["s2flib.instruct_pix2pix.unet", "ResidualUNet"]
    for read in (DiffusionPipeline.from_pretrained(folder, safety_checker=None), load_pipeline("tiny", folder, "cpu")):
        assert type(read.unet) is ResidualUNet and read.unet.picture_scale.item() == 0.25
        assert read.unet.config.cross_attention_dim == SIZE.text_width
        assert read.unet.config.layers_per_block == list(SIZE.unet_layers)
        for name, tensor in unet.state_dict().items():
            assert torch.equal(tensor.half(), read.unet.state_dict()[name].half()), name
    code = (
        f"from s2flib.instruct_pix2pix.pipeline import load_pipeline as load; print(load('tiny', {str(folder)!r}).unet)"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # nothing imported yet
    assert "ResidualUNet" in fresh.stdout, fresh.stderr


def test_a_picture_scale_that_is_missing_is_an_error(tmp_path):
    """A plain UNet's file is not read as this one's in silence."""
    plain = UNet2DConditionModel.from_config(build_unet().config)
    with pytest.raises(RuntimeError, match="picture_scale"):
        build_unet().load_state_dict(plain.state_dict())
