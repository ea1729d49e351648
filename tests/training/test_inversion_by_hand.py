"""One update of each inversion network, and of e4e's critic, against the papers' formulas written out with autograd."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from fake_faces import Cells
from inversion_cases import naive_distances
from inversion_networks import (
    DIM,
    MINI,
    STYLES,
    made_photos,
    make_trainer,
    mini_data_fixture,  # noqa: F401  (fixture)
    mini_weights_fixture,  # noqa: F401  (fixture)
    save_generator,
    small_generator,
    untrained,
)

from s2flib import weights
from s2flib.errors import WeightsError
from s2flib.inversion.hypernetwork import conv_layers
from s2flib.inversion.networks import load_network, save_network
from s2flib.inversion.protocol import synthesise
from s2flib.training import inversion
from s2flib.training.feed import seed_step
from s2flib.training.loop import run_training
from s2flib.training.trainer import Updates


@pytest.fixture
def trainer(mini_weights, tmp_path):
    """trainer(name, **options) on eight photos."""
    return lambda name, **options: make_trainer(name, tmp_path, train=8, val=4, **options)


def first_step(trainer):
    """The trainer's gradients of its first step by name, its losses, the step's photos, and the network before."""
    before = copy.deepcopy(trainer.network)
    trainer.finish_step = lambda: None
    seed_step(0, 0)
    stats = trainer.train_step()
    found = {name: p.grad for name, p in trainer.network.named_parameters() if p.grad is not None}
    seed_step(0, 0)
    return found, stats, trainer.photos(), before


def same_gradients(found, network):
    own = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert set(found) == set(own) and any(g.any() for g in own.values())
    for name in own:
        torch.testing.assert_close(found[name], own[name], msg=name, atol=1e-6, rtol=2e-3)


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_psp(trainer, reg):
    """The losses of G(E(x) + w̄) with new noise, and λ_reg ‖w+ − w̄‖."""
    t = trainer("psp", lambda_reg=reg, lambda_lpips=0.0)
    found, stats, photo, network = first_step(t)
    codes = network.encoder(photo)
    y = t.generator.synthesis(codes + t.generator.latent_avg, noise="random")
    l2 = (y - photo).square().mean()
    (l2 + reg * codes.flatten(1).norm(dim=1).mean()).backward()
    same_gradients(found, network)
    torch.testing.assert_close(stats["l2"], l2.detach())
    assert all(name.startswith("encoder.") for name in found)


@pytest.mark.parametrize("name", ["restyle-psp", "restyle-e4e"])
def test_restyle(trainer, name):
    """Each of three passes has its own loss, a third of which is trained; none trains the passes before it."""
    t = trainer(name, passes=3, lambda_lpips=0.0)
    found, stats, photo, network = first_step(t)
    w = t.generator.latent_avg.expand(len(photo), STYLES, DIM)
    y = t.generator.synthesis(w)
    for _ in range(3):
        w = w.detach() + network.encoder(torch.cat([photo, y.detach()], 1))
        y = t.generator.synthesis(w, noise="random")
        loss = (y - photo).square().mean()
        (loss / 3).backward()
    same_gradients(found, network)
    torch.testing.assert_close(stats["l2"], loss.detach())  # the last pass's


def test_hyperstyle(trainer):
    """θ(1 + Δ_1 + Δ_2): the second pass trains Δ_2 alone, from the picture of the first."""
    t = trainer("hyperstyle", passes=2, lambda_lpips=0.0)
    for head in t.network.heads:  # an untrained one outputs zeros in both passes
        torch.nn.init.normal_(head.weights.weight, std=0.1)
    found, stats, photo, network = first_step(t)
    g, layers = t.generator, conv_layers(t.generator)
    with torch.no_grad():
        w = network.base.encoder(photo) + g.latent_avg
        y = g.synthesis(w)
    sums = [0.0] * len(layers)
    for _ in range(2):
        features = network.backbone(torch.cat([photo, y.detach()], 1))
        sums = [before + head(features) for before, head in zip(sums, network.heads, strict=True)]
        theta = [
            {layer.name: g.get_parameter(layer.name) * (1 + d[b]) for layer, d in zip(layers, sums, strict=True)}
            for b in range(len(photo))
        ]
        y = synthesise(g, w, theta)
        loss = (y - photo).square().mean()
        (loss / 2).backward()
        sums = [d.detach() for d in sums]
    same_gradients(found, network)
    torch.testing.assert_close(stats["l2"], loss.detach())
    assert not any(name.startswith("base.") for name in found)


def test_hyperinverter(trainer):
    t = trainer("hyperinverter", lambda_lpips=0.0)
    for head in t.network.heads:
        torch.nn.init.normal_(head.weights.weight, std=0.1)
    found, stats, photo, network = first_step(t)
    g, n, layers = t.generator, len(photo), conv_layers(t.generator)
    with torch.no_grad():
        w = (network.base.encoder(photo)[:, :1] + g.latent_avg).expand(n, STYLES, DIM)
        y = g.synthesis(w)
    both = network.features(torch.cat([photo, y]))  # batch norm sees both together
    fused = network.fuse(torch.cat([both[:n], both[n:]], 1))
    changes = [head(fused) for head in network.heads]
    theta = [
        {layer.name: g.get_parameter(layer.name) + d[b] for layer, d in zip(layers, changes, strict=True)}
        for b in range(n)
    ]
    loss = (synthesise(g, w, theta) - photo).square().mean()
    loss.backward()
    same_gradients(found, network)
    torch.testing.assert_close(stats["l2"], loss.detach())
    assert not any(name.startswith("base.") for name in found)


def test_losses_of_pictures(mini_weights, tmp_path, monkeypatch):
    """λ_l2 L2 + λ_lpips LPIPS at its own size (16 px) + λ_id ID."""
    monkeypatch.setattr(inversion, "identity_judge", lambda preset, role: Cells())
    t = make_trainer("psp", tmp_path, train=8, val=4, lambda_l2=2.0, lambda_lpips=0.5, lambda_id=0.25)
    x, y = (made_photos(small_generator(), 3, seed, 3.0) for seed in (1, 2))
    total, parts = t.picture_loss(x, y)
    half = [p.reshape(3, 3, 16, 2, 16, 2).mean((3, 5)) for p in (x, y)]
    cells = [p.reshape(3, 3, 4, 8, 4, 8).mean((3, 5)).flatten(1) for p in (x, y)]
    expected = {
        "l2": (x - y).square().mean(),
        "lpips": sum(naive_distances(a, b)[1] for a, b in zip(*half, strict=True)) / 3,
        "id": 1 - torch.nn.functional.cosine_similarity(*cells).mean(),
    }
    assert set(parts) == set(expected)
    for k, v in expected.items():
        torch.testing.assert_close(parts[k], v, msg=k)
    torch.testing.assert_close(total, 2 * expected["l2"] + 0.5 * expected["lpips"] + 0.25 * expected["id"])


def test_learning_rate(trainer):
    t = trainer("psp", steps=100, lr=0.5, anneal=0.2)
    for t.done, rate in ((0, 0.5), (80, 0.5), (90, 0.25), (99, 0.025)):
        t.train_step()
        assert t.update.optimiser.param_groups[0]["lr"] == pytest.approx(rate)
    constant = trainer("psp", steps=100, lr=0.5, anneal=0.0)
    constant.done = 99
    assert constant.learning_rate() == 0.5


# --- e4e


def test_stages_of_a_run(trainer):
    """8 rows, 200 steps: one offset at a tenth, the last of seven by 30 %: 40 steps for six more, every 6th."""
    t = trainer("e4e", steps=200)
    for t.done, stage in {0: 0, 19: 0, 20: 1, 25: 1, 26: 2, 32: 3, 38: 4, 44: 5, 50: 6, 55: 6, 56: 7, 199: 7}.items():
        t.set_stage()
        assert t.network.encoder.stage == t.ema.encoder.stage == stage, t.done


def test_a_step_trains_the_offsets_it_has_reached(trainer):
    options = dict(steps=100, progress_from=0.02, progress_to=0.1)
    t = trainer("e4e", **options)
    t.finish_step = lambda: None
    for t.done, used in ((0, 0), (1, 0), (2, 1), (3, 2), (50, 7)):
        t.train_step()
        heads = t.network.encoder.styles
        trained = [bool(h.linear.weight.grad is not None and h.linear.weight.grad.any()) for h in heads]
        assert trained == [i <= used for i in range(STYLES)], t.done
    t.done, again = 4, trainer("e4e", **options)
    again.load(t.state())
    assert again.network.encoder.stage == again.ema.encoder.stage == 3


def test_losses_of_codes(trainer):
    """λ_delta Σ ‖Δ_i‖ + λ_adv softplus(−D(row)), by the critic as it was before its own update."""
    t = trainer("e4e", lambda_delta=0.3, lambda_adv=0.7, critic_lr=0.1)
    critic = copy.deepcopy(t.critic)
    w = torch.randn(2, STYLES, DIM, requires_grad=True)
    own = w.detach().clone().requires_grad_()
    parts, total = t.code_losses(w, torch.tensor(5.0))
    delta = sum((own[b, i] - own[b, 0]).norm() for b in range(2) for i in range(1, STYLES)) / 2
    adversarial = torch.log(1 + torch.exp(-critic(own.reshape(2 * STYLES, DIM)))).mean()
    expected = 5 + 0.3 * delta + 0.7 * adversarial
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(parts["delta"], delta.detach())
    torch.testing.assert_close(parts["adversarial"], adversarial.detach())
    (a,), (b,) = torch.autograd.grad(total, [w]), torch.autograd.grad(expected, [own])
    torch.testing.assert_close(a, b)
    assert not torch.equal(t.critic.layers[0].weight, critic.layers[0].weight)
    assert not any(v.requires_grad for v in parts.values())


@pytest.mark.parametrize("done, regularised", [(0, True), (1, False), (3, True)])
def test_update_of_the_critic(trainer, done, regularised):
    """Adam on softplus(−D(f(z))) + softplus(D(rows)), every third step with γ/2 · 3 · ‖∇D‖² at f(z)."""
    t = trainer("e4e", critic_lr=0.01, r1_every=3, r1_gamma=4.0, pool=0)
    own, rows = copy.deepcopy(t.critic), torch.randn(6, DIM)
    t.done = done
    torch.manual_seed(5)
    stats = t.update_the_critic(rows)
    torch.manual_seed(5)
    mapped = t.generator.style(torch.randn(6, DIM)).requires_grad_()
    real = own(mapped)
    loss = torch.log1p(torch.exp(-real)).mean() + torch.log1p(torch.exp(own(rows))).mean()
    torch.testing.assert_close(stats["critic"], loss)
    assert ("r1" in stats) == regularised
    if regularised:
        (slope,) = torch.autograd.grad(real.sum(), mapped, create_graph=True)
        torch.testing.assert_close(stats["r1"], slope.square().sum(1).mean())
        loss = loss + 4.0 / 2 * 3 * slope.square().sum(1).mean()
    loss.backward()
    torch.optim.Adam(own.parameters(), lr=0.01).step()
    for (name, p), q in zip(own.named_parameters(), t.critic.parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=name, atol=1e-5, rtol=1e-3)


def test_the_critic_sees_the_pool(trainer, monkeypatch):
    """Not only the step's rows: the loss is that of what the pool returns."""
    t, seen = trainer("e4e", pool=10), []
    rows = torch.randn(20, DIM)
    monkeypatch.setattr(t.pool, "exchange", lambda codes: seen.append(codes) or codes + 100)
    critic = copy.deepcopy(t.critic)
    torch.manual_seed(5)
    stats = t.update_the_critic(rows)
    torch.manual_seed(5)
    mapped = t.generator.mapping(torch.randn(20, DIM))
    expected = (
        torch.nn.functional.softplus(-critic(mapped)).mean() + torch.nn.functional.softplus(critic(rows + 100)).mean()
    )
    torch.testing.assert_close(stats["critic"], expected)
    assert len(seen) == 1 and torch.equal(seen[0], rows)


# --- resuming, starting


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_e4e_resumes_in_each_precision(trainer, tmp_path, precision):
    """A CPU loss scaler stands in for CUDA's: it starts so high that its first steps overflow."""
    options = dict(mixed_precision=precision, lr=0.01, r1_every=2, pool=40)
    whole, again = (trainer("e4e", **options) for _ in range(2))
    for t in (whole, again) if precision == "fp16" else ():
        for each in (v for v in vars(t).values() if isinstance(v, Updates)):
            each.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-12)
    start = copy.deepcopy(whole.network.state_dict())
    for _ in range(9):
        whole.step()
    torch.save(whole.state(), tmp_path / "state.pt")
    again.load(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(2):
        whole.step(), again.step()
    for part in ("network", "ema", "critic"):
        a, b = (getattr(t, part).state_dict() for t in (whole, again))
        assert all(torch.equal(a[k], b[k]) and a[k].isfinite().all() for k in a)
    assert torch.equal(whole.pool.codes, again.pool.codes) and len(whole.pool.codes) == 40
    moved = [k for k, v in whole.network.state_dict().items() if not torch.equal(v, start[k])]
    assert any(k.startswith("encoder.") for k in moved) and not any(k.startswith("decoder.") for k in moved)


def test_a_stopped_run_is_continued(mini_weights, tmp_path):
    """Through the loop: stopped by Ctrl-C after a checkpoint, then resumed, against a run that was never stopped."""
    options = dict(train=8, val=4, steps=9, lr=0.01, save_every=0.0)
    run_training(make_trainer("e4e", tmp_path / "whole", **options))
    stopped = make_trainer("e4e", tmp_path / "stopped", **options)
    step = stopped.train_step
    stopped.train_step = lambda: step() if stopped.done < 6 else (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run_training(stopped)
    run_training(make_trainer("e4e", tmp_path / "stopped", **options, resume=True))
    a, b = (weights.safe_load(tmp_path / name / "e4e.safetensors") for name in ("whole", "stopped"))
    assert set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(WeightsError, match="lambda_delta differ"):
        run_training(make_trainer("e4e", tmp_path / "stopped", **options, resume=True, lambda_delta=0.1))


def test_start_from_a_file(trainer, mini_weights):
    """What has a namesake of its shape is copied: not w̄, not a first layer of 3 channels, not heads of another kind."""
    path = str(mini_weights / "mini-photo-psp.safetensors")
    there = {k: v.float() for k, v in weights.safe_load(path).items()}
    for name, part in (
        ("psp", "encoder"),
        ("restyle-psp", "encoder"),
        ("hyperstyle", "backbone"),
        ("hyperinverter", "features"),
    ):
        fresh, started = (trainer(name, init=init).network for init in (None, path))
        before, copied = fresh.state_dict(), 0
        for k, v in started.state_dict().items():
            source = there.get("encoder." + k.removeprefix(f"{part}.")) if k.startswith(f"{part}.") else None
            fits = source is not None and source.shape == v.shape and (name == "psp" or ".styles." not in k)
            torch.testing.assert_close(v.float(), source if fits else before[k].float(), msg=f"{name} {k}")
            copied += fits
        assert copied > 30, name
        inputs = started.get_parameter(f"{part}.input_layer.0.weight")
        assert (inputs.shape[1] == 3) == (name in ("psp", "hyperinverter"))


def test_starting_keeps_w_avg_and_frozen_parts(trainer, mini_weights, tmp_path):
    tensors = {k: v + 1 for k, v in weights.safe_load(mini_weights / "mini-photo-psp.safetensors").items()}
    tensors |= {f"decoder.{k}": v + 1 for k, v in small_generator().state_dict().items()}
    path = weights.save_safetensors(tmp_path / "init.safetensors", tensors, {"kind": "psp", "preset": "mini"})
    t = trainer("psp", init=str(path))
    assert weights.fingerprint(t.network.decoder) == weights.fingerprint(weights.load_generator("mini"))
    assert torch.equal(t.network.latent_avg[0], t.generator.latent_avg)
    torch.testing.assert_close(t.network.encoder.styles[0].linear.bias, tensors["encoder.styles.0.linear.bias"].float())


def test_files_to_start_from_that_do_not_fit(trainer, tmp_path):
    for tensors in ({"spare": torch.zeros(3)}, {"encoder.input_layer.1.num_batches_tracked": torch.tensor(7)}):
        path = weights.save_safetensors(tmp_path / "x.safetensors", tensors, {}, overwrite=True)
        with pytest.raises(WeightsError, match="no tensor that fits"):
            trainer("psp", init=str(path))
    for content in ([torch.zeros(3)], {"encoder.input_layer.2.weight": "text"}):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(WeightsError, match="no tensor that fits"):
            trainer("psp", init=str(tmp_path / "x.pt"))
    with pytest.raises(WeightsError, match="no weights file"):
        trainer("psp", init=str(tmp_path / "none.safetensors"))


def test_hypernetworks_keep_to_their_base_and_generator(trainer, mini_weights, tmp_path):
    generator = weights.load_generator("mini")
    e4e = untrained("e4e", generator)
    with torch.no_grad():
        e4e.encoder.styles[0].linear.bias.add_(1)
    other = save_network(tmp_path / "e4e.safetensors", "e4e", e4e, MINI, {})
    trainer("hyperstyle", base=str(other)).export(tmp_path)
    path = tmp_path / "hyperstyle.safetensors"
    assert load_network("hyperstyle", MINI, path, base=other).base.encoder.styles[0].linear.bias.mean() > 0.5
    with pytest.raises(WeightsError, match="another e4e"):
        load_network("hyperstyle", MINI, path)
    with pytest.raises(WeightsError, match="another kind"):
        trainer("hyperstyle", base=str(mini_weights / "mini-photo-psp.safetensors"))
    file = save_generator(tmp_path / "other.safetensors", small_generator(seed=1))
    with pytest.raises(WeightsError, match="another generator"):
        trainer("hyperinverter", generator=str(file))
    t = trainer("hyperstyle")
    own = {id(p) for n, p in t.network.named_parameters() if not n.startswith("base.")}
    assert {id(p) for p in t.update.params} == own, "the optimiser has exactly what is saved"


def test_the_function_of_the_command(mini_weights, tmp_path):
    """The preset's data set, then the file named after the network."""
    cfg = inversion.PhotoPSPConfig(
        out=str(tmp_path), preset="mini", steps=1, batch=2, limit=2, val_limit=2, lambda_id=0.0, cpu=True
    )
    path = inversion.train_photo_psp(cfg)
    assert path == tmp_path / "psp.safetensors" and load_network("psp", "mini", path).encoder.input_nc == 3
    assert dataclasses.asdict(cfg)["anneal"] == 0.5


def test_pictures_of_a_run(trainer):
    """Columns: validation photos; rows: photo, starting point, result."""
    t = trainer("psp")
    picture = torch.from_numpy(t.picture().copy()).movedim(2, 0) / 127.5 - 1
    assert picture.shape == (3, 3 * 32, 4 * 32)
    average = t.generator.synthesis(t.generator.expand(t.generator.latent_avg[None]))[0].clamp(-1, 1)
    for row, column, expected in ((0, 0, t.val.photos[0]), (0, 3, t.val.photos[3]), (1, 2, average)):
        shown = picture[:, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        torch.testing.assert_close(shown, expected, atol=0.01, rtol=0)
