"""The generator as a neural renderer, its mapping network, and the sketch encoder that starts from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from s2flib import presets
from s2flib.datasets.faces import open_dataset
from s2flib.datasets.live import Pool, render_people
from s2flib.errors import S2FError, WeightsError
from s2flib.psp import PSP, GradualStyleEncoder
from s2flib.synthfaces.causes import cause_names
from s2flib.training.encoder import EncoderConfig, EncoderTrainer, start_from
from s2flib.training.feed import KeptPeople, PeopleFeed
from s2flib.training.mapping import MappingConfig, MappingTrainer, train_mapping
from s2flib.training.neural_renderer import RendererConfig, RendererTrainer, train_renderer
from s2flib.training.sketch_styles import varied_sketches
from s2flib.training.trainer import make_accelerator
from s2flib.weights import load_generator
from s2flib.weights.load import load_tensors, save_psp

SMALL = replace(
    presets.TINY,
    size=64, encoder_size=64, loss_size=64, eval_size=64, style_dim=16, n_mlp=2, channel_base=512, channel_max=16,
    encoder_units=(1, 1, 1, 1), encoder_widths=(4, 4, 8, 8), encoder_head=4, feature_side=16,
)  # fmt: skip


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "tiny", SMALL)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return str(render_people(tmp_path_factory.mktemp("people"), 12, size=64, workers=2))


def config(people, tmp_path, **more):
    fields = dict(out=str(tmp_path / "run"), people=(people,), steps=4, batch=4, cpu=True, mixed_precision="no",
                  val_people=3, compile=False)  # fmt: skip
    return RendererConfig(**fields | more)


def trainer(cfg):
    return RendererTrainer(cfg, Pool(cfg.people), open_dataset("tiny", "val", limit=12), make_accelerator(cpu=True))


def weights(t):
    return torch.cat([p.detach().flatten() for p in t.nets.parameters()])


ADVERSARIAL = dict(lambda_adv=0.1, fresh=0.5, rendered=0.5, r1_every=2)


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    """renderer.safetensors after a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "tiny", SMALL)
        return str(train_renderer(config(people, tmp_path_factory.mktemp("trained"), lambda_id=0.1)))


@pytest.mark.parametrize("more", [dict(lambda_lpips=0.1), ADVERSARIAL])
def test_resumes_to_the_same_numbers(people, tmp_path, more):
    cfg = config(people, tmp_path, lambda_id=0.1, **more)
    whole, again = trainer(cfg), trainer(cfg)
    start = weights(whole)
    for _ in range(2):
        whole.step()
    torch.save(whole.state(), tmp_path / "state.pt")
    again.load(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(2):
        whole.step(), again.step()
    assert torch.equal(weights(whole), weights(again)) and not torch.equal(weights(whole), start)
    assert all(torch.equal(a, b) for a, b in zip(whole.ema.parameters(), again.ema.parameters(), strict=True))
    assert torch.equal(whole.w_avg, again.w_avg)


def test_every_network_learns(people, tmp_path):
    t = trainer(config(people, tmp_path, steps=100))
    before = {n: p.detach().clone() for n, p in t.nets.named_parameters()}
    first = t.step()
    for _ in range(24):
        last = t.step()
    assert last["l1"] < 0.9 * first["l1"]
    still = {n for n, p in t.nets.named_parameters() if torch.equal(p, before[n])}
    # the mapping network is trained later; images below the feature map's side are switched off
    off = ("generator.style.", "generator.to_rgb1.", "generator.to_rgbs.0.", "previews.")
    assert all(n.startswith(off) for n in still), still


def test_the_picture_of_w_is_that_of_its_features(people, tmp_path):
    g = trainer(config(people, tmp_path)).nets.generator
    w = torch.randn(2, g.n_styles, 16)
    with torch.no_grad():
        assert torch.allclose(g.synthesis(w), g.synthesis(w, features=g.coarse_features(w, 16)), atol=1e-5)


def test_validation_picture_and_files(people, tmp_path):
    t = trainer(config(people, tmp_path))
    values = t.validate()
    assert values["people"] == 12 and {"val_pencil_similarity", "val_line_rank10", "val_rendered_mse"} <= values.keys()
    assert all(np.isfinite(v) for v in values.values())
    samples = t.held_out()
    assert samples["photo"].shape == (3, 3, 64, 64) and samples["pencil"].shape == samples["line"].shape == (
        3,
        1,
        64,
        64,
    )
    assert not torch.equal(samples["photo"], samples["other"])
    assert t.picture().shape == (64 * 7, 64 * 3, 3)


def test_the_coarse_layers_grow_alone(people, tmp_path):
    """8 px, then 16 px: neither needs a sketch; the encoder and the fine layers stay as they are."""
    first = trainer(config(people, tmp_path, size=8, reconstructed=0.0, rendered=1.0, steps=100, lr=1e-2))
    before = {n: p.detach().clone() for n, p in first.nets.named_parameters()}
    start = first.validate()
    for _ in range(60):
        assert first.step().keys() == {"rendered_l1", "rendered_face"}
    assert start.keys() == {"people", *(f"val_rendered_{k}" for k in ("mse", "similarity", "rank1", "rank10"))}
    assert first.validate()["val_rendered_mse"] < 0.8 * start["val_rendered_mse"]
    learnt = {n for n, p in first.nets.named_parameters() if not torch.equal(p, before[n])}
    assert {n.split(".")[0] for n in learnt} == {"causes", "generator", "previews"}
    assert first.picture().shape == (64 * 2, 64 * 3, 3)
    first.export(tmp_path)
    path = str(tmp_path / "renderer.safetensors")
    second = trainer(config(people, tmp_path, size=16, reconstructed=0.0, rendered=1.0, init=path))
    with torch.no_grad():
        w = torch.randn(2, 2 * 4 - 2, 16)
        features = [t.generator.coarse_features(w[:, : t.generator.n_styles], 8) for t in (first.ema, second.nets)]
    # the stored noise has its own resolution in both: only the weights are taken over
    assert torch.allclose(*features, atol=0.05)
    assert "rendered_l1" in second.step()


def test_face_and_picture_take_turns_before_the_perceptual_judge(people, tmp_path):
    """At 128 px: the picture at half size in even steps, the face at full size in odd ones; below, no face."""
    t, asked = trainer(config(people, tmp_path, lambda_lpips=2.0)), []
    t.perceptual = lambda x, y: asked.append((x, y)) or (x - y).square().mean((1, 2, 3))
    photo, y = torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128)
    for done, name in ((0, "lpips"), (1, "lpips_face"), (2, "lpips")):
        t.done = done
        loss, stats = t.picture_losses(photo, y)
        assert {"lpips", "lpips_face"} & stats.keys() == {name} and asked[-1][0].shape == (2, 3, 64, 64)
        assert torch.allclose(loss, stats["l1"] + stats["face"] + 2.0 * stats[name])
    assert torch.allclose(asked[0][1], torch.nn.functional.adaptive_avg_pool2d(y, 64))
    assert torch.equal(asked[1][1], y[:, :, 38:102, 32:96])
    t.done = 1
    assert "lpips" in t.picture_losses(photo[..., ::2, ::2], y[..., ::2, ::2])[1]


def test_the_critic_learns_what_belongs_together(people, tmp_path):
    """Shown photos only: with their own causes as real, with another person's as fake."""
    t = trainer(config(people, tmp_path, steps=1000, lr=5e-3, **ADVERSARIAL))
    photo, _, known = t.feed.everything(0)
    told, other = (t.nets.causes.standardise(known[k]) for k in (slice(None), [1, 2, 3, 0]))
    t.done = 101
    for _ in range(60):
        stats = t.update_the_critic(photo, told, photo, other)
    assert stats["critic"] < 0.8 and stats["critic_right"] == 1


def test_r1_is_the_gradient_at_photos(people, tmp_path):
    t = trainer(config(people, tmp_path, **ADVERSARIAL))
    photo, _, known = t.feed.everything(0)
    told = t.nets.causes.standardise(known)
    got = float(t.update_the_critic(photo, told, torch.zeros_like(photo), told)["r1"].detach())
    t = trainer(config(people, tmp_path, **ADVERSARIAL)).critic.double()
    x, c = photo.double(), told.double()
    direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        slope = (t(x + 1e-6 * direction, c).sum() - t(x - 1e-6 * direction, c).sum()) / 2e-6
    x.requires_grad_()
    (grad,) = torch.autograd.grad(t(x, c).sum(), x)
    assert torch.isclose((grad * direction).sum(), slope, rtol=0.02)  # statistics over the batch are float32
    assert got == pytest.approx(float(grad.square().sum() / len(x)), rel=1e-3)


def test_fresh_people_are_new_at_every_step(people, tmp_path):
    t = trainer(config(people, tmp_path, **ADVERSARIAL))
    first = t.fresh_causes(2)
    t.done = 1
    second = t.fresh_causes(2)
    assert first.shape == (2, len(cause_names())) and not torch.equal(first, second)
    shown = torch.from_numpy(Pool([people]).batch(np.arange(12))[3])
    assert torch.cdist(torch.cat([first, second]), shown).min() > 1
    assert t.fresh_causes(0).shape == (0, len(cause_names()))


def test_the_adversary_moves_what_is_drawn(people, tmp_path):
    """The same step with and without it: the generator's gradient differs, also where no photo is compared."""
    plain, sharp = (trainer(config(people, tmp_path, **ADVERSARIAL | dict(lambda_adv=v))) for v in (1e-9, 5.0))
    for t in (plain, sharp):
        t.done = 3
        stats = t.step()
    assert {"adversarial", "critic", "critic_right"} <= stats.keys()
    assert not torch.allclose(weights(plain), weights(sharp), atol=1e-4)


def test_a_stage_grows_from_half_the_size(people, tmp_path):
    small = config(people, tmp_path, size=32)
    half = trainer(small)
    half.step()
    half.export(tmp_path)
    whole = trainer(config(people, tmp_path, init=str(tmp_path / "renderer.safetensors")))
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        w, features = half.ema.encode(x, half.w_avg)
        before = half.ema.generator.synthesis(w.half().float(), noise=None, features=features)
        w2, features2 = whole.nets.eval().encode(x, whole.w_avg)
        after = whole.nets.generator.synthesis(w2, noise=None, features=features2)
        enlarged = whole.nets.generator.to_rgbs[-1].upsample(before)
    assert torch.allclose(after, enlarged, atol=0.03)  # float16 file


def test_sketches_of_many_styles(people):
    photo, mask, drawing, _ = (torch.from_numpy(a) for a in Pool([people]).batch(np.arange(8)))
    photo, drawing = photo.float() / 127.5 - 1, drawing[:, None].float() / 255
    seen = []
    for seed in range(12):
        torch.manual_seed(seed)
        x = varied_sketches(photo, mask, drawing, share=0.5)
        assert x.shape == (8, 1, 64, 64) and 0 <= x.min() and x.max() <= 1
        seen.append(x)
    torch.manual_seed(3)
    assert torch.equal(varied_sketches(photo, mask, drawing, 0.5), seen[3])
    assert len({float(x.mean()) for x in seen}) == 12
    torch.manual_seed(1)
    lines, pencil = varied_sketches(photo, mask, drawing, 1.0), varied_sketches(photo, mask, drawing, 0.0)

    def likeness(a):
        return torch.stack(
            [torch.corrcoef(torch.stack([x.flatten(), d.flatten()]))[0, 1] for x, d in zip(a, drawing, strict=True)]
        )

    assert likeness(lines).min() > 0.7 and likeness(pencil).mean() < likeness(lines).mean()


def test_people_join_only_when_asked(people, tmp_path):
    class Growing(Pool):
        n = 8

        def __len__(self):
            return self.n

    pool = Growing([people])
    feed = PeopleFeed(pool, 4, 0, make_accelerator(cpu=True), 0.4)
    torch.manual_seed(0)
    photo, sketch, known = feed.everything(1)
    assert photo.shape == (4, 3, 64, 64) and sketch.shape == (4, 1, 64, 64) and known.shape == (4, len(cause_names()))
    pool.n = 12
    torch.manual_seed(0)
    assert torch.equal(feed.everything(1)[0], photo)
    feed.refresh()
    assert feed.used == 12
    with pytest.raises(S2FError, match="only 12 people"):
        PeopleFeed(pool, 16, 0, make_accelerator(cpu=True), 0.4)


def test_people_kept_on_a_device_are_those_of_the_pool(people):
    pool, index = Pool([people]), np.array([7, 0, 7])
    kept = KeptPeople(pool, torch.device("cpu"), memory=10**9)
    for used in (8, 8, 12):  # more may join later
        for a, b in zip(kept.batch(index, used), pool.batch(index), strict=True):
            assert torch.equal(a, torch.from_numpy(b))
        assert len(kept.arrays[0]) == used
    assert torch.equal(kept.batch(np.array([11]), 12)[0], torch.from_numpy(pool.batch(np.array([11]))[0]))
    one = sum(a[0].nbytes for a in pool.batch(np.arange(1)))
    assert KeptPeople(pool, torch.device("cpu"), 12 * one).fits(12)
    tight = KeptPeople(pool, torch.device("cpu"), 12 * one - 1)
    tight.batch(index, 8)
    assert tight.fits(11) and tight.arrays and not tight.fits(12) and not tight.arrays  # released
    feed = PeopleFeed(pool, 4, 0, make_accelerator(cpu=True), 0.4)
    torch.manual_seed(0)
    from_pool = feed.everything(3)
    feed.kept = kept
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(feed.everything(3), from_pool, strict=True))


def test_refuses(people, tmp_path, monkeypatch, trained):
    for wrong, words in (
        (dict(reconstructed=0.0, rendered=0.1), "would draw nothing"),
        (dict(size=8), "below 16 px nothing is drawn from sketches"),
        (dict(size=4), "power of two from 8 to 64"),
        (dict(size=48), "power of two from 8 to 64"),
        (dict(rendered=1.5), "rendered is a share"),
        (dict(lines=-0.1), "lines is a share"),
    ):
        with pytest.raises(S2FError, match=words):
            trainer(config(people, tmp_path, **wrong))
    with pytest.raises(S2FError, match="no people were given"):
        Pool([])
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(SMALL, feature_side=None))
    with pytest.raises(S2FError, match="feature map"):
        trainer(config(people, tmp_path))
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(SMALL, size=32))
    with pytest.raises(S2FError, match="people of its size"):
        trainer(config(people, tmp_path))
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(SMALL, encoder_head=8))
    with pytest.raises(WeightsError, match="does not fit"):
        trainer(config(people, tmp_path, init=trained))


# --- the mapping network


def mapping_config(people, tmp_path, trained, **more):
    return MappingConfig(
        **dict(out=str(tmp_path / "mapping"), people=(people,), init=trained, steps=60, batch=32, cpu=True,
               mixed_precision="no") | more)  # fmt: skip


def test_mapping_learns_mean_and_spread_of_the_codes(people, tmp_path, trained):
    t = MappingTrainer(mapping_config(people, tmp_path, trained, steps=1000), Pool([people]), make_accelerator(True))
    start = t.validate()
    for _ in range(1000):
        t.step()
    end = t.validate()
    assert end["val_mean"] < 0.25 < start["val_mean"] and abs(end["val_deviation"] - 1) < 0.3
    covariance = t.root @ t.root.T
    assert torch.allclose(covariance, torch.cov(t.codes.T, correction=0), atol=1e-3)
    with torch.no_grad():
        drawn = torch.cov(t.ema(torch.randn(4000, 16, generator=torch.Generator().manual_seed(2))).T)
    assert (drawn - covariance).norm() < 0.3 * covariance.norm()


def test_mapping_resumes_and_exports_a_generator(people, tmp_path, trained):
    cfg = mapping_config(people, tmp_path, trained, steps=6)
    whole, again = (MappingTrainer(cfg, Pool([people]), make_accelerator(True)) for _ in range(2))
    for _ in range(4):
        whole.step()
    torch.save(whole.state(), tmp_path / "state.pt")
    again.load(torch.load(tmp_path / "state.pt", weights_only=True))
    whole.step(), again.step()
    for a, b in zip(whole.mapping.parameters(), again.mapping.parameters(), strict=True):
        assert torch.equal(a, b)
    generator = load_generator("tiny", train_mapping(cfg))
    stored = load_tensors(trained, "neural-renderer")
    assert torch.equal(generator.convs[0].conv.weight, stored["generator.convs.0.conv.weight"])
    assert not torch.equal(generator.style[1].weight, stored["generator.style.1.weight"])
    assert torch.allclose(generator.latent_avg, generator.mean_latent(), atol=2e-3)


def test_mapping_needs_a_renderer_of_full_size(people, tmp_path):
    half = trainer(config(people, tmp_path, size=32))
    half.export(tmp_path)
    with pytest.raises(WeightsError, match="full size"):
        MappingTrainer(
            mapping_config(people, tmp_path, str(tmp_path / "renderer.safetensors")),
            Pool([people]),
            make_accelerator(True),
        )


# --- pSp's training goes on from there


def test_the_sketch_encoder_starts_as_the_renderers(people, tmp_path, trained, monkeypatch):
    generator = str(train_mapping(mapping_config(people, tmp_path, trained, steps=2)))
    cfg = EncoderConfig(
        out=str(tmp_path / "encoder"), steps=2, batch=2, cpu=True, mixed_precision="no", generator=generator,
        init=trained, people=(people,), lambda4=0.5, lambda_id=0.1, ema_images=100, plain=0.5,
    ).resolved()  # fmt: skip
    val = open_dataset("tiny", "val", limit=2)
    t = EncoderTrainer(cfg, None, val, make_accelerator(cpu=True))
    r = trainer(config(people, tmp_path, init=trained))
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        w, features = r.nets.eval().encode(x, r.w_avg)
        own, own_features = t.psp.eval().encode_all(x)
    assert torch.allclose(w, own, atol=1e-5) and torch.allclose(features, own_features, atol=1e-5)
    t.psp.train()
    stats = t.step()
    assert {"l2", "plain_l2", "total"} <= stats.keys()
    t.step()
    assert t.picture().shape == (64 * 4, 64 * 2, 3) and "val_l2" in t.validate()
    compared = []
    loss = t.loss.forward
    monkeypatch.setattr(t.loss, "forward", lambda *args: compared.append((*args, loss(*args)[0])) or loss(*args))
    asked = []
    targets = t.loss.targets
    monkeypatch.setattr(t.loss, "targets", lambda photo, sketch=None: asked.append(len(photo)) or targets(photo))
    t.step()
    assert asked == [2] and [len(args[0]) for args in compared] == [2, 1]  # the photos' features once, for both faces
    for photo, y, w_plus, w_avg, known, total in compared:
        assert all(len(f) == len(photo) for v in known.values() for f in (v if isinstance(v, list) else [v]))
        torch.testing.assert_close(loss(photo, y, w_plus, w_avg, targets(photo))[0], total)
    other = torch.randn(t.psp.latent_avg.shape)  # another w̄, one for each row: w+ itself stays
    start = GradualStyleEncoder.from_preset("tiny").eval()
    save_psp(tmp_path / "psp.safetensors", PSP(t.ema, t.psp.decoder, other).eval(), "tiny")
    start_from(start, str(tmp_path / "psp.safetensors"), SMALL, torch.zeros(16))
    with torch.no_grad():
        assert torch.allclose(start(x), t.ema(x) + other, atol=5e-3)  # a float16 file


def test_training_on_people_opens_no_other_photos(people, tmp_path, monkeypatch):
    from s2flib.training import encoder

    asked = []
    monkeypatch.setattr(encoder, "open_dataset", lambda preset, split, **more: asked.append(split) or split)
    monkeypatch.setattr(encoder, "EncoderTrainer", lambda cfg, train, val, acc: (train, val))
    seen = []
    monkeypatch.setattr(encoder, "run_training", seen.append)
    for given in ((people,), ()):
        encoder.train_encoder(EncoderConfig(out=str(tmp_path), cpu=True, people=given))
    assert seen == [(None, "val"), ("train", "val")] and asked == ["val", "train", "val"]
