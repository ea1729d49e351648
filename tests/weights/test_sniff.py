"""Files that are no weights, or weights that are no numbers, are refused before they are used or pinned."""

import numpy as np
import pytest
import torch

from s2flib import presets
from s2flib.errors import WeightsError
from s2flib.psp import PSP
from s2flib.weights import load_psp, registry, safe_load, save_safetensors
from s2flib.weights.load import save_psp
from s2flib.weights.published import check_latent_avg, load_strict, read_psp
from s2flib.weights.sniff import foreign_kind

PAGES = (
    b"<!DOCTYPE html><html>",
    b"\n  <html lang=en>",
    b"\xef\xbb\xbf<!doctype HTML>",
    b"<?xml version='1.0'?><Error>",
)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 267\n"


@pytest.mark.parametrize("first", PAGES)
def test_pages(first):
    assert foreign_kind(first) == "a web page"


def test_other_kinds(tmp_path):
    assert foreign_kind(POINTER).startswith("a Git LFS pointer")
    assert foreign_kind(b"Not Found") == foreign_kind(b"") == foreign_kind(b"\x89PNG\r\n") == "no weights file"
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_safetensors(tmp_path / "a.safetensors", {"a": torch.ones(2)}, {})
    for name in ("a.pt", "old.pt", "a.safetensors"):
        assert foreign_kind((tmp_path / name).read_bytes()[:512]) is None
        assert torch.equal(safe_load(tmp_path / name)["a"].float(), torch.ones(2))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".pth"])
@pytest.mark.parametrize(("data", "words"), [(PAGES[0], "is a web page: the drive"), (POINTER, "git lfs pull"),
                                             (b"quota exceeded", "no weights file")])  # fmt: skip
def test_they_are_named_wherever_weights_are_read(suffix, data, words, tmp_path):
    path = tmp_path / f"psp{suffix}"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=words):
        load_psp("tiny", path)


def test_a_page_saved_by_hand_is_never_pinned(tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_CACHE", str(tmp_path))
    file = registry.REGISTRY["stylegan2-ffhq-1024"].file
    (tmp_path / file).write_bytes(PAGES[0])
    with pytest.raises(WeightsError, match="is a web page: delete it"):
        registry.fetch("stylegan2-ffhq-1024")
    assert not (tmp_path / f"{file}.sha256").exists()


class Evil:
    def __reduce__(self):
        return (print, ("code",))


def test_only_code_is_called_code(tmp_path):
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="would run code"):
        safe_load(tmp_path / "evil.pt")
    (tmp_path / "cut.pt").write_bytes(b"\x80\x02}q\x00(X")
    with pytest.raises(WeightsError, match="is damaged"):
        safe_load(tmp_path / "cut.pt")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    torch.save({"net": [torch.zeros(1).expand(2**31)]}, tmp_path / "large.pt")
    assert (tmp_path / "large.pt").stat().st_size < 5000
    with pytest.raises(WeightsError, match="stores fewer values"):
        safe_load(tmp_path / "large.pt")


def test_values_are_checked_before_use():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    good = net.state_dict()
    load_strict(net, good, "file")
    for bad, words in (
        (torch.full((2, 3), float("nan")), "NaN or infinite values in 0.weight"),
        (torch.full((2, 3), float("inf")), "NaN or infinite"),
        (torch.ones(2, 3, dtype=torch.int64), "0.weight as torch.int64"),
    ):
        with pytest.raises(WeightsError, match=words):
            load_strict(net, good | {"0.weight": bad}, "file")
    load_strict(net, good | {"1.num_batches_tracked": torch.tensor(7.0)}, "file")  # counters stored in floating point
    assert net[1].num_batches_tracked == 7


@pytest.fixture
def small(monkeypatch):
    from dataclasses import replace

    preset = replace(
        presets.TINY, size=64, encoder_size=64, style_dim=16, n_mlp=1, channel_base=256, channel_max=16,
        encoder_units=(1, 1, 1, 1), encoder_widths=(4, 4, 8, 8), encoder_head=4, feature_side=None,
    )  # fmt: skip
    monkeypatch.setitem(presets.PRESETS, "tiny", preset)
    return preset


def test_an_encoder_of_photos_is_refused_for_sketches(small, tmp_path):
    model = PSP.from_preset("tiny", input_nc=3)
    tensors = model.decoder.state_dict() | {"latent_avg": model.latent_avg[0]}
    save_safetensors(tmp_path / "g.safetensors", tensors, {"kind": "stylegan2", "preset": "tiny"})
    save_psp(tmp_path / "photos.safetensors", model, "tiny")
    with pytest.raises(WeightsError, match="reads photos, not sketches"):
        load_psp("tiny", tmp_path / "photos.safetensors", tmp_path / "g.safetensors")
    assert (
        load_psp("tiny", tmp_path / "photos.safetensors", tmp_path / "g.safetensors", input_nc=3).encoder.input_nc == 3
    )


@pytest.mark.parametrize("shape", [(1, 16), (12, 16), (10, 8), (16, 10), ()])
def test_latent_avg_has_one_row_per_style(shape):
    check_latent_avg(torch.zeros(10, 16), 10, 16, "file")
    check_latent_avg(torch.zeros(16), 10, 16, "file")
    with pytest.raises(WeightsError, match="latent_avg of .* for 10 styles"):
        check_latent_avg(torch.zeros(shape), 10, 16, "file")
    with pytest.raises(WeightsError, match="NaN"):
        check_latent_avg(torch.full((16,), np.nan), 10, 16, "file")


def test_a_published_w_bar_of_a_larger_generator():
    state = {
        "encoder.input_layer.0.weight": torch.zeros(64, 1, 3, 3),
        "encoder.styles.13.linear.weight": torch.zeros(1),
    }
    row = torch.randn(1, 512)
    got = read_psp({"state_dict": state, "latent_avg": row.repeat(18, 1)}, "file")
    assert got.n_styles == 14 and torch.equal(got.latent_avg, row.repeat(14, 1))
    with pytest.raises(WeightsError, match="18 rows for 14 styles"):
        read_psp({"state_dict": state, "latent_avg": torch.randn(18, 512)}, "file")
