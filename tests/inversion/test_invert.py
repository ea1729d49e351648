"""s2flib.inversion.invert: photo files → reconstructions, and back from what was saved. Untrained mini networks."""

import json

import numpy as np
import pytest
import skimage.data
import torch
from inversion_cases import Edges
from inversion_networks import (
    MINI,
    SIDE,
    made_photos,
    mini_data_fixture,  # noqa: F401  (fixture)
    mini_weights_fixture,  # noqa: F401  (fixture)
    small_generator,
)
from PIL import Image

from s2flib import images, weights
from s2flib.errors import ImageError, S2FError, WeightsError
from s2flib.files import sha256_of
from s2flib.inversion import invert
from s2flib.inversion.invert import invert_files, load_inversion
from s2flib.inversion.methods import METHODS, Budget, load_method
from s2flib.inversion.networks import build_network, save_network
from s2flib.inversion.protocol import Inversion, Step, synthesise


@pytest.fixture
def files(tmp_path):
    """Six photos of the mini generator's kind, as files."""
    pictures = images.to_array(made_photos(small_generator(), 6, 21))
    paths = [tmp_path / f"{name}.png" for name in "abcdef"]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def pixels(path):
    return np.asarray(Image.open(path), int)


def read(path):
    """A file's photo as the command sees it, (1, 3, 32, 32)."""
    return images.to_photo(images.load_image(path), SIDE)[None]


def same_picture(path, picture):
    """Equal but for the last bit: rounding to uint8 may tip."""
    difference = np.abs(pixels(path) - images.to_array(picture).astype(int))
    assert difference.max() <= 1 and (difference == 0).mean() > 0.9


@pytest.mark.parametrize("name", METHODS)
def test_every_method_writes_its_result(mini_weights, files, tmp_path, name):
    lines, out = [], tmp_path / "out"
    photos = files[:2]
    results = invert_files(photos, out, "mini", name, progress=lines.append)
    names = {f"{p.stem}_{name}{end}" for p in photos for end in (".png", "_steps.png", ".safetensors")}
    assert {p.name for p in out.iterdir()} == names == {p.name for r in results for p in r.files}
    for result, source in zip(results, photos, strict=True):
        found = load_method(name, "mini").invert(read(source))
        same_picture(result.files.picture, found.reconstruction[0])
        assert result.source == source and result.seconds > 0
        for ours, step in ((result.start, found.trace[0]), (result.end, found.trace[-1])):
            assert ours.mse == pytest.approx(float(step.error), rel=1e-3)
            pair = (step.reconstruction, read(source))
            assert ours.perceptual == pytest.approx(float(Edges()(*pair)), rel=1e-3)
        # what was saved generates the picture again, and its file says how it was made
        again = load_inversion(result.files.found, "mini")
        torch.testing.assert_close(again.reconstruction, found.reconstruction, atol=0.02, rtol=0)
        torch.testing.assert_close(again.w_plus, found.w_plus, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(again.generate(), again.reconstruction)
        assert (again.weights is None) == (found.weights is None)
    told = [line for line in lines if not line.startswith("  ")]
    assert len(told) == 2 and all("edges" in line and "start" in line and "MSE" in line for line in told)
    assert f"MSE {results[0].end.mse:.4f} (start {results[0].start.mse:.4f})" in told[0]
    assert (len(lines) > 2) == (name in ("w-plus", "projector", "pti")), "those that optimise tell their steps"


@pytest.mark.parametrize("name", ["pti", "hyperstyle"])
def test_only_tensors_that_changed_are_saved(mini_weights, files, tmp_path, name):
    (result,) = invert_files(files[:1], tmp_path / "out", "mini", name)
    tensors, meta = weights.safe_load(result.files.found, with_metadata=True)
    assert all(v.dtype == torch.float16 for v in tensors.values())
    assert meta["kind"] == "inversion" and meta["method"] == name and meta["synthetic"] == "true"
    own = weights.load_generator("mini").state_dict()
    changed = set(tensors) - {"w_plus"}
    assert tensors["w_plus"].shape == (8, 32) and changed and all(k.startswith("generator.") for k in changed)
    assert not any(torch.equal(tensors[k], own[k.removeprefix("generator.")].half()) for k in changed if "rgb" not in k)
    if name == "hyperstyle":
        assert changed == {f"generator.convs.{i}.conv.weight" for i in range(2, 6)}
    else:
        assert "generator.convs.0.conv.weight" in changed and "generator.style.1.weight" not in changed
    again = load_inversion(result.files.found, "mini")
    plain = again.generator.synthesis(again.w_plus)
    assert (plain - again.reconstruction).abs().mean() > 1e-3, "the changed tensors matter"


def test_batches_give_what_single_photos_give(mini_weights, files, tmp_path, monkeypatch):
    sizes, load = [], invert.load_method

    def counting(*args, **kwargs):
        method = load(*args, **kwargs)
        run = method.invert
        method.invert = lambda photos, watch=None: sizes.append(len(photos)) or run(photos, watch)
        return method

    monkeypatch.setattr(invert, "load_method", counting)
    together = invert_files(files, tmp_path / "together", "mini", "restyle-e4e")
    assert sizes == [4, 2]
    for path, result in zip(files, together, strict=True):
        (one,) = invert_files([path], tmp_path / "one", "mini", "restyle-e4e")
        assert np.abs(pixels(one.files.picture) - pixels(result.files.picture)).max() <= 1
        assert one.end.mse == pytest.approx(result.end.mse, rel=1e-3)
    sizes.clear()
    invert_files(files[:3], tmp_path / "optimised", "mini", "w-plus")
    assert sizes == [1, 1, 1]


def test_each_photo_of_a_batch_has_its_own_result(mini_weights, files, tmp_path, monkeypatch):
    """A stand-in gives every photo a bias of its own, and a weight that is the generator's: only the bias is saved."""
    g, bias = weights.load_generator("mini"), "to_rgbs.2.bias"

    class StandIn:
        name = "hyperstyle"

        def invert(self, photos, watch=None):
            own = tuple(
                {bias: g.to_rgbs[2].bias + 0.1 * (i + 1), "conv1.conv.weight": g.conv1.conv.weight.clone()}
                for i in range(len(photos))
            )
            w = g.expand(g.random_codes(len(photos), 40))
            start, end = g.synthesis(w), synthesise(g, w, own)
            trace = tuple(
                Step(k, 2.0 * k, torch.arange(len(photos)) + 1.0 - k / 2, y) for k, y in enumerate((start, end))
            )
            return Inversion(g, w, end, trace, 3.0, own)

    monkeypatch.setattr(invert, "load_method", lambda *args, **kwargs: StandIn())
    results = invert_files(files[:3], tmp_path / "out", "mini", "hyperstyle")
    batch = StandIn().invert(torch.zeros(3, 3, SIDE, SIDE))
    for i, result in enumerate(results):
        assert (result.seconds, result.start.mse, result.end.mse) == (1.0, i + 1.0, i + 0.5)  # a third of 3 s
        tensors = weights.safe_load(result.files.found)
        assert set(tensors) == {"w_plus", f"generator.{bias}"}
        torch.testing.assert_close(tensors[f"generator.{bias}"].float(), batch.weights[i][bias], atol=1e-3, rtol=0)
        torch.testing.assert_close(tensors["w_plus"].float(), batch.w_plus[i], atol=1e-3, rtol=1e-3)
        same_picture(result.files.picture, batch.reconstruction[i])
        found = load_inversion(result.files.found, "mini").reconstruction
        torch.testing.assert_close(found, batch.reconstruction[i : i + 1], atol=0.01, rtol=0)
        sheet = pixels(result.files.steps)
        for column, step in enumerate(batch.trace, 1):
            left = 4 + column * (SIDE + 4)
            shown = sheet[4 + 20 : 4 + 20 + SIDE, left : left + SIDE]
            assert np.array_equal(shown, images.to_array(step.reconstruction[i]))


def test_picture_of_the_steps(mini_weights, files, tmp_path, monkeypatch):
    """The photo, every point of the trace, the result last; with steps and seconds."""
    seen, sheet = [], images.contact_sheet
    monkeypatch.setattr(images, "contact_sheet", lambda *a, **k: seen.append((a, k)) or sheet(*a, **k))
    (result,) = invert_files(files[:1], tmp_path / "out", "mini", "restyle-psp")
    ((pages,), options) = seen[0]
    assert len(pages) == 7 and options["columns"] == 4  # two rows, as equal as can be
    assert np.array_equal(pages[0], images.load_image(files[0])) and np.array_equal(
        pages[-1], images.load_image(result.files.picture)
    )
    found = load_method("restyle-psp", "mini").invert(read(files[0]))
    for page, step in zip(pages[1:], found.trace, strict=True):
        assert np.abs(page.astype(int) - images.to_array(step.reconstruction[0])).max() <= 1
    titles = options["titles"]
    assert titles[0] == "photo" and [t.split(",")[0] for t in titles[1:]] == [f"step {i}" for i in range(6)]
    assert all(t.endswith(" s") for t in titles[1:])
    assert Image.open(result.files.steps).size == (4 * (SIDE + 4) + 4, 2 * (SIDE + 20 + 4) + 4)


def test_metadata_says_synthetic_and_how(mini_weights, files, tmp_path):
    source = images.save_image(tmp_path / "made.png", images.load_image(files[0]), {"seed": 7}, synthetic=True)
    (result,) = invert_files([source], tmp_path / "out", "mini", "e4e")
    for path in (result.files.picture, result.files.steps):
        about = images.read_metadata(path)
        assert about["synthetic"] == "true" and about["preset"] == "mini" and about["label"] == MINI.label
        assert about["method"] == "e4e" and about["photo"] == "made.png" and about["photo_sha256"] == sha256_of(source)
        assert about["weights_sha256"] == sha256_of(mini_weights / "mini-e4e.safetensors")
        assert about["generator"] == weights.fingerprint(weights.load_generator("mini"))
        assert json.loads(about["source_metadata"]) == {"seed": "7"}
        assert float(about["mse"]) == pytest.approx(result.end.mse, abs=1e-5)
    (plain,) = invert_files(files[:1], tmp_path / "plain", "mini", "w-plus")
    about = images.read_metadata(plain.files.picture)
    assert "weights_sha256" not in about and "source_metadata" not in about and about["updates"] == "4"


def test_mark_is_visible(mini_weights, files, tmp_path):
    (a,), (b,) = (invert_files(files[:1], tmp_path / str(m), "mini", "e4e", mark=m) for m in (False, True))
    for which in ("picture", "steps"):
        plain, marked = pixels(getattr(a.files, which)), pixels(getattr(b.files, which))
        assert not np.array_equal(plain[-8:], marked[-8:])
    assert np.array_equal(pixels(a.files.picture)[:20], pixels(b.files.picture)[:20])


def test_budgets_and_other_weights(mini_weights, files, tmp_path):
    (result,) = invert_files(files[:1], tmp_path / "a", "mini", "w-plus", budget=Budget(w_plus=2))
    assert images.read_metadata(result.files.picture)["updates"] == "2"
    torch.manual_seed(9)
    other = build_network("e4e", MINI, weights.load_generator("mini"))
    path = save_network(tmp_path / "other.safetensors", "e4e", other, MINI, {})
    for name in ("e4e", "pti"):  # for pti, the pivot's
        own, another = (
            invert_files(files[:1], tmp_path / f"{name}{w is None}", "mini", name, weights_file=w)[0]
            for w in (None, path)
        )
        assert images.read_metadata(another.files.picture)["weights_sha256"] == sha256_of(path)
        a, b = (load_inversion(r.files.found, "mini").w_plus for r in (own, another))
        assert (a - b).abs().mean() > 0.01
    with pytest.raises(S2FError, match="projector has no network of its own: leave out --weights"):
        invert_files(files[:1], tmp_path / "b", "mini", "projector", weights_file=path)
    with pytest.raises(WeightsError, match="another kind"):
        invert_files(files[:1], tmp_path / "b", "mini", "psp", weights_file=path)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(method="nerf"), "no inversion method 'nerf'"),
        (dict(which=0), "--align"),
        (dict(preset="huge"), "preset"),
        (dict(method="psp", weights_file="none.safetensors"), r"none\.safetensors"),
        (dict(method="w-plus", budget=Budget(w_plus=0)), "1 or more"),
    ],
)
def test_bad_options(mini_weights, files, tmp_path, options, message):
    with pytest.raises(S2FError, match=message):
        invert_files(files, tmp_path / "out", **{"preset": "mini"} | options)
    assert not (tmp_path / "out").exists()


def test_no_input_bad_input_and_out_is_a_file(mini_weights, files, tmp_path):
    with pytest.raises(S2FError, match="no photo"):
        invert_files([], tmp_path / "out", "mini", "e4e")
    for out in (files[0], tmp_path / "new.png"):
        with pytest.raises(S2FError, match="folder"):
            invert_files(files, out, "mini", "e4e")
    (tmp_path / "file").write_text("x")
    with pytest.raises(S2FError, match="is a file: choose a folder"):
        invert_files(files, tmp_path / "file", "mini", "e4e")
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"bad\.png"):
        invert_files([files[0], tmp_path / "bad.png"], tmp_path / "out", "mini", "e4e")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_unasked(mini_weights, files, tmp_path):
    out = tmp_path / "out"
    (result,) = invert_files(files[:1], out, "mini", "e4e")
    for mine in result.files:
        kept = mine.read_bytes()
        mine.write_bytes(b"mine")
        others = [path for path in result.files if path != mine]
        for path in others:
            path.rename(tmp_path / path.name)
        with pytest.raises(S2FError, match="exists already"):
            invert_files(files[:2], out, "mini", "e4e")
        assert mine.read_bytes() == b"mine" and len(list(out.iterdir())) == 1
        mine.write_bytes(kept)
        for path in others:
            (tmp_path / path.name).rename(path)
    invert_files(files[:2], out, "mini", "e4e", overwrite=True)
    assert Image.open(result.files.picture).size == (SIDE, SIDE) and len(list(out.iterdir())) == 6
    # a photo that has the name of a result is never replaced
    source = tmp_path / "sub" / "a_e4e.png"
    source.parent.mkdir()
    files[0].rename(tmp_path / "sub" / "a.png"), files[1].rename(source)
    with pytest.raises(S2FError, match="is one of the pictures to read"):
        invert_files([tmp_path / "sub" / "a.png", source], source.parent, "mini", "e4e", overwrite=True)


def test_same_names_do_not_collide(mini_weights, files, tmp_path):
    again = tmp_path / "sub" / "a.jpg"
    again.parent.mkdir()
    Image.open(files[1]).save(again)
    results = invert_files([files[0], again], tmp_path / "out", "mini", "e4e")
    assert [r.files.found.name for r in results] == ["a_e4e.safetensors", "a-2_e4e.safetensors"]


def test_photos_of_any_shape_and_aligned_ones(mini_weights, tmp_path, astronaut):
    """Without --align the centre square; with it, the face, framed by align_face."""
    from s2flib.datasets.align import align_face

    Image.fromarray(astronaut[:300]).save(tmp_path / "photo.png")
    framed = align_face(astronaut[:300], SIDE)
    for align, picture in ((False, images.centre_square(astronaut[:300], SIDE)), (True, framed)):
        (result,) = invert_files([tmp_path / "photo.png"], tmp_path / str(align), "mini", "e4e", align=align)
        expected = load_method("e4e", "mini").invert(images.as_float(picture)[None])
        same_picture(result.files.picture, expected.reconstruction[0])
        shown = pixels(result.files.steps)[4 + 20 : 4 + 20 + SIDE, 4 : 4 + SIDE]
        assert np.array_equal(shown, picture)
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "coffee.png")
    with pytest.raises(ImageError, match=r"coffee\.png.*no face"):
        invert_files([tmp_path / "coffee.png"], tmp_path / "out", "mini", "e4e", align=True)
    with pytest.raises(ImageError, match=r"photo\.png.*there is no face 3"):
        invert_files([tmp_path / "photo.png"], tmp_path / "out", "mini", "e4e", align=True, which=3)


# --- what was saved


@pytest.fixture
def saved(mini_weights, files, tmp_path):
    """Change the file of a HyperStyle inversion: change(tensors, metadata) → path."""
    (result,) = invert_files(files[:1], tmp_path / "out", "mini", "hyperstyle")

    def changed(change):
        tensors, meta = weights.safe_load(result.files.found, with_metadata=True)
        change(tensors, meta)
        return weights.save_safetensors(tmp_path / "found.safetensors", tensors, meta, half=False, overwrite=True)

    return changed


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, m: m.update(kind="e4e"), "another kind of checkpoint"),
        (lambda t, m: m.update(preset="tiny"), "another preset"),
        (lambda t, m: m.update(decoder="0" * 16), "another generator"),
        (lambda t, m: t.pop("w_plus"), "w_plus"),
        (lambda t, m: t.update(w_plus=t["w_plus"][:-1]), "w_plus as"),
        (lambda t, m: t["w_plus"].fill_(float("inf")), "NaN or infinite"),
        (lambda t, m: t.update({"generator.convs.9.conv.weight": torch.zeros(2)}), "does not have"),
        (lambda t, m: t.update({"generator.convs.2.conv.weight": torch.zeros(2)}), "does not have"),
        (lambda t, m: t.update({"convs.2.conv.weight": t.pop("generator.convs.2.conv.weight")}), "does not have"),
        (lambda t, m: t["generator.convs.2.conv.weight"].fill_(float("nan")), "NaN or infinite"),
    ],
)
def test_files_that_are_no_inversion(saved, change, message):
    with pytest.raises(WeightsError, match=message):
        load_inversion(saved(change), "mini")


def test_the_generator_may_be_given(saved):
    path = saved(lambda t, m: None)
    generator = weights.load_generator("mini")
    assert load_inversion(path, "mini", generator).generator is generator
    with pytest.raises(WeightsError, match="another generator"):
        load_inversion(path, "mini", small_generator(seed=1))


def test_a_published_encoders_own_generator_is_found(saved, monkeypatch):
    """Published encoders have copies of the generator that differ from the preset's own, at least in their noise."""
    import dataclasses

    own = small_generator(seed=1)
    path = saved(lambda t, m: m.update(decoder=weights.fingerprint(own), method="e4e"))
    with pytest.raises(WeightsError, match="another generator"):
        load_inversion(path, "mini")
    published = dataclasses.replace(
        MINI, inversion=dataclasses.replace(MINI.inversion, published=(("e4e", "e4e-ffhq"),))
    )
    asked = []
    network = build_network("e4e", MINI, own)
    monkeypatch.setattr(invert, "load_network", lambda name, preset: asked.append((name, preset)) or network)
    assert load_inversion(path, published).generator is own and asked == [("e4e", published)]
