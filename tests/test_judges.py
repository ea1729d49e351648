"""The judges: values against the original implementations, labels, and what happens without weights."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage import data

from s2flib import judges, registry
from s2flib.dlibnet import DlibBlock, DlibResNet
from s2flib.errors import ImageError, S2FError, WeightsError
from s2flib.faceid import SynthFaceID, face_crop, rank_1, verification_auc
from s2flib.presets import PRESETS, TINY
from s2flib.stlpips import STLPIPS, BlurPool, conv_blurpool

ROOT = Path(__file__).parents[1]
ASTRONAUT = data.astronaut()


def photo(array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.fixture(scope="module")
def st_lpips():
    return judges.perceptual_judge("tiny")


@pytest.fixture(scope="module")
def dlib():
    return judges.identity_judge("tiny", role="measure")


@pytest.fixture
def script(monkeypatch):
    """Imports a file of scripts/."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


# --- ST-LPIPS --------------------------------------------------------------------------------------------------

FACE = ASTRONAUT[30:158, 160:288]


@pytest.mark.parametrize("other, published", [       # values by the authors' package stlpips_pytorch 0.0.2
    (ASTRONAUT[200:328, 200:328], 0.6210147738456726),
    (np.roll(FACE, 1, 1), 0.005375258158892393),          # one pixel to the right: hardly any distance
    (FACE[::-1], 0.527010440826416),
])  # fmt: skip
def test_st_lpips_equals_the_authors_package(st_lpips, other, published):
    assert st_lpips(photo(FACE), photo(other)).item() == pytest.approx(published, abs=3e-4, rel=1e-2)


def test_st_lpips_is_a_labelled_batched_frozen_distance(st_lpips):
    x = torch.rand(3, 3, 48, 40) * 2 - 1
    y = torch.rand(3, 3, 48, 40) * 2 - 1
    assert st_lpips.label == "ST-LPIPS (alex)"
    assert not any(p.requires_grad for p in st_lpips.parameters())
    d = st_lpips(x, y)
    assert d.shape == (3,) and (d > 0).all()
    torch.testing.assert_close(d, st_lpips(y, x))
    torch.testing.assert_close(d[1:2], st_lpips(x[1:2], y[1:2]))
    assert st_lpips(x, x).abs().max() == 0


def test_st_lpips_is_float32_under_autocast(st_lpips):
    x = torch.rand(4, 3, 128, 128) * 2 - 1
    y = (x + 0.05 * torch.randn_like(x)).requires_grad_()
    want, = torch.autograd.grad(st_lpips(x, y).sum(), y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = st_lpips(x, y)
    got, = torch.autograd.grad(mixed.sum(), y)
    torch.testing.assert_close(mixed, st_lpips(x, y))
    torch.testing.assert_close(got, want)


def test_st_lpips_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    net = STLPIPS().double()
    for p in net.parameters():
        torch.nn.init.uniform_(p, 0, 0.1)
    x, y = (torch.rand(1, 3, 32, 32).double() for _ in range(2))
    y.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, y).sum(), y)
    step = torch.randn(y.shape).double()
    h = 1e-6
    slope = (net(x, y + h * step) - net(x, y - h * step)) / (2 * h)
    assert (gradient * step).sum().item() == pytest.approx(slope.item(), rel=1e-4)
    black = torch.zeros(1, 3, 32, 32, requires_grad=True)
    dead = STLPIPS()
    dead(torch.zeros(1, 3, 32, 32), black).sum().backward()     # every feature is zero here
    assert torch.isfinite(black.grad).all()


def test_blurpool_keeps_a_constant_and_halves_the_grid():
    y = BlurPool(2)(torch.full((1, 2, 9, 12), 3.0))
    assert y.shape == (1, 2, 6, 7)
    torch.testing.assert_close(y, torch.full_like(y, 3.0))


@pytest.mark.parametrize("height, width", [(32, 32), (33, 33), (32, 37), (41, 34)])
def test_the_fused_first_layer_equals_convolution_then_blurpool(height, width):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 4, 11, padding=2).double()
    x = torch.randn(2, 3, height, width).double()
    expected = BlurPool(4).double()(conv(x))
    torch.testing.assert_close(conv_blurpool(x, conv.weight, conv.bias, 2), expected)


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (3, 64, 64), (1, 3, 16, 64)])
def test_st_lpips_refuses_what_is_no_photo(st_lpips, shape):
    with pytest.raises(ImageError, match="photos"):
        st_lpips(torch.zeros(shape), torch.zeros(shape))


def test_convert_st_lpips_reads_the_published_layout(script):
    module = script("convert_st_lpips")
    shapes = {k: v.shape for k, v in STLPIPS().state_dict().items()}
    published = {}
    for ours, theirs in module.NAMES.items():
        for part in ("weight", "bias"):
            published[f"net.{theirs}.{part}"] = torch.randn(shapes[f"{ours}.{part}"])
    for i in range(5):
        published[f"lin{i}.model.1.weight"] = torch.rand(1, *shapes[f"lin{i + 1}"], 1, 1)
    ours = module.convert(published)
    assert ours.keys() == shapes.keys()
    torch.testing.assert_close(ours["lin3"], published["lin2.model.1.weight"].flatten())
    with pytest.raises(KeyError):
        module.convert({k: v for k, v in published.items() if "lin4" not in k})


# --- dlib ------------------------------------------------------------------------------------------------------


def test_dlib_net_equals_dlib(dlib):
    with torch.no_grad():
        a = dlib.net(photo(ASTRONAUT[30:180, 150:300]))[0]
        b = dlib.net(photo(ASTRONAUT[200:350, 200:350]))[0]
    # by dlib 20.0.1 itself on the same pixels; the shipped weights are rounded to float16
    by_dlib = [-0.06649, 0.08572, 0.01053, 0.03397, -0.05016, -0.03965, -0.04611, -0.13849]
    np.testing.assert_allclose(a[:8], by_dlib, atol=1e-3)
    assert a.norm().item() == pytest.approx(1.36397, abs=2e-3)
    assert (a - b).norm().item() == pytest.approx(0.61448, abs=2e-3)


def test_dlib_judge_tells_synthfaces_people_apart(dlib):
    from s2flib.datasets import open_dataset

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
    y = block(x).detach()                        # conv gives 3×3, the average-pooled input 4×4: zeros fill up
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


# --- identity judges in general --------------------------------------------------------------------------------


def test_face_crop_is_the_frame_and_differentiable():
    x = torch.zeros(1, 3, 100, 100)
    x[:, :, 20:90, 15:85] = 1                       # centre (0.5, 0.55), side 0.7
    assert face_crop(x, 70).min() == 1
    assert face_crop(x, 35).shape == (1, 3, 35, 35) and face_crop(x, 150).min() > 0.9999
    x.requires_grad_()
    face_crop(x, 35).sum().backward()
    inside = torch.zeros(100, 100)
    inside[20:90, 15:85] = 1
    assert ((x.grad[0, 0] != 0) == (inside > 0)).all()
    with pytest.raises(ImageError, match="photo, not the sketch"):
        face_crop(torch.zeros(1, 1, 64, 64), 32)


def test_auc_and_rank_1_against_counting():
    torch.manual_seed(0)
    e = torch.nn.functional.normalize(torch.randn(30, 4), dim=1)
    identity = torch.arange(30) % 10
    s, same, other = e @ e.T, [], []
    for i in range(30):
        for j in range(i):
            (same if identity[i] == identity[j] else other).append(s[i, j].item())
    counted = np.mean([a > b for a in same for b in other])
    assert verification_auc(e, identity) == pytest.approx(counted, abs=1e-3)
    assert verification_auc(torch.ones(4, 1), torch.tensor([0, 0, 1, 1])) == 0.5
    hits = [int(s[i, :10].argmax()) == i % 10 for i in range(10, 30)]
    assert rank_1(e, identity) == pytest.approx(np.mean(hits))


def test_a_judge_ignores_train_mode_and_passes_gradients_to_the_picture_only():
    torch.manual_seed(0)
    judge = judges.IdentityJudge(SynthFaceID(), "stand-in", lambda x: face_crop(x, 64))
    x, y = torch.rand(2, 4, 3, 96, 96) * 2 - 1
    first = judge.similarity(x, y)
    judge.train()
    torch.testing.assert_close(judge.similarity(x[:1], y[:1]), first[:1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(judge.similarity(x, x), torch.ones(4))
    y.requires_grad_()
    judge.similarity(x, y).sum().backward()
    assert y.grad.abs().sum() > 0 and all(p.grad is None for p in judge.parameters())
    with pytest.raises(ImageError, match="photo, not the sketch"):
        judge.embed(torch.zeros(2, 1, 96, 96))


def test_the_training_judge_of_tiny_is_not_the_measuring_one():
    train, measure = (judges.identity_judge("tiny", role=r) for r in ("train", "measure"))
    assert isinstance(train.net, SynthFaceID) and isinstance(measure.net, DlibResNet)
    assert train.label != measure.label
    for preset in PRESETS.values():
        assert preset.id_train != preset.id_measure
    with pytest.raises(S2FError, match="measures with"):
        judges.identity_judge(dataclasses.replace(TINY, id_train="dlib"), "measure")
    with pytest.raises(S2FError, match="role"):
        judges.identity_judge("tiny", "judge")


def test_the_shipped_identity_net_knows_people_it_never_saw():
    from s2flib.datasets import open_dataset

    judge, ds = judges.identity_judge("tiny", role="train"), open_dataset("tiny", "test", limit=90)
    with torch.no_grad():
        e = judge.embed(torch.stack([ds[i]["photo"] for i in range(len(ds))]))
    assert verification_auc(e, torch.from_numpy(ds.identities)) > 0.95


def test_the_shipped_attribute_net_beats_guessing():
    from s2flib.datasets import ATTRIBUTE_NAMES, attribute_targets, open_dataset
    from s2flib.training.classifiers import attribute_scores

    net, ds = judges.attribute_net(), open_dataset("tiny", "test", limit=90)
    assert net.names == ATTRIBUTE_NAMES and not net.training
    with torch.no_grad():
        logits = net(torch.stack([ds[i]["photo"] for i in range(len(ds))]))
    scores = attribute_scores(logits, torch.from_numpy(attribute_targets(ds)).float())
    assert scores["accuracy"] > scores["majority"] + 0.08 and scores["balanced"] > 0.7


# --- published judges: absent, then present --------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache and a network that is never there."""
    monkeypatch.setenv("S2F_CACHE", str(tmp_path))

    def nothing(urls, path, *args, **kwargs):
        raise WeightsError(f"{Path(path).name} could not be downloaded: put the file into {tmp_path} by hand.")

    monkeypatch.setattr(registry, "download", nothing)
    return tmp_path


@pytest.mark.parametrize("load, file", [
    (lambda: judges.perceptual_judge("paper"), "alexnet"),
    (lambda: judges.identity_judge("colab", "measure"), "vggface2"),
    (lambda: judges.identity_judge("paper", "train"), "ir_se50"),
])  # fmt: skip
def test_a_published_judge_without_weights_is_an_error_and_no_substitute(offline, load, file):
    with pytest.raises(WeightsError, match=file):
        load()


def test_a_shipped_judge_without_weights_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_DATA", str(tmp_path))
    for load in (lambda: judges.perceptual_judge("tiny"), lambda: judges.identity_judge("tiny"), judges.attribute_net):
        with pytest.raises(WeightsError):
            load()


def test_weights_of_another_net_are_refused(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    save_file(SynthFaceID().state_dict(), tmp_path / "weights" / "st-lpips-alex.safetensors", {"kind": "synthface-id"})
    monkeypatch.setenv("S2F_DATA", str(tmp_path))
    with pytest.raises(WeightsError, match="st-lpips"):
        judges.perceptual_judge("tiny")


def test_lpips_loads_torchvisions_trunk_strictly(offline, monkeypatch):
    torch.manual_seed(0)
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    trunk = {f"features.{i}.weight": 0.05 * torch.randn(shape) for i, shape in shapes.items()}
    trunk |= {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in shapes.items()}
    trunk["classifier.6.bias"] = torch.zeros(1000)                # in the published file, of no use here
    torch.save(trunk, offline / "trunk.pth")
    monkeypatch.setattr(judges, "fetch", lambda name: offline / "trunk.pth")
    judge = judges.perceptual_judge("paper")
    assert judge.label == "LPIPS (alex)"
    stored = dict(judge.net.net.named_parameters())
    convs = sorted((k for k in stored if k.endswith("weight")), key=lambda k: int(k.split(".")[1]))
    for name, index in zip(convs, (0, 3, 6, 8, 10), strict=True):
        torch.testing.assert_close(stored[name], trunk[f"features.{index}.weight"])
    # the linear heads are the published ones from the package, and dropout stays off whatever mode is asked for
    x, y = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    judge.train()
    torch.testing.assert_close(judge(x, y), judge(x, y))
    assert judge(x, y).shape == (2,) and not any(p.requires_grad for p in judge.parameters())
    with pytest.raises(WeightsError, match="features.10"):
        judges.LPIPS({k: v for k, v in trunk.items() if "features.10" not in k})


def test_facenet_loads_the_published_shapes(offline, monkeypatch):
    from facenet_pytorch import InceptionResnetV1

    torch.manual_seed(0)
    net = InceptionResnetV1().eval()
    state = net.state_dict()
    published = state | {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}
    torch.save(published, offline / "vggface2.pt")
    monkeypatch.setattr(judges, "fetch", lambda name: offline / "vggface2.pt")
    judge = judges.identity_judge("paper", "measure")
    assert judge.label == "InceptionResnetV1 (VGGFace2)"
    x = torch.rand(2, 3, 256, 256) * 2 - 1
    crop = torch.nn.functional.interpolate(x[:, :, 35:223, 32:220], (160, 160), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(judge.embed(x), net(crop), atol=1e-5, rtol=1e-4)
    torch.save({k: v for k, v in published.items() if k != "last_linear.weight"}, offline / "vggface2.pt")
    with pytest.raises(WeightsError, match="last_linear"):
        judges.identity_judge("paper", "measure")


def test_unknown_kinds_name_the_choices():
    with pytest.raises(S2FError, match="st-lpips"):
        judges.perceptual_judge(dataclasses.replace(TINY, perceptual="psnr"))
    with pytest.raises(S2FError, match="dlib"):
        judges.identity_judge(dataclasses.replace(TINY, id_measure="eyes"))
