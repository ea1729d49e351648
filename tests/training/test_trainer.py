"""Every training through the same loop: resumed to the same numbers in each precision, logs with each step once."""

from __future__ import annotations

import copy
import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from editing_stand_in import pairs_folder_fixture, vae_file_fixture  # noqa: F401  (fixtures)

from s2flib.datasets import open_dataset
from s2flib.errors import S2FError
from s2flib.psp import PSP
from s2flib.training.classifiers import AttributesConfig, AttributesTrainer, IdentityConfig, IdentityTrainer
from s2flib.training.edit_judge import JudgeConfig, JudgeTrainer
from s2flib.training.edit_unet import UNetConfig, UNetTrainer
from s2flib.training.edit_vae import VaeConfig, VaeTrainer
from s2flib.training.encoder import EncoderConfig, EncoderTrainer
from s2flib.training.feed import step_seed
from s2flib.training.generator import GeneratorConfig, GeneratorTrainer
from s2flib.training.loop import Log, run_training
from s2flib.training.trainer import (
    RunConfig,
    Trainer,
    Updates,
    autocast_dtype,
    average_buffers,
    average_gradients,
    in_channels_last,
    make_accelerator,
    placed,
    update_average,
)
from s2flib.weights import save_safetensors
from s2flib.weights.load import fingerprint


@pytest.fixture(scope="module")
def generator_file(tmp_path_factory):
    torch.manual_seed(0)
    model = PSP.from_preset("tiny")
    tensors = model.decoder.state_dict() | {"latent_avg": model.latent_avg[0]}
    path = tmp_path_factory.mktemp("generator") / "generator.safetensors"
    return str(save_safetensors(path, tensors, {"kind": "stylegan2", "preset": "tiny"}))


@pytest.fixture
def build(generator_file, pairs_folder, vae_file, tmp_path):
    """name, precision → a trainer as its command builds it."""

    def make(name: str, precision: str) -> Trainer:
        acc = make_accelerator(cpu=True)
        common = dict(out=str(tmp_path), steps=8, batch=4, limit=8, cpu=True, mixed_precision=precision)
        if name == "encoder":
            cfg = EncoderConfig(**common | dict(batch=2), generator=generator_file, lambda_id=0).resolved()
            return EncoderTrainer(cfg, *(open_dataset("tiny", split, limit=4) for split in ("train", "val")), acc)
        if name == "generator":
            cfg = GeneratorConfig(**common, size=32, path_every=3, r1_every=2)
            return GeneratorTrainer(cfg, open_dataset("tiny", "train", limit=8), acc)
        if name == "identity":
            return IdentityTrainer(IdentityConfig(**common, val_limit=4), acc)
        if name == "attributes":
            return AttributesTrainer(AttributesConfig(**common, val_limit=4), acc)
        if name == "edit-judge":
            return JudgeTrainer(JudgeConfig(**common, pairs=str(pairs_folder), photos=False), acc)
        if name == "vae":
            return VaeTrainer(VaeConfig(**common, pairs=str(pairs_folder), photos=False, lpips_from=0.0), acc)
        return UNetTrainer(UNetConfig(**common, pairs=str(pairs_folder), vae=str(vae_file), pretrain_text=0), acc)

    return make


def updates(trainer: Trainer) -> list[Updates]:
    return [value for value in vars(trainer).values() if isinstance(value, Updates)]


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for each in updates(trainer) for p in each.params])


TRAININGS = ("encoder", "generator", "identity", "attributes", "edit-judge", "vae", "unet")


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_resumes_to_the_same_numbers(build, name, precision, tmp_path):
    """Some steps and two from a checkpoint's state, against four at once. A CPU loss scaler stands in for CUDA's: it
    starts so high that its first steps overflow, so a scaler that is not saved is another run."""
    whole, again = build(name, precision), build(name, precision)
    for trainer in (whole, again):
        assert trainer.dtype == {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        for each in updates(trainer) if precision == "fp16" else ():
            each.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-12)
    start = weights(whole)
    first = 2 if name != "encoder" else 9 if precision == "fp16" else 5  # Ranger's first five only fill averages
    for _ in range(first):
        whole.step()
    torch.save(whole.state(), tmp_path / "state.pt")
    scale = [each.scaler.get_scale() for each in updates(whole)]
    again.load(torch.load(tmp_path / "state.pt", weights_only=True))
    assert scale == [each.scaler.get_scale() for each in updates(again)] and again.done == first
    for _ in range(2):
        whole.step(), again.step()
    assert torch.equal(weights(whole), weights(again))
    assert torch.isfinite(weights(whole)).all() and not torch.equal(weights(whole), start)
    if precision == "fp16":
        assert min(scale) < 2.0**40, "the scaler has met an overflow"


class Counting(Trainer):
    """One number that grows, to watch the loop."""

    kind, saved = "counting", ("update", "value")

    def __init__(self, cfg: RunConfig):
        super().__init__(cfg, make_accelerator(cpu=True))
        self.net = torch.nn.Linear(1, 1)
        self.update = Updates(torch.optim.SGD(self.net.parameters(), cfg.lr), self)
        self.value = torch.zeros(())
        self.dies_at = -1

    def train_step(self) -> dict[str, float]:
        if self.done == self.dies_at:
            raise KeyboardInterrupt
        self.value = self.value + torch.rand(())
        self.update(self.net(torch.ones(1, 1)).sum())
        return {"value": float(self.value)}

    def validate(self) -> dict[str, float]:
        return {"val_step": float(self.done)}

    def picture(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def export(self, out: Path) -> None:
        pass


def rows(out: Path) -> list[tuple[int, str, float]]:
    with open(out / "log.csv", newline="") as f:
        return [(int(step), name, float(value)) for step, name, value in list(csv.reader(f))[1:]]


def test_the_log_holds_each_step_once_after_a_kill(tmp_path):
    def config(**more):
        return RunConfig(out=str(tmp_path), steps=20, batch=1, lr=0.1, log_every=2, cpu=True, **more)

    first = Counting(config(save_every=1e9))
    first.dies_at = 5
    with pytest.raises(KeyboardInterrupt):
        run_training(first)
    assert [step for step, *_ in rows(tmp_path)] == [2, 4]  # no checkpoint yet: all of it happens again
    second = Counting(config(resume=True, save_every=0.0))  # a checkpoint after each step
    second.dies_at = 11
    with pytest.raises(KeyboardInterrupt):
        run_training(second)
    (tmp_path / "log.csv").open("a").write("12,value,99\n")  # logged after the last checkpoint
    run_training(Counting(config(resume=True, save_every=0.0)))  # its last two checkpoints are of the same step
    run_training(Counting(config(resume=True)))  # nothing is left to do
    found = rows(tmp_path)
    assert len(found) == len({(step, name) for step, name, _ in found})
    assert [step for step, name, _ in found if name == "value"] == list(range(2, 21, 2))
    assert 99 not in [value for *_, value in found]
    for step, name, value in found:
        assert name != "val_step" or value == step, "validation is logged at the step that was validated"
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("value")] == list(range(2, 21, 2))


@pytest.mark.parametrize("left", ["", "step,na", "step,name,value\n4,a"])
def test_a_log_cut_off_by_a_kill_is_continued(left, tmp_path):
    (tmp_path / "log.csv").write_text(left)
    log = Log(tmp_path, step=4)
    log.write(5, {"a": 1.0}), log.close()
    assert (tmp_path / "log.csv").read_text() == "step,name,value\n5,a,1\n"


def test_log_means_over_what_was_added(tmp_path):
    log = Log(tmp_path)
    log.add({"a": 1.0}), log.add({"a": 3.0, "b": 5.0})
    assert log.flush(7) == {"a": 2.0, "b": 5.0} and log.flush(8) == {}
    log.close()
    assert rows(tmp_path) == [(7, "a", 2.0), (7, "b", 5.0)]


def test_the_moving_average_of_the_weights():
    average, now = (torch.nn.BatchNorm1d(2) for _ in range(2))
    with torch.no_grad():
        now.weight.fill_(3.0)  # the average's is 1
        now.running_mean.fill_(7.0)
    update_average(average, now, batch=10, half_life=100, step=10_000)
    assert torch.allclose(average.weight, torch.tensor(1 + 2 * (1 - 0.5**0.1))) and average.running_mean[0] == 7
    update_average(average, now, batch=10, half_life=1e9, step=20)  # a twentieth of 200 samples: half of the way
    assert torch.allclose(average.weight, torch.tensor(3 - (2 * 0.5**0.1) / 2))
    update_average(average, now, batch=10, half_life=0, step=1)
    assert torch.equal(average.weight, now.weight)


def test_the_moving_average_of_frozen_weights_keeps_every_bit():
    """An average of −0 and −0 is 0, which equals −0 but has another fingerprint."""
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    frozen.weight.copy_(torch.tensor([[-0.0, 0.0], [1e-9, -3.0]]))
    now = torch.nn.Sequential(frozen, torch.nn.Linear(2, 2))
    average = copy.deepcopy(now)
    torch.nn.init.zeros_(now[1].weight)
    before = fingerprint(average[0])
    for step in range(1, 50):
        update_average(average, now, batch=8, half_life=1000, step=step)
    assert fingerprint(average[0]) == before == fingerprint(frozen) and average[1].weight.abs().max() < 1e-3


def test_updates_clip_scale_and_set_the_rate(tmp_path):
    trainer = Counting(RunConfig(out=str(tmp_path), steps=1, batch=1, lr=1.0, cpu=True))
    p, q = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [p]}, {"params": [q], "share": 0.1}]
    update = Updates(torch.optim.SGD(groups, 1.0), trainer, clip=1.0)
    update((3 * p[0] + 4 * p[1]) + 0 * q.sum(), lr=0.5)
    assert torch.allclose(p, torch.tensor([-0.3, -0.4]))  # gradient (3, 4) clipped to length 1, rate 0.5
    update(0.2 * q.sum() + 0 * p.sum(), lr=0.5)
    assert q.item() == pytest.approx(-0.01)  # 0.2 × 0.5 × its share 0.1
    trainer.dtype = torch.float16
    scaled = Updates(torch.optim.SGD([p], 1.0), trainer)
    before = p.detach().clone()
    scaled(p.sum() * float("inf"))
    assert torch.equal(p, before) and scaled.scaler.get_scale() < 65536  # skipped, and the scale falls
    scaled(p.sum())
    assert torch.allclose(p, before - 1)
    clipped, before = Updates(torch.optim.SGD([p], 1.0), trainer, clip=1.0), p.detach().clone()
    clipped(3 * p[0] + 4 * p[1])  # the true gradient is clipped, not the scaled one
    assert torch.allclose(p, before - torch.tensor([0.6, 0.8]))


def test_processes_share_the_mean_of_gradients_and_buffers():
    """Two processes, the other of which has zeros everywhere."""
    asked = []

    class Two:
        num_processes = 2

        def reduce(self, tensor, reduction):
            asked.append(reduction)
            return tensor / 2

    p, q, unused = (torch.nn.Parameter(torch.ones(n)) for n in (2, 3, 1))
    (4 * p.sum() + 6 * q.sum()).backward()
    average_gradients([p, q, unused], Two())
    assert p.grad.tolist() == [2.0] * 2 and q.grad.tolist() == [3.0] * 3 and unused.grad is None
    norm = torch.nn.BatchNorm1d(2)
    average_buffers(norm, Two())
    assert norm.running_var.tolist() == [0.5, 0.5] and norm.num_batches_tracked.item() == 0
    assert asked == ["mean"] * 3  # all gradients at once, and two buffers


def test_the_step_alone_decides_its_randomness(tmp_path):
    trainer = Counting(RunConfig(out=str(tmp_path), steps=9, batch=1, lr=1.0, seed=3, cpu=True))
    drawn = []
    for _ in range(3):
        before = trainer.value
        trainer.step()
        drawn.append(float(trainer.value - before))
    torch.manual_seed(step_seed(3, 1))
    assert drawn[1] == pytest.approx(float(torch.rand(())), abs=1e-6) and len(set(drawn)) == 3


def test_auto_precision_is_what_the_hardware_has(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for fast, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr("s2flib.training.trainer.cpu_has_fast_bf16", lambda fast=fast: fast)
        assert autocast_dtype("auto", cpu) == expected
    for capability, expected in (((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert autocast_dtype("auto", gpu) == expected
    assert autocast_dtype("fp16", cpu) == torch.float16 and autocast_dtype("no", gpu) is None


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lr": float("nan")}, "lr must"),
        ({"lr": 0.0}, "lr must"),
        ({"seed": -1}, "seed must"),
        ({"batch": 0}, "batch must"),
        ({"steps": 0}, "steps must"),
        ({"mixed_precision": "float16"}, "mixed_precision must"),
        ({"preset": "x"}, "preset"),
        ({"limit": 0}, "limit must"),
        ({"seed": 2**64}, "seed must"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(S2FError, match=message):
        RunConfig(**{"out": "x", "steps": 1, "batch": 1, "lr": 1.0} | options)


def test_convolutions_in_channels_last_compute_the_same():
    from s2flib.stylegan2 import Generator

    torch.manual_seed(0)
    net, z = Generator(32, 8, 2, 64, 8), torch.randn(2, 8)  # its modulated convolutions have weights of five axes
    conv = torch.nn.Conv2d(8, 6, 3)
    both = torch.nn.ModuleList([net, conv])
    before = net(z), conv(torch.ones(1, 8, 5, 5))
    assert in_channels_last(both) is both
    assert conv.weight.is_contiguous(memory_format=torch.channels_last) and not conv.weight.is_contiguous()
    for a, b in zip((net(z), conv(torch.ones(1, 8, 5, 5))), before, strict=True):
        torch.testing.assert_close(a, b)
    other = torch.nn.Conv2d(8, 6, 3)
    assert placed(other, torch.device("cpu")) is other and other.weight.is_contiguous()  # on a CPU nothing changes
