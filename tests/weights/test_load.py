import argparse
import pickle
import re
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from s2flib.errors import S2FError, WeightsError
from s2flib.files import cache_dir, data_dir, weights_dir
from s2flib.presets import TINY
from s2flib.psp import PSP
from s2flib.weights import load as weights


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data directory."""
    monkeypatch.setenv("S2F_WEIGHTS", str(tmp_path / "data" / "weights"))
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
    with pytest.raises(WeightsError, match="damaged or not a weights file|no weights file"):
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
    tensors = {
        "half": base,
        "view": base.t()[1:],
        "big": torch.tensor([1e6]),
        "count": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "empty": torch.zeros(0, 3),
    }
    path = weights.save_safetensors(tmp_path / "a.safetensors", tensors, {"kind": "test", "steps": 3})
    got, meta = weights.safe_load(path, with_metadata=True)
    assert meta == {"kind": "test", "steps": "3"}
    assert {k: v.dtype for k, v in got.items()} == {
        "half": torch.float16,
        "view": torch.float16,
        "big": torch.float32,
        "count": torch.int64,
        "parameter": torch.float16,
        "empty": torch.float16,
    }
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
    weights.safe_load(path)  # no list yet: nothing to compare with
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
    folder = weights_dir()
    shipped = sorted(folder.glob("*.safetensors"))
    for path in shipped:
        weights.verify_shipped(path)
    if shipped:
        listed = {line.split()[1] for line in (folder / weights.SUMS).read_text().splitlines()}
        assert listed == {p.name for p in shipped}


def test_directories(monkeypatch, tmp_path):
    monkeypatch.delenv("S2F_DATA", raising=False)
    monkeypatch.delenv("S2F_WEIGHTS", raising=False)
    monkeypatch.delenv("S2F_CACHE", raising=False)
    assert (data_dir() / ".." / "s2flib" / "files.py").exists() and weights_dir() == data_dir() / "weights"
    assert cache_dir().parts[-2:] == (".cache", "s2flib")
    monkeypatch.setenv("S2F_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path


# --- tiny networks through files ---


@pytest.fixture
def tiny(data):
    """Untrained tiny networks stored as training would store them."""
    torch.manual_seed(0)
    psp = PSP.from_preset("tiny").eval()
    state = psp.decoder.state_dict() | {"latent_avg": psp.latent_avg[0]}
    weights.save_safetensors(data / "tiny-stylegan2.safetensors", state, {"kind": "stylegan2", "preset": "tiny"})
    psp.decoder = weights.load_generator("tiny")  # trained in front of the stored generator
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
        assert (got(x)[0] - psp(x)[0]).abs().max() < 0.02  # float16 storage
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
    state = {
        k: v + 0.1 if v.is_floating_point() and not k.endswith("kernel") else v
        for k, v in psp.decoder.state_dict().items()
    }
    mine = weights.save_safetensors(tmp_path / "g.safetensors", state, {"kind": "stylegan2", "preset": "tiny"})
    psp.decoder = weights.load_generator("tiny", mine)
    own = weights.save_psp(tmp_path / "e.safetensors", psp, "tiny")
    assert weights.load_psp("tiny", own, mine).decoder.input.input.equal(psp.decoder.input.input)
    with pytest.raises(WeightsError, match="another generator"):
        weights.load_psp("tiny", own)


def test_no_published_encoder_at_256(tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_TRAINED", str(tmp_path))
    with pytest.raises(WeightsError, match="s2f train"):
        weights.load_psp("colab")


def test_fingerprint_survives_storage():
    torch.manual_seed(0)
    a, b = torch.nn.Linear(5, 4), torch.nn.Linear(5, 4)
    before = weights.fingerprint(a)
    assert re.fullmatch(r"[0-9a-f]{16}", before) and before != weights.fingerprint(b)
    b.load_state_dict({k: v.half().float() for k, v in a.state_dict().items()})
    assert weights.fingerprint(b) == before


# --- damaged and hostile files


def repacked(path, member, content):
    """The torch file with one member replaced, in a packed archive."""
    with zipfile.ZipFile(path) as z:
        members = {name: content if name.endswith(member) else z.read(name) for name in z.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in members.items():
            z.writestr(name, data)


def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path):
    torch.save({"a": torch.zeros(4)}, tmp_path / "a.pt")
    repacked(tmp_path / "a.pt", "data/0", bytes(40 << 20))
    assert (tmp_path / "a.pt").stat().st_size < 100_000
    with pytest.raises(WeightsError, match="damaged"):
        weights.safe_load(tmp_path / "a.pt")


def test_contents_that_are_deep_or_circular_are_checked(tmp_path):
    loop = {"w": torch.zeros(2)}
    loop["self"] = [loop]
    torch.save(loop, tmp_path / "loop.pt")
    assert weights.safe_load(tmp_path / "loop.pt")["w"].shape == (2,)
    loop["wide"] = torch.zeros(1).expand(10**9)
    torch.save(loop, tmp_path / "loop.pt")
    with pytest.raises(WeightsError, match="stores fewer values"):
        weights.safe_load(tmp_path / "loop.pt")
    torch.save({"a": torch.zeros(4)}, tmp_path / "deep.pt")
    repacked(tmp_path / "deep.pt", "data.pkl", b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".")
    weights.safe_load(tmp_path / "deep.pt")


def test_sums_do_not_list_what_a_kill_left(data):
    weights.save_safetensors(data / "a.safetensors", {"x": torch.ones(3)}, {})
    (data / ".a.0123abcd.safetensors").write_bytes(b"half")  # files.atomic_path's name
    assert re.fullmatch(r"[0-9a-f]{64}  a\.safetensors\n", weights.update_sha256sums().read_text())


@pytest.mark.parametrize("sums", [b"one word\n", b"\xff\xfe\0", b"0123  a.safetensors\n"])
def test_a_damaged_list_of_sums_is_one_sentence(data, sums):
    path = weights.save_safetensors(data / "a.safetensors", {"x": torch.ones(3)}, {})
    (data / weights.SUMS).write_bytes(sums)
    with pytest.raises(WeightsError, match="SHA256SUMS is damaged"):
        weights.safe_load(path)


@pytest.mark.parametrize("shape", [(3,), (0,), (0, TINY.style_dim), (1, 1, TINY.style_dim), ()])
def test_a_generator_with_an_odd_average_is_refused(tiny, tmp_path, shape):
    tensors, meta = weights.safe_load(tiny[0] / "tiny-stylegan2.safetensors", with_metadata=True)
    own = weights.save_safetensors(tmp_path / "g.safetensors", tensors | {"latent_avg": torch.zeros(shape)}, meta)
    with pytest.raises(WeightsError, match="latent_avg of the shape"):
        weights.load_generator("tiny", own)


@pytest.mark.parametrize("shape", [(0, 10**12, 3, 3), (24,), ()])
def test_an_encoder_with_an_odd_first_layer_is_refused(tiny, tmp_path, shape):
    """… before a network with 10¹² input channels is built."""
    tensors, meta = weights.safe_load(tiny[0] / "tiny-psp.safetensors", with_metadata=True)
    tensors["encoder.input_layer.0.weight"] = torch.zeros(shape)
    own = weights.save_safetensors(tmp_path / "e.safetensors", tensors, meta)
    with pytest.raises(WeightsError, match="first layer"):
        weights.load_psp("tiny", own)


def test_odd_names_are_shown_on_one_line(tiny, tmp_path):
    tensors, meta = weights.safe_load(tiny[0] / "tiny-stylegan2.safetensors", with_metadata=True)
    odd = {"a\nb" + "x" * 999: torch.zeros(2)}
    own = weights.save_safetensors(tmp_path / "g.safetensors", tensors | odd, meta)
    with pytest.raises(WeightsError, match="unknown tensor a b") as e:
        weights.load_generator("tiny", own)
    assert str(e.value).isprintable() and len(str(e.value)) < 600
    own = weights.save_safetensors(tmp_path / "h.safetensors", tensors, meta | {"preset": "tiny\n"})
    with pytest.raises(WeightsError, match="another preset") as e:
        weights.load_generator("tiny", own)
    assert str(e.value).isprintable()


def test_an_encoder_trained_by_the_user_is_found(tmp_path, monkeypatch):
    """Under colab nobody has published one: notebook 06 writes it where load_psp looks."""
    from s2flib.files import trained_dir
    from s2flib.weights.load import psp_file

    monkeypatch.setenv("S2F_TRAINED", str(tmp_path))
    assert trained_dir() == tmp_path
    with pytest.raises(WeightsError, match="train one in notebook 06") as caught:
        psp_file("colab")
    assert f"s2f train --preset colab -o {tmp_path / 'colab'}" in str(caught.value)
    (tmp_path / "colab").mkdir()
    (tmp_path / "colab" / "encoder.safetensors").touch()
    assert psp_file("colab") == tmp_path / "colab" / "encoder.safetensors"
    assert psp_file("tiny") == weights_dir() / "tiny-psp.safetensors"
    monkeypatch.delenv("S2F_TRAINED")
    assert trained_dir().parts[-2:] == ("runs", "trained")
