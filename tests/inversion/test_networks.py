"""Building, saving and loading the networks that invert, and methods by name. Files are an untrained mini preset's."""

import shutil

import pytest
import torch
from inversion_cases import Edges
from inversion_networks import (
    MINI,
    made_photos,
    mini_data_fixture,  # noqa: F401  (fixture)
    mini_weights_fixture,  # noqa: F401  (fixture)
    save_generator,
    small_generator,
    untrained,
)

from s2flib import weights
from s2flib.errors import S2FError, WeightsError
from s2flib.inversion import TITLES
from s2flib.inversion.e4e import Encoder4Editing
from s2flib.inversion.methods import METHODS, Budget, load_method, with_network
from s2flib.inversion.networks import BASES, NETWORKS, build_network, load_network, network_file, save_network, training
from s2flib.inversion.projector import Projector
from s2flib.inversion.restyle import ReStyleInversion
from s2flib.psp import GradualStyleEncoder


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_and_loaded_networks_invert_alike(mini_weights, name, tmp_path):
    """Up to float16; what is frozen is not in the file."""
    generator = weights.load_generator(MINI)
    base = load_network("e4e", MINI) if name in BASES else None
    network = untrained(name, generator, base)
    path = save_network(tmp_path / "n.safetensors", name, network, MINI, {"step": "7"})
    tensors, meta = weights.safe_load(path, with_metadata=True)
    assert meta["kind"] == name and meta["preset"] == "mini" and meta["step"] == "7"
    assert meta["decoder"] == weights.fingerprint(generator)
    assert set(tensors) == {k for k in network.state_dict() if not k.startswith(("decoder.", "base."))}
    loaded = load_network(name, MINI, path)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    photos = made_photos(generator, 2, 9)
    a, b = (with_network(name, n, MINI).invert(photos) for n in (network, loaded))
    torch.testing.assert_close(a.reconstruction, b.reconstruction, atol=0.02, rtol=0)
    assert a.trace[-1].step == (5 if name.startswith(("restyle", "hyperstyle")) else 1), "the preset's passes"
    assert (a.trace[0].reconstruction - a.reconstruction).abs().mean() > 0.003
    with pytest.raises(WeightsError, match="exists already"):
        save_network(path, name, network, MINI, {})


def test_every_network_is_of_its_own_class(mini_weights):
    g = weights.load_generator(MINI)
    psp, e4e = (build_network(name, MINI, g) for name in ("psp", "e4e"))
    assert type(psp.encoder) is GradualStyleEncoder and type(e4e.encoder) is Encoder4Editing
    assert psp.encoder.input_nc == 3 and torch.equal(psp.latent_avg[2], g.latent_avg)
    plain, progressive = (build_network(f"restyle-{name}", MINI, g) for name in ("psp", "e4e"))
    assert not plain.encoder.progressive and progressive.encoder.progressive
    assert plain.encoder.size == MINI.inversion.size == e4e.encoder.size
    for name, kernel in (("hyperstyle", 1), ("hyperinverter", 3)):
        network = build_network(name, MINI, g, e4e)
        assert {head.shape[2:] for head in network.heads} == {(kernel, kernel)}
        with pytest.raises(S2FError, match=f"{name} needs a trained e4e"):
            build_network(name, MINI, g)
    for wrong in (lambda: build_network("nerf", MINI, g), lambda: load_network("nerf", MINI, mini_weights / "x.pt")):
        with pytest.raises(S2FError, match="no inversion network 'nerf'"):
            wrong()


def test_files_by_name(mini_weights):
    assert network_file("psp", MINI) == mini_weights / "mini-photo-psp.safetensors" and training("e4e") == "e4e"
    with pytest.raises(WeightsError, match=r"no e4e for the preset colab.*s2f train --what e4e"):
        network_file("e4e", "colab")
    with pytest.raises(WeightsError, match="s2f train --what hyperstyle"):
        network_file("hyperstyle", "paper")


def resaved(folder, tmp_path, name, change=lambda tensors, meta: None):
    """A copy of a network's file with changed tensors or metadata."""
    tensors, meta = weights.safe_load(folder / f"mini-{training(name)}.safetensors", with_metadata=True)
    change(tensors, meta)
    return weights.save_safetensors(tmp_path / "changed.safetensors", tensors, meta, overwrite=True)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, m: m.update(kind="psp-sketch"), "another kind of checkpoint"),
        (lambda t, m: m.update(preset="tiny"), "checkpoint of another preset"),
        (lambda t, m: m.update(decoder="0" * 16), "trained with another generator"),
        (lambda t, m: m.pop("decoder"), "trained with another generator"),
        (lambda t, m: t.pop(sorted(t)[0]), "lacks the tensor"),
        (lambda t, m: t.update(spare=torch.zeros(1)), "unknown tensor spare"),
        (lambda t, m: next(iter(t.values())).fill_(float("nan")), "NaN or infinite"),
        (lambda t, m: t.update({k: v[..., :1] for k, v in t.items() if v.ndim == 4}), "instead of"),
    ],
    ids=["kind", "preset", "generator", "no generator", "missing", "unknown", "NaN", "shape"],
)
def test_files_that_do_not_fit(mini_weights, tmp_path, name, change, message):
    path = resaved(mini_weights, tmp_path, name, change)
    with pytest.raises(WeightsError, match=message) as error:
        load_network(name, MINI, path)
    assert str(error.value).endswith(".") and "changed.safetensors" in str(error.value)


@pytest.mark.parametrize("name", ["psp", "restyle-psp", "hyperstyle"])
def test_a_file_does_not_replace_frozen_parts(mini_weights, tmp_path, name):
    generator = weights.load_generator(MINI)
    before = weights.fingerprint(generator)
    key = ("base." if name in BASES else "") + "decoder.conv1.conv.weight"
    value = torch.zeros_like(generator.conv1.conv.weight)
    path = resaved(mini_weights, tmp_path, name, lambda t, m: t.update({key: value}))
    with pytest.raises(WeightsError, match="frozen part"):
        load_network(name, MINI, path, generator)
    assert weights.fingerprint(generator) == before


@pytest.mark.parametrize("rows", [torch.zeros(3, 32), torch.zeros(8, 31), torch.zeros(2, 8, 32)])
def test_average_of_another_shape(mini_weights, tmp_path, rows):
    path = resaved(mini_weights, tmp_path, "e4e", lambda t, m: t.update(latent_avg=rows))
    with pytest.raises(WeightsError, match="latent_avg"):
        load_network("e4e", MINI, path)


def test_another_generator_or_base(mini_weights, tmp_path):
    other = small_generator(seed=1)
    with pytest.raises(WeightsError, match="another generator"):
        load_network("e4e", MINI, generator=other)
    generator = weights.load_generator(MINI)
    torch.manual_seed(4)
    another = build_network("e4e", MINI, generator)
    path = save_network(tmp_path / "e4e.safetensors", "e4e", another, MINI, {})
    for name in BASES:
        with pytest.raises(WeightsError, match="another e4e"):
            load_network(name, MINI, base=path)
        torch.manual_seed(3)
        own = build_network(name, MINI, generator, load_network("e4e", MINI, path, generator))
        file = save_network(tmp_path / f"{name}.safetensors", name, own, MINI, {})
        assert load_network(name, MINI, file, base=path).base.encoder is not None
        with pytest.raises(WeightsError, match="another e4e"):
            load_network(name, MINI, file)


def test_missing_and_damaged_files(mini_weights, tmp_path):
    with pytest.raises(WeightsError, match=r"no weights file .*none\.safetensors"):
        load_network("e4e", MINI, tmp_path / "none.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((mini_weights / "mini-e4e.safetensors").read_bytes()[:999])
    with pytest.raises(WeightsError, match="damaged"):
        load_network("e4e", MINI, cut)
    shutil.copy(cut, tmp_path / "cut.pt")
    with pytest.raises(WeightsError, match="not supported"):
        load_network("hyperstyle", MINI, tmp_path / "cut.pt")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_by_its_name(mini_weights, name):
    """With the preset's files and budgets; each inverts, and its result is what its codes and weights generate."""
    photos, called = made_photos(small_generator(), 2, 9), []
    method = load_method(name, "mini")
    found = method.invert(photos, called.append)
    assert method.name == name and list(found.trace) == called
    assert found.w_plus.shape == (2, 8, 32) and found.reconstruction.shape == photos.shape
    torch.testing.assert_close(found.generate(), found.reconstruction, atol=1e-4, rtol=1e-3)
    assert weights.fingerprint(found.generator) == weights.fingerprint(weights.load_generator(MINI))
    steps = {"w-plus": 4, "projector": 4, "pti": 4 + 4, "psp": 1, "e4e": 1, "hyperinverter": 1}
    assert found.trace[-1].step == steps.get(name, 5) and set(TITLES) == set(METHODS)
    assert found.trace[0].step == 0 and found.trace[0].error.shape == (2,)


def test_budgets_and_what_is_given(mini_weights, tmp_path):
    g, judge = weights.load_generator(MINI), Edges()
    for name, field in (("w-plus", "w_plus"), ("projector", "projector"), ("pti", "tuning")):
        assert Budget.of(name, 7) == Budget(**{field: 7}) and Budget.of(name, None) == Budget()
        method = load_method(name, MINI, generator=g, perceptual=judge, budget=Budget.of(name, 7))
        assert method.steps == 7 and method.generator is g and method.perceptual is judge
        with pytest.raises(S2FError, match="at least one update"):
            Budget.of(name, 0)
        with pytest.raises(S2FError, match="1 or more"):  # 0 is not "the preset's"
            load_method(name, MINI, budget=Budget(**{field: 0}))
    with pytest.raises(S2FError, match=r"restyle-psp is one of the methods that run a network.*leave out --steps"):
        Budget.of("restyle-psp", 5)
    for wrong in (load_method, lambda name: Budget.of(name, 3)):
        with pytest.raises(S2FError, match=r"no inversion method 'nerf': choose one of w-plus, projector, pti, psp"):
            wrong("nerf")
    pivot = load_method("psp", MINI)
    pti = load_method("pti", MINI, pivot=pivot)
    assert pti.pivot is pivot and pti.lr == MINI.inversion.tuning_lr
    default = load_method("pti", MINI, generator=g).pivot
    assert isinstance(default, Projector) and default.generator is g
    assert isinstance(load_method("restyle-e4e", MINI), ReStyleInversion)
    assert load_method("projector", MINI, budget=Budget(seed=5)).seed == 5
    save_generator(tmp_path / "g.safetensors", small_generator(seed=1))
    with pytest.raises(WeightsError, match="another generator"):
        load_method("e4e", MINI, generator=weights.load_generator(MINI, tmp_path / "g.safetensors"))


def test_a_preset_without_shipped_or_published_networks_says_how_to_train_one():
    for name, what in (("psp", "photo-psp"), ("hyperstyle", "hyperstyle")):
        with pytest.raises(WeightsError, match=f"no {name} for the preset colab is published: .*--what {what}"):
            load_network(name, "colab")
