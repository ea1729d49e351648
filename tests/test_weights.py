import argparse
import dataclasses
import pickle
import re
import warnings
from urllib.parse import urlparse

import pytest
import torch
from safetensors.torch import load_file

from s2flib import published, registry, weights
from s2flib.errors import S2FError, WeightsError
from s2flib.presets import PAPER, TINY
from s2flib.psp import PSP, GradualStyleEncoder
from s2flib.published import IRSE50, load_strict, load_stylegan2, read_psp
from s2flib.stylegan2 import Generator


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data directory."""
    monkeypatch.setenv("S2F_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "weights").mkdir(parents=True)
    return tmp_path / "data" / "weights"


# --- reading ---

class Evil:
    """Unpickled carelessly, it creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("how", ["pickle", "torch", "legacy", "nested"])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, how):
    path, trace = tmp_path / "evil.pt", tmp_path / "executed"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Evil(trace), protocol=2))
    else:
        contents = {"state_dict": {"a": torch.zeros(2)}, "opts": Evil(trace)} if how == "nested" else Evil(trace)
        torch.save(contents, path, _use_new_zipfile_serialization=how != "legacy")
    with pytest.raises(WeightsError, match="run code"):
        weights.safe_load(path)
    assert not trace.exists()
    # the trap is real: an ordinary load springs it
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
    assert trace.exists()


def test_plain_contents_pass(tmp_path):
    contents = {"g_ema": {"w": torch.randn(3)}, "args": argparse.Namespace(lr=0.1), "n": [1, 2.5, "x", None, True]}
    for legacy in (False, True):
        torch.save(contents, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
        got = weights.safe_load(tmp_path / "a.pt")
        assert torch.equal(got["g_ema"]["w"], contents["g_ema"]["w"])
        assert got["args"].lr == 0.1 and got["n"] == contents["n"]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_bad_files(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(WeightsError, match="no weights file"):
        weights.safe_load(path)
    path.mkdir()
    with pytest.raises(WeightsError, match="no weights file"):
        weights.safe_load(path)
    path.rmdir()
    path.touch()
    with pytest.raises(WeightsError, match="empty"):
        weights.safe_load(path)
    path.write_text("hello, this is no weights file at all\n" * 20)
    with pytest.raises(WeightsError, match="damaged or not a weights file"):
        weights.safe_load(path)
    if suffix == ".pt":
        torch.save({"a": torch.randn(1000)}, path)
    else:
        weights.save_safetensors(path, {"a": torch.randn(1000)}, {}, overwrite=True)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(WeightsError, match="damaged"):
        weights.safe_load(path)


# --- writing ---

def test_save_safetensors(tmp_path):
    base = torch.randn(4, 6)
    tensors = {"half": base, "view": base.t()[1:], "big": torch.tensor([1e6]), "count": torch.tensor(7),
               "parameter": torch.nn.Parameter(torch.ones(2)), "empty": torch.zeros(0, 3)}
    path = weights.save_safetensors(tmp_path / "a.safetensors", tensors, {"kind": "test", "steps": 3})
    got, meta = weights.safe_load(path, with_metadata=True)
    assert meta == {"kind": "test", "steps": "3"}
    assert {k: v.dtype for k, v in got.items()} == {
        "half": torch.float16, "view": torch.float16, "big": torch.float32, "count": torch.int64,
        "parameter": torch.float16, "empty": torch.float16}
    assert torch.equal(got["view"], base.t()[1:].half()) and got["big"].item() == 1e6 and got["count"] == 7
    with pytest.raises(WeightsError, match="exists already"):
        weights.save_safetensors(path, {}, {})
    weights.save_safetensors(path, {"x": torch.randn(3)}, {}, half=False, overwrite=True)
    assert load_file(path)["x"].dtype == torch.float32
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = weights.save_safetensors(tmp_path / "a.safetensors", {"x": torch.ones(3)}, {})
    before = path.read_bytes()

    def full(tensors, part, metadata):
        with open(part, "wb") as f:
            f.write(b"half a")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(S2FError):
        weights.save_safetensors(path, {"x": torch.zeros(3)}, {}, overwrite=True)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


# --- shipped files ---

def test_sha256sums(data):
    path = weights.save_safetensors(data / "a.safetensors", {"x": torch.ones(3)}, {})
    weights.safe_load(path)                                      # no list yet: nothing to compare with
    sums = weights.update_sha256sums()
    assert re.fullmatch(r"[0-9a-f]{64}  a\.safetensors\n", sums.read_text())
    weights.safe_load(path)
    new = weights.save_safetensors(data / "b.safetensors", {"x": torch.ones(3)}, {})
    with pytest.raises(WeightsError, match="not listed"):
        weights.safe_load(new)
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)
    with pytest.raises(WeightsError, match="does not match"):
        weights.safe_load(path)
    weights.update_sha256sums()
    weights.safe_load(path)
    weights.safe_load(new)


def test_files_elsewhere_are_not_listed(data, tmp_path):
    weights.update_sha256sums()
    weights.safe_load(weights.save_safetensors(tmp_path / "mine.safetensors", {"x": torch.ones(1)}, {}))


def test_the_repositorys_own_list_is_complete_and_true():
    folder = weights.data_dir() / "weights"
    shipped = sorted(folder.glob("*.safetensors"))
    for path in shipped:
        weights.verify_shipped(path)
    if shipped:
        listed = {line.split()[1] for line in (folder / weights.SUMS).read_text().splitlines()}
        assert listed == {p.name for p in shipped}


def test_directories(monkeypatch, tmp_path):
    monkeypatch.delenv("S2F_DATA", raising=False)
    monkeypatch.delenv("S2F_CACHE", raising=False)
    assert (weights.data_dir() / ".." / "s2flib" / "weights.py").exists()
    assert weights.cache_dir().parts[-2:] == (".cache", "s2flib")
    monkeypatch.setenv("S2F_CACHE", str(tmp_path))
    assert weights.cache_dir() == tmp_path


# --- the registry ---

def test_registry_is_well_formed():
    files = [e.file for e in weights.REGISTRY.values()]
    assert len(set(files)) == len(files)
    for e in weights.REGISTRY.values():
        assert e.what and e.licence and e.urls
        assert all(urlparse(u).scheme == "https" for u in e.urls)
        assert e.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", e.sha256)
        if m := re.search(r"-([0-9a-f]{8})\.pth$", e.file):       # torchvision's names begin the hash
            assert e.sha256.startswith(m[1])


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """Puts a file of known bytes behind the name "thing", "downloaded" by copying; counts the downloads."""
    monkeypatch.setenv("S2F_CACHE", str(tmp_path / "cache"))
    calls = []

    def install(sha256):
        monkeypatch.setitem(weights.REGISTRY, "thing", registry.Published(
            "thing.pt", "a thing", "CC0", ("https://example.org/thing",), sha256))

    def fake_download(urls, path, sha256, progress):
        calls.append(urls)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"contents")
        return path

    monkeypatch.setattr(registry, "download", fake_download)
    return install, calls


CONTENTS = "d1b2a59fbea7e20077af9f91b27e95e865061b270be03ff539ab3b73587882e8"


def test_fetch_pinned(entry, capsys):
    install, calls = entry
    install(CONTENTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = weights.fetch("thing")
        assert weights.fetch("thing") == path
    assert "CC0" in capsys.readouterr().err                      # the licence is shown before the download
    assert len(calls) == 1 and path.read_bytes() == b"contents"
    assert [p.name for p in path.parent.iterdir()] == ["thing.pt"]
    path.write_bytes(b"Contents")
    with pytest.raises(WeightsError, match="s2f fetch thing"):
        weights.fetch("thing")


def test_fetch_pins_on_first_use(entry):
    install, calls = entry
    install(None)
    with pytest.warns(UserWarning, match=f"PINNED to {CONTENTS}"):
        path = weights.fetch("thing")
    assert (path.parent / "thing.pt.sha256").read_text() == f"{CONTENTS}  thing.pt\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights.fetch("thing")
    path.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="pinned"):
        weights.fetch("thing")
    assert len(calls) == 1


def test_fetch_takes_a_file_put_there_by_hand(entry):
    install, calls = entry
    install(CONTENTS)
    weights.cache_dir().mkdir()
    (weights.cache_dir() / "thing.pt").write_bytes(b"contents")
    assert weights.fetch("thing").read_bytes() == b"contents" and not calls


def test_fetch_unknown():
    with pytest.raises(WeightsError, match="psp-sketch"):
        weights.fetch("stylegan9")


# --- tiny networks through files ---

@pytest.fixture
def tiny(data):
    """Untrained tiny networks stored as training would store them."""
    torch.manual_seed(0)
    psp = PSP.from_preset("tiny").eval()
    state = psp.decoder.state_dict() | {"latent_avg": psp.latent_avg[0]}
    weights.save_safetensors(data / "tiny-stylegan2.safetensors", state, {"kind": "stylegan2", "preset": "tiny"})
    psp.decoder = weights.load_generator("tiny")                 # trained in front of the stored generator
    weights.save_psp(data / "tiny-psp.safetensors", psp, "tiny", {"steps": "0"})
    weights.update_sha256sums()
    return data, psp


def test_load_generator(tiny):
    _, psp = tiny
    g = weights.load_generator("tiny")
    assert not g.training and not any(p.requires_grad for p in g.parameters())
    assert g.latent_avg.shape == (TINY.style_dim,) and "latent_avg" not in g.state_dict()
    assert torch.allclose(g.latent_avg, psp.latent_avg[0], atol=1e-3)
    for k, v in psp.decoder.state_dict().items():
        assert g.state_dict()[k].dtype == torch.float32 and torch.equal(g.state_dict()[k], v)


def test_load_psp_round_trip(tiny):
    _, psp = tiny
    got = weights.load_psp("tiny")
    assert not got.training and not any(p.requires_grad for p in got.decoder.parameters())
    x = torch.rand(1, 1, 128, 128)
    with torch.no_grad():
        assert (got(x)[0] - psp(x)[0]).abs().max() < 0.02        # float16 storage
        assert torch.allclose(got(x)[1], psp(x)[1], atol=5e-3)


def test_missing_tiny_weights(data):
    for load in (weights.load_psp, weights.load_generator):
        with pytest.raises(WeightsError, match="no weights file"):
            load("tiny")


def test_load_psp_refuses(tiny, tmp_path):
    folder, psp = tiny
    own = tmp_path / "own.safetensors"
    tensors, meta = weights.safe_load(folder / "tiny-psp.safetensors", with_metadata=True)

    def store(tensors, **changes):
        weights.save_safetensors(own, tensors, meta | changes, overwrite=True)

    store(tensors)
    weights.load_psp("tiny", own)
    store(tensors, preset="colab")
    with pytest.raises(WeightsError, match="checkpoint of another preset"):
        weights.load_psp("tiny", own)
    store(tensors, kind="stylegan2")
    with pytest.raises(WeightsError, match="another kind"):
        weights.load_psp("tiny", own)
    with pytest.raises(WeightsError, match="another kind"):
        weights.load_psp("tiny", folder / "tiny-stylegan2.safetensors")
    store(tensors, decoder="0" * 16)
    with pytest.raises(WeightsError, match="another generator"):
        weights.load_psp("tiny", own)
    store({k: v for k, v in tensors.items() if k != "latent_avg"})
    with pytest.raises(WeightsError, match="latent_avg"):
        weights.load_psp("tiny", own)
    store({k: v for k, v in tensors.items() if k != "encoder.latlayer1.bias"})
    with pytest.raises(WeightsError, match="lacks the tensor latlayer1.bias"):
        weights.load_psp("tiny", own)
    store(tensors | {"encoder.latlayer1.bias": torch.zeros(3)})
    with pytest.raises(WeightsError, match=r"latlayer1.bias as \(3,\)"):
        weights.load_psp("tiny", own)
    store(tensors | {"encoder.more": torch.zeros(3)})
    with pytest.raises(WeightsError, match="unknown tensor more"):
        weights.load_psp("tiny", own)


def test_load_psp_with_another_generator(tiny, tmp_path):
    """An own generator and the encoder trained in front of it belong together."""
    _, psp = tiny
    state = {k: v + 0.1 if v.is_floating_point() and not k.endswith("kernel") else v
             for k, v in psp.decoder.state_dict().items()}
    mine = weights.save_safetensors(tmp_path / "g.safetensors", state, {"kind": "stylegan2", "preset": "tiny"})
    psp.decoder = weights.load_generator("tiny", mine)
    own = weights.save_psp(tmp_path / "e.safetensors", psp, "tiny")
    assert weights.load_psp("tiny", own, mine).decoder.input.input.equal(psp.decoder.input.input)
    with pytest.raises(WeightsError, match="another generator"):
        weights.load_psp("tiny", own)


def test_no_published_encoder_at_256():
    with pytest.raises(WeightsError, match="s2f train"):
        weights.load_psp("colab")


def test_fingerprint_survives_storage():
    torch.manual_seed(0)
    a, b = torch.nn.Linear(5, 4), torch.nn.Linear(5, 4)
    before = weights.fingerprint(a)
    assert re.fullmatch(r"[0-9a-f]{16}", before) and before != weights.fingerprint(b)
    b.load_state_dict({k: v.half().float() for k, v in a.state_dict().items()})
    assert weights.fingerprint(b) == before


# --- published layouts ---

SMALL_PAPER = dataclasses.replace(PAPER, size=64, encoder_size=64, style_dim=24, n_mlp=2, channel_base=512,
                                  channel_max=24, encoder_units=(1, 2, 1, 1), encoder_widths=(4, 8, 12, 16),
                                  encoder_head=16)


def published_file(path, **changes):
    """A psp_*.pt in the published layout with small tensors, and the networks inside."""
    p = SMALL_PAPER
    encoder = GradualStyleEncoder.from_preset(p)
    decoder = Generator.from_preset(p)
    with torch.no_grad():
        decoder.conv1.noise.weight.fill_(0.5)
    checkpoint = {
        "state_dict": {**{f"encoder.{k}": v for k, v in encoder.state_dict().items()},
                       **{f"decoder.{k}": v for k, v in decoder.state_dict().items()}},
        "opts": {"encoder_type": "GradualStyleEncoder", "input_nc": 1, "label_nc": 1, "output_size": 64,
                 "start_from_latent_avg": True, "resize_factors": None},
        "latent_avg": torch.randn(p.n_styles, p.style_dim),
    } | changes
    torch.save({k: v for k, v in checkpoint.items() if v is not None}, path)
    return encoder.eval(), decoder.eval(), checkpoint


def test_published_psp_file(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PAPER", SMALL_PAPER)
    encoder, decoder, checkpoint = published_file(tmp_path / "psp.pt")
    psp = weights.load_psp(SMALL_PAPER, tmp_path / "psp.pt")
    assert not psp.training and torch.equal(psp.latent_avg, checkpoint["latent_avg"])
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        w = encoder(x) + checkpoint["latent_avg"]
        image, codes = psp(x)
        assert torch.equal(codes, w) and torch.equal(image, decoder.synthesis(w))


def test_published_psp_of_another_size(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PAPER", SMALL_PAPER)
    published_file(tmp_path / "psp.pt")
    with pytest.raises(WeightsError, match="another preset"):
        weights.load_psp("tiny", tmp_path / "psp.pt")


def test_published_psp_variants(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PAPER", SMALL_PAPER)
    path = tmp_path / "psp.pt"
    _, _, c = published_file(path, latent_avg=None)
    with pytest.raises(WeightsError, match="latent_avg"):
        weights.load_psp(SMALL_PAPER, path)
    published_file(path, latent_avg=None, opts=c["opts"] | {"start_from_latent_avg": False})
    assert weights.load_psp(SMALL_PAPER, path).latent_avg.abs().sum() == 0
    published_file(path, opts=argparse.Namespace(**c["opts"]))   # old files keep the options themselves
    weights.load_psp(SMALL_PAPER, path)
    published_file(path, opts={"encoder_type": "BackboneEncoderUsingLastLayerIntoW"})
    with pytest.raises(WeightsError, match="BackboneEncoderUsingLastLayerIntoW"):
        weights.load_psp(SMALL_PAPER, path)
    torch.save({"g_ema": {}}, path)
    with pytest.raises(WeightsError, match="not a pSp checkpoint"):
        weights.load_psp(SMALL_PAPER, path)


def test_published_psp_at_published_shapes():
    """621 + 171 tensors of the published shapes are sorted and fit; nothing is allocated (meta device)."""
    with torch.device("meta"):
        encoder, decoder = GradualStyleEncoder.from_preset(PAPER), Generator.from_preset(PAPER)
        state = {**{f"encoder.{k}": torch.empty(v.shape, dtype=v.dtype) for k, v in encoder.state_dict().items()},
                 **{f"decoder.{k}": torch.empty(v.shape) for k, v in decoder.state_dict().items()}}
        got = read_psp({"state_dict": state, "opts": {}, "latent_avg": torch.empty(18, 512)}, "file")
        assert (len(got.encoder), len(got.decoder), got.input_nc, got.n_styles) == (621, 171, 1, 18)
        load_strict(encoder, got.encoder, "file")
        load_strict(decoder, got.decoder, "file")


def stylegan2_checkpoint():
    torch.manual_seed(3)
    g = Generator.from_preset(SMALL_PAPER)
    with torch.no_grad():
        g.conv1.noise.weight.fill_(1.0)
    return g, {"g_ema": dict(g.state_dict()), "latent_avg": torch.randn(24)}


def test_published_stylegan2():
    source, checkpoint = stylegan2_checkpoint()
    target = Generator.from_preset(SMALL_PAPER)
    w_avg = load_stylegan2(target, checkpoint, "file")
    assert torch.equal(w_avg, checkpoint["latent_avg"])
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


def test_published_stylegan2_without_noise_filters_and_average():
    source, checkpoint = stylegan2_checkpoint()
    bare = {k: v for k, v in checkpoint["g_ema"].items() if not k.startswith("noises.") and ".kernel" not in k}
    targets = [Generator.from_preset(SMALL_PAPER) for _ in range(2)]
    averages = [load_stylegan2(t, {"g_ema": bare}, "file") for t in targets]
    assert torch.equal(averages[0], source.mean_latent())
    w = torch.randn(1, SMALL_PAPER.n_styles, 24)
    with torch.no_grad():
        a, b = (t.synthesis(w) for t in targets)
        assert torch.equal(a, b)                                 # the drawn noise is seeded
        assert torch.equal(targets[0].synthesis(w, noise=None), source.synthesis(w, noise=None))
    bare["mapping.w_avg"] = torch.arange(24.0)                   # as in conversions from stylegan2-ada
    assert torch.equal(load_stylegan2(targets[0], {"g_ema": bare}, "file"), torch.arange(24.0))


def test_published_stylegan2_refuses():
    _, checkpoint = stylegan2_checkpoint()
    g = Generator.from_preset(SMALL_PAPER)
    with pytest.raises(WeightsError, match="g_ema"):
        load_stylegan2(g, {"state_dict": {}}, "file")
    with pytest.raises(WeightsError, match="another preset"):
        load_stylegan2(Generator(64, 24, 2, channel_base=512, channel_max=20), checkpoint, "file")
    with pytest.raises(WeightsError, match="unknown tensor"):
        load_stylegan2(Generator(32, 24, 2, channel_base=512, channel_max=24), checkpoint, "file")
    checkpoint["g_ema"]["convs.0.conv.blur.kernel"] = torch.ones(4, 4)
    with pytest.raises(WeightsError, match="low-pass filter"):
        load_stylegan2(g, checkpoint, "file")


def test_own_generator_file_in_the_published_layout(tmp_path):
    source, checkpoint = stylegan2_checkpoint()
    torch.save(checkpoint, tmp_path / "g.pt")
    g = weights.load_generator(SMALL_PAPER, tmp_path / "g.pt")
    assert torch.equal(g.latent_avg, checkpoint["latent_avg"])
    assert torch.equal(g.input.input, source.input.input)


def test_ir_se50_published_names():
    with torch.device("meta"):
        net = IRSE50()
    state = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    assert len([k for k in state if k.startswith("body.")]) == 24 * 15 + 3 * 6
    assert state["input_layer.0.weight"] == (64, 3, 3, 3)
    assert state["body.23.res_layer.5.fc2.weight"] == (512, 32, 1, 1)
    assert state["body.3.shortcut_layer.1.running_var"] == (128,)
    tail = {k: s for k, s in state.items() if k.startswith("output_layer.")}
    assert tail == {"output_layer.3.weight": (512, 25088), "output_layer.3.bias": (512,)} | {
        f"output_layer.{i}.{n}": () if n == "num_batches_tracked" else (512,) for i in (0, 4)
        for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(43.8, abs=0.1)
