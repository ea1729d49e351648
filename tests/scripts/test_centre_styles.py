"""scripts/centre_styles.py: what it moves leaves every picture as it was."""

import pytest
import torch

from s2flib.psp import GradualStyleEncoder
from s2flib.stylegan2 import Generator


@pytest.fixture
def centre_styles(script):
    return script("centre_styles")


def test_every_layer_is_moved_by_its_own_row(centre_styles):
    torch.manual_seed(0)
    generator = Generator.from_preset("tiny").eval()
    w, offsets = torch.randn(2, 12, 160), torch.randn(12, 160)
    with torch.no_grad():
        before = generator.synthesis(w + offsets)
        centre_styles.move_rows(generator, offsets)
        after, untouched = generator.synthesis(w), generator.synthesis(w + offsets)
    assert torch.allclose(before, after, atol=1e-3) and not torch.allclose(before, untouched, atol=1e-2)
    layers = {id(m) for _, m in centre_styles.row_readers(generator)}
    assert layers == {id(m) for n, m in generator.named_modules() if n.endswith(".modulation")}


def test_heads_give_codes_that_much_lower(centre_styles):
    encoder = GradualStyleEncoder.from_preset("tiny").eval()
    tensors = {f"encoder.{k}": v.clone() for k, v in encoder.state_dict().items()}
    offsets, x = torch.randn(12, 160), torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        before = encoder(x)
        centre_styles.shift_heads(tensors, offsets)
        encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in tensors.items()})
        assert torch.allclose(encoder(x), before - offsets, atol=1e-4)


def test_the_shipped_rows_are_centred(centre_styles):
    from s2flib.files import weights_dir
    from s2flib.weights import safe_load

    tensors = safe_load(weights_dir() / "tiny-stylegan2-train.safetensors")
    means = centre_styles.mean_codes({k: v.float() for k, v in tensors.items()}, photos=128)
    assert (means - means.mean(0)).square().mean().sqrt() < 0.05
