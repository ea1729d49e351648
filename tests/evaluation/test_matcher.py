"""The matcher's shapes, its crop, its gallery, and what it refuses."""

import numpy as np
import pytest
import torch
from fake_faces import Faces

from s2flib.errors import DataError, ImageError, WeightsError
from s2flib.evaluation import matcher
from s2flib.evaluation.matcher import SketchMatcher, drawing_crop, embed_drawings, embed_gallery, load_matcher
from s2flib.weights import save_safetensors


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return SketchMatcher().eval().requires_grad_(False)


def test_embeddings_have_unit_length_and_the_size_is_as_stated(net):
    out = net(torch.rand(3, 1, 96, 96))
    assert out.shape == (3, 128) and torch.allclose(out.norm(dim=1), torch.ones(3))
    parameters = sum(p.numel() for p in net.parameters())
    assert 1.4e6 < parameters < 1.8e6 and 2 * parameters < 4e6  # bytes in float16


def test_the_gallery_starts_as_the_judges_own_space(net):
    e = torch.nn.functional.normalize(torch.randn(4, 128), dim=1)
    torch.testing.assert_close(net.gallery(e), e)


def test_the_crop_is_the_face_of_a_portrait():
    """A ramp: the crop's pixel centres lie where the docstring says."""
    ramp = (torch.arange(128) + 0.5) / 128
    across = drawing_crop(ramp.expand(1, 1, 128, 128))[0, 0, 0]
    down = drawing_crop(ramp[:, None].expand(1, 1, 128, 128))[0, 0, :, 0]
    inside = (torch.arange(96) + 0.5) / 96 - 0.5
    torch.testing.assert_close(across, 0.5 + matcher.SIDE * inside, atol=1e-3, rtol=0)
    torch.testing.assert_close(down, 0.55 + matcher.SIDE * inside, atol=1e-3, rtol=0)


def test_embedding_in_batches_is_embedding_one_by_one(net):
    drawings = torch.rand(5, 1, 128, 128)
    several = embed_drawings(net, drawings, batch=2)
    for i in range(5):
        np.testing.assert_allclose(several[i], net(drawing_crop(drawings[i : i + 1]))[0], atol=1e-5)


def test_gallery_of_a_data_set(net):
    class Judge:
        def embed(self, x):
            assert x.shape[-1] == 64
            return torch.nn.functional.pad(x.mean((2, 3)), (0, 125))

    faces = Faces(3, 1)
    got = embed_gallery(net, faces, Judge(), 64, batch=2)
    expected = torch.nn.functional.normalize(torch.stack([p.mean((1, 2)) for p in faces.photos]), dim=1)
    assert got.shape == (3, 128)
    np.testing.assert_allclose(got[:, :3], expected, atol=1e-5)


def test_saved_and_loaded(net, tmp_path):
    path = save_safetensors(tmp_path / "m.safetensors", net.state_dict(), {"kind": matcher.KIND}, half=False)
    x = torch.rand(2, 1, 128, 128)
    np.testing.assert_allclose(embed_drawings(load_matcher(path), x), embed_drawings(net, x), atol=1e-6)
    with pytest.raises(WeightsError):
        load_matcher(save_safetensors(tmp_path / "o.safetensors", net.state_dict(), {"kind": "other"}))


@pytest.mark.parametrize("shape", [(1, 3, 128, 128), (1, 128, 128), (1, 1, 128, 96)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ImageError, match="grey, square"):
        drawing_crop(torch.zeros(shape))


def test_refusals(net):
    with pytest.raises(ImageError, match="drawing_crop"):
        net(torch.zeros(1, 1, 64, 64))
    with pytest.raises(DataError, match="no drawings"):
        embed_drawings(net, torch.zeros(0, 1, 128, 128))
