"""dlib's face net: values of dlib itself, its blocks, and the converter of its weights."""

import numpy as np
import pytest
import torch
from skimage import data

from s2flib import judges
from s2flib.datasets import open_dataset
from s2flib.errors import ImageError
from s2flib.images import as_float
from s2flib.judges.dlib_resnet import DlibBlock, DlibResNet
from s2flib.judges.synthface_id import verification_auc

ASTRONAUT = data.astronaut()


@pytest.fixture(scope="module")
def dlib():
    return judges.identity_judge("tiny", role="measure")


def test_dlib_net_equals_dlib(dlib):
    with torch.no_grad():
        a = dlib.net(as_float(ASTRONAUT[30:180, 150:300])[None])[0]
        b = dlib.net(as_float(ASTRONAUT[200:350, 200:350])[None])[0]
    # by dlib 20.0.1 itself on the same pixels; the shipped weights are rounded to float16
    by_dlib = [-0.06649, 0.08572, 0.01053, 0.03397, -0.05016, -0.03965, -0.04611, -0.13849]
    np.testing.assert_allclose(a[:8], by_dlib, atol=1e-3)
    assert a.norm().item() == pytest.approx(1.36397, abs=2e-3)
    assert (a - b).norm().item() == pytest.approx(0.61448, abs=2e-3)


def test_dlib_judge_tells_synthfaces_people_apart(dlib):
    ds = open_dataset("tiny", "test", limit=60)
    x = torch.stack([ds[i]["photo"] for i in range(len(ds))])
    with torch.no_grad():
        e = dlib.embed(x)
    torch.testing.assert_close(e.norm(dim=1), torch.ones(60))
    assert verification_auc(e, torch.from_numpy(ds.identities)) > 0.95
    torch.testing.assert_close(dlib.similarity(x[:2], x[2:4]), (e[:2] * e[2:4]).sum(1), atol=1e-5, rtol=1e-4)
    assert dlib.label == "dlib ResNet"


def test_dlib_block_pads_like_add_prev():
    block = DlibBlock(1, 2, 2)
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    x = torch.arange(64.0).view(1, 1, 8, 8)
    y = block(x).detach()  # conv gives 3×3, the average-pooled input 4×4: zeros fill up
    assert y.shape == (1, 2, 4, 4)
    torch.testing.assert_close(y[:, :1], torch.nn.functional.avg_pool2d(x, 2))
    assert y[:, 1].abs().max() == 0


def test_dlib_net_refuses_other_sizes():
    with pytest.raises(ImageError, match="150"):
        DlibResNet()(torch.zeros(1, 3, 128, 128))


def test_dlib_serialisation_reader(script):
    reader = script("convert_dlib").DlibReader
    raw = bytes([0x02, 0x34, 0x12, 0x81, 0x05, 0x01, 0x03]) + b"con"
    tensor = bytes([1, 2, 1, 2, 1, 1, 1, 1, 1, 3]) + np.arange(6, dtype="<f4").tobytes()
    r = reader(raw + tensor)
    assert (r.integer(), r.integer(), r.string()) == (0x1234, -5, "con")
    np.testing.assert_array_equal(r.tensor()[:, 0, 0], [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(ValueError, match="ends inside"):
        r.integer()


def test_dlib_converter_folds_the_affine_layer(script):
    module = script("convert_dlib")
    net, rng, parts = DlibResNet(), np.random.default_rng(0), []

    def integer(v):
        return bytes([2]) + v.to_bytes(2, "little")

    def string(s):
        return bytes([1, len(s)]) + s.encode()

    def tensor(a):
        a = np.asarray(a, "<f4").ravel()
        return b"".join(map(integer, (2, 1, 1, 1))) + bytes([3]) + len(a).to_bytes(3, "little") + a.tobytes()

    convs, affines = {}, {}
    names = ["stem"] + [f"blocks.{i}.conv{j}" for i in range(14) for j in (1, 2)]
    for name in names:
        conv = net.get_submodule(name)
        convs[name] = rng.normal(size=conv.weight.numel() + conv.out_channels).astype("f4")
        affines[name] = rng.normal(size=2 * conv.out_channels).astype("f4")
        settings = (conv.out_channels, *conv.kernel_size, *conv.stride, *conv.padding)
        parts += [string("con_4"), tensor(convs[name]), *map(integer, settings)]
        parts += [string("affine_"), tensor(affines[name])]
    fc = rng.normal(size=(256, 128)).astype("f4")
    parts += [string("fc_2"), integer(128), integer(256), tensor(fc)]
    state = module.convert(b"header" + b"".join(parts))
    name = "blocks.3.conv2"
    x, conv = torch.randn(1, 64, 5, 5), net.get_submodule(name)
    weight, bias = torch.from_numpy(convs[name][:-64]).view(conv.weight.shape), torch.from_numpy(convs[name][-64:])
    gamma, beta = torch.from_numpy(affines[name]).view(2, 64, 1, 1)
    expected = torch.nn.functional.conv2d(x, weight, bias) * gamma + beta
    found = torch.nn.functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(state["fc.weight"], fc.T)
    with pytest.raises(SystemExit, match="other layers"):
        module.convert(b"".join(parts[:-4]))
