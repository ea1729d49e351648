"""Training the encoder: what moves, warm starts and warm-up, schedule, a killed run, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from s2flib.datasets import open_dataset
from s2flib.errors import S2FError, WeightsError
from s2flib.presets import TINY
from s2flib.psp import GradualStyleEncoder
from s2flib.stylegan2 import Generator
from s2flib.training.trainer import make_accelerator

ENCODER = dict(preset="tiny", batch=4, limit=8, val_limit=4, cpu=True, mixed_precision="no", log_every=1, typical=0)


@pytest.fixture(scope="module")
def generator_file(tmp_path_factory):
    """An untrained generator: the encoder's training does not care how good it is."""
    from s2flib.weights import save_safetensors

    torch.manual_seed(5)
    g = Generator.from_preset("tiny")
    path = tmp_path_factory.mktemp("generator") / "generator.safetensors"
    return str(
        save_safetensors(
            path, dict(g.state_dict()) | {"latent_avg": g.mean_latent()}, {"kind": "stylegan2", "preset": "tiny"}
        )
    )


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory, generator_file):
    from s2flib.training.encoder import EncoderConfig, train_encoder

    out = tmp_path_factory.mktemp("encoder")
    # Ranger only fills its averages in the first five steps
    return train_encoder(EncoderConfig(out=str(out), steps=8, generator=generator_file, **ENCODER | dict(typical=8)))


def test_encoder_training_moves_the_encoder_and_not_the_generator(encoder_run, generator_file):
    from s2flib.weights import load_generator, load_psp

    psp = load_psp("tiny", encoder_run, generator=generator_file)
    frozen = load_generator("tiny", generator_file)
    for (name, a), b in zip(psp.decoder.named_parameters(), frozen.parameters(), strict=True):
        assert torch.equal(a, b), name
    torch.manual_seed(0)
    fresh = type(psp.encoder).from_preset("tiny")
    assert not torch.allclose(psp.encoder.body[0].res_layer[1].weight, fresh.body[0].res_layer[1].weight, atol=1e-4)


def test_a_finished_encoder_knows_which_inputs_are_unusual(tmp_path, encoder_run, generator_file):
    """Its distance has its 99th percentile at 1 on validation sketches; with typical=0 there is none."""
    from s2flib.training.encoder import EncoderConfig, train_encoder
    from s2flib.weights import load_psp

    psp, val = load_psp("tiny", encoder_run, generator=generator_file), open_dataset("tiny", "val", limit=4)
    distance = psp.input_distance(torch.stack([val[i]["sketch"] for i in range(4)]))
    assert 0.9 < distance.max() < 1.2 and distance.min() < 1
    plain = EncoderConfig(out=str(tmp_path), steps=1, generator=generator_file, **ENCODER)
    assert load_psp("tiny", train_encoder(plain), generator=generator_file).typical is None


def test_encoder_loss_falls(tmp_path, generator_file):
    from s2flib.training.encoder import EncoderConfig, train_encoder

    cfg = EncoderConfig(
        out=str(tmp_path), steps=25, generator=generator_file, lambda4=0.0, lambda_id=0.0, lambda_lpips=0.0, **ENCODER
    )
    train_encoder(cfg)
    rows = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    l2 = [float(v) for _, name, v in rows if name == "l2"]
    assert len(l2) == 25 and np.mean(l2[-5:]) < 0.9 * np.mean(l2[:5])


def test_encoder_refuses_to_resume_before_another_generator(tmp_path, generator_file):
    from s2flib.training.encoder import EncoderConfig, train_encoder
    from s2flib.weights import save_safetensors

    cfg = EncoderConfig(out=str(tmp_path / "run"), steps=1, generator=generator_file, **ENCODER)
    train_encoder(cfg)
    g = Generator.from_preset("tiny")
    save_safetensors(
        generator_file,
        dict(g.state_dict()) | {"latent_avg": g.mean_latent()},
        {"kind": "stylegan2", "preset": "tiny"},
        overwrite=True,
    )
    with pytest.raises(WeightsError, match="another generator"):
        train_encoder(
            EncoderConfig(out=str(tmp_path / "run"), steps=2, generator=generator_file, resume=True, **ENCODER)
        )


def test_an_encoder_starts_from_an_encoder_only(generator_file):
    from s2flib.training.encoder import start_from

    with pytest.raises(WeightsError, match="contains no sketch encoder"):
        start_from(GradualStyleEncoder.from_preset("tiny"), str(generator_file), TINY, torch.zeros(TINY.style_dim))


def test_learning_rate_is_constant_or_falls_to_zero_at_the_end(tmp_path, generator_file):
    from s2flib.datasets import open_dataset
    from s2flib.training.encoder import EncoderConfig, EncoderTrainer

    dataset, acc = open_dataset("tiny", "train", limit=8), make_accelerator(cpu=True)

    def trainer(**more):
        cfg = EncoderConfig(
            out=str(tmp_path),
            steps=100,
            lr=0.5,
            generator=generator_file,
            lambda4=0,
            lambda_id=0,
            lambda_lpips=0,
            **ENCODER,
            **more,
        ).resolved()
        return EncoderTrainer(cfg, dataset, dataset, acc)

    assert {trainer().learning_rate(k) for k in range(100)} == {0.5}
    falling = trainer(anneal=0.2)
    assert [falling.learning_rate(k) for k in (0, 79, 80, 90, 99)] == pytest.approx([0.5, 0.5, 0.5, 0.25, 0.025])
    falling.done = 99
    falling.step()
    assert falling.update.optimiser.param_groups[0]["lr"] == pytest.approx(0.025)
    with pytest.raises(S2FError, match="share of the steps"):
        trainer(anneal=1.5)


def test_mirroring_flips_photo_and_sketch_together(tmp_path, generator_file, monkeypatch):
    from s2flib.datasets import open_dataset
    from s2flib.training.encoder import EncoderConfig, EncoderTrainer

    dataset = open_dataset("tiny", "train", limit=8)
    cfg = EncoderConfig(
        out=str(tmp_path), steps=1, generator=generator_file, mirror=True, **ENCODER | {"batch": 8}
    ).resolved()
    trainer = EncoderTrainer(cfg, dataset, dataset, make_accelerator(cpu=True))
    seen = []
    monkeypatch.setattr(
        trainer, "losses", lambda x, s: (seen.append((x, s)), (sum(p.sum() for p in trainer.update.params) * 0, {}))[1]
    )
    trainer.step()
    photo, sketch = trainer.feed(0)
    flipped = [not torch.equal(a, b) for a, b in zip(seen[0][0], photo, strict=True)]
    assert 0 < sum(flipped) < 8
    for k, f in enumerate(flipped):
        assert torch.equal(seen[0][0][k], photo[k].flip(2) if f else photo[k])
        assert torch.equal(seen[0][1][k], sketch[k].flip(2) if f else sketch[k])


def test_batch_must_fit_the_micro_batches(tmp_path, generator_file):
    from s2flib.training.encoder import EncoderConfig, train_encoder

    with pytest.raises(S2FError, match="micro-batches"):
        train_encoder(EncoderConfig(out=str(tmp_path), steps=1, generator=generator_file, accumulate=3, **ENCODER))


TRAIN = """
import json, sys
from s2flib.training.encoder import EncoderConfig, train_encoder
train_encoder(EncoderConfig(**json.loads(sys.argv[1])))
"""


def launch(config: dict, *prefix: str) -> subprocess.Popen:
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, *prefix, "-c", TRAIN, json.dumps(config)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, generator_file):
    """SIGKILL at a random moment after the first save, then resume: the weights of a run never killed."""
    config = ENCODER | {"steps": 14, "generator": generator_file, "save_every": 0.0}
    whole = launch(config | {"out": str(tmp_path / "whole")})
    killed = launch(config | {"out": str(tmp_path / "killed")})
    while not (tmp_path / "killed" / "checkpoint.pt").exists():
        assert killed.poll() is None, killed.stdout.read()
        time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0, 2))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    again = launch(config | {"out": str(tmp_path / "killed"), "resume": True})
    for process in (again, whole):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    a, b = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["state"] for name in ("whole", "killed"))
    assert a["step"] == b["step"] == 14
    for name in a["encoder"]:
        assert torch.equal(a["encoder"][name], b["encoder"][name]), name


@pytest.mark.slow
def test_two_processes_train_the_same_weights(tmp_path, generator_file):
    """`accelerate launch` with two CPU processes (gloo): both see their half, gradients are averaged."""
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    config = ENCODER | {"steps": 2, "generator": generator_file, "out": str(tmp_path / "run")}
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--cpu",
            "--num_processes",
            "2",
            "--num_machines",
            "1",
            "--mixed_precision",
            "no",
            "--dynamo_backend",
            "no",
            "--main_process_port",
            "0",
            str(script),
            json.dumps(config),
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["step"] == 2
    assert (tmp_path / "run" / "encoder.safetensors").exists()


# --- the attention loss: its form, its maps, its share of the gradient -------------------------------------------


def trainer_of(generator_file, **fields):
    from s2flib.training.encoder import EncoderConfig, EncoderTrainer

    cfg = EncoderConfig(out="unused", steps=8, generator=generator_file, **ENCODER | fields).resolved()
    data = open_dataset("tiny", "train", limit=8), open_dataset("tiny", "val", limit=4)
    return EncoderTrainer(cfg, *data, make_accelerator(True))


def shares_of(stats):
    return {k.removeprefix("share_"): float(v) for k, v in stats.items() if k.startswith("share_")}


def test_shares_of_the_gradient_by_hand(generator_file):
    """share_* against the gradients of the losses as losses.py defines them, one by one."""
    from s2flib.losses import attention_loss, id_loss, l2_loss, lpips_loss

    trainer = trainer_of(generator_file, measure_every=1, plain=0.0)
    weights, nets, norms = trainer.loss.weights, trainer.loss.nets, {}

    def losses_of(x, y):
        return {
            "l2": weights.l2 * l2_loss(x, y),
            "lpips": weights.lpips * lpips_loss(x, y, nets["lpips"]),
            "id": weights.id * id_loss(x, y, nets["id"]),
            "attention": weights.attention * attention_loss(x, y, nets["attention"].net),
        }

    def by_hand(x, y, w_plus, known):
        leaf = y.detach().clone().requires_grad_()
        for name, loss in losses_of(x, leaf).items():
            norms[name] = float(torch.autograd.grad(loss, leaf)[0].norm())
        total = sum(losses_of(x, y).values())
        norms["at w+"] = float(torch.autograd.grad(total, w_plus, retain_graph=True)[0].norm())
        return measure(x, y, w_plus, known)

    measure, trainer.measure = trainer.measure, by_hand
    shares = shares_of(trainer.step())
    at_codes = norms.pop("at w+")
    assert shares.keys() == {*norms, "reg"}
    for name, norm in norms.items():
        assert shares[name] == pytest.approx(norm / sum(norms.values()), rel=1e-3), name
    regulariser = weights.reg / 4**0.5  # the gradient of a mean of four norms has the norm 1 / √4
    assert shares["reg"] == pytest.approx(regulariser / (regulariser + at_codes), rel=1e-3)


def test_the_attention_loss_keeps_its_share(generator_file):
    """λ4 is adjusted at the first step and every third one after; between, it is constant."""
    trainer = trainer_of(generator_file, attention_share=0.3, measure_every=3, plain=0.0)
    measured, lambdas = [], []
    for step in range(7):
        stats = trainer.step()
        assert ("share_attention" in stats) == (step % 3 == 0)
        measured += [float(stats["share_attention"])] if step % 3 == 0 else []
        lambdas.append(trainer.loss.weights.attention)
    assert measured == pytest.approx([0.3] * 3, rel=1e-6)
    assert lambdas[0] == lambdas[1] == lambdas[2] != lambdas[3] == lambdas[5] != lambdas[6]
    small = trainer_of(generator_file, attention_share=0.03, measure_every=3, plain=0.0)
    small.step()
    assert small.loss.weights.attention / lambdas[0] == pytest.approx((0.03 / 0.97) / (0.3 / 0.7), rel=1e-4)


def test_a_share_goes_on_after_a_kill(generator_file, tmp_path):
    """λ4 belongs to the checkpoint: the next measurement may be steps away."""
    whole, again = (trainer_of(generator_file, attention_share=0.5, measure_every=4, lr=0.01) for _ in range(2))
    for _ in range(7):
        whole.step()
        if whole.done == 6:
            torch.save(whole.state(), tmp_path / "state.pt")
    again.load(torch.load(tmp_path / "state.pt", weights_only=True))
    again.step()
    for a, b in zip(whole.encoder.parameters(), again.encoder.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_published_loss_trains_in_place_of_ours(generator_file):
    from s2flib.published_attention import PublishedAttentionLoss

    trainer = trainer_of(generator_file, attention="published", lambda4=1e9, measure_every=1, batch=2, plain=0.5)
    assert isinstance(trainer.loss.nets["attention"], PublishedAttentionLoss)
    stats = trainer.step()
    assert 0 < float(stats["attention"]) < 1e-7 and shares_of(stats)["attention"] > 0.01
    assert "plain_attention" in stats and float(stats["total"]) > float(stats["l2"])
    assert "val_attention" in trainer.validate()


def test_only_the_chosen_maps_count(generator_file):
    one, every = (trainer_of(generator_file, attention_maps=maps, plain=0.0) for maps in ((2,), ()))
    a, b = (float(t.step()["attention"]) for t in (one, every))
    assert a != b
    assert one.loss.nets["attention"].maps == (2,) and every.loss.nets["attention"].maps == (0, 1, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_share": 1.0}, "attention_share is a share"),
        ({"attention_share": 0.0}, "attention_share is a share"),
        ({"attention_share": 0.5, "lambda4": 0.0}, "lambda4, where it starts, must be above 0"),
        ({"attention": "none"}, "choose one of attributes, published"),
        ({"attention": "published", "attention_maps": (0,)}, "no maps"),
        ({"attention_maps": (3,)}, "maps 0 to 2"),
        ({"measure_every": 0}, "measure_every"),
    ],
)
def test_attention_settings_that_cannot_be(generator_file, fields, message):
    with pytest.raises(S2FError, match=message):
        trainer_of(generator_file, **fields)
