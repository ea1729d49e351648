"""Time and memory of a step of pSp encoder training, beside the step of this repository before it was made fast.

    python benchmarks/bench_training.py [--preset colab] [--batch 8] [--precision bf16] [--steps 40]

Networks have the preset's shapes and random weights, photos are random: nothing is downloaded. Each row is one step of
``EncoderTrainer``: encoder, generator, L2, LPIPS, ID and attention loss, backward pass, Ranger. Columns:

    ms        median milliseconds per step, of blocks of five steps without waiting in between, in the order before,
              now, now, before: a machine that slows down in the meantime slows both
    images/s  the batch over that time
    GiB       peak memory of the GPU; "-" on a CPU
    busy      share of the step's time in which the GPU computes (torch.profiler); "-" on a CPU
    launches  kernels per step; on a CPU, the operators called
    waits     times per step that the host waits for the GPU; "-" on a CPU

"before" filters by grouped convolution, keeps weights in the default memory format, computes the photo's features once
more for every loss, and updates tensor by tensor. The line below is the ratio, and how far the losses of the first step
differ. The last one is the memory of a step, counted: networks, gradients and the optimiser's state; and the tensors
saved for the backward pass, of one picture times the batch, without and with checkpointing of the generator.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from s2flib import fir, stylegan2  # noqa: E402
from s2flib.judges import load as judges  # noqa: E402
from s2flib.losses import SketchLoss, attention_loss, id_loss, l2_loss, lpips_loss, reg_loss  # noqa: E402
from s2flib.presets import get_preset  # noqa: E402
from s2flib.training import encoder as encoder_training  # noqa: E402
from s2flib.training.encoder import EncoderConfig, EncoderTrainer  # noqa: E402
from s2flib.training.memory import SavedTensors  # noqa: E402
from s2flib.training.trainer import make_accelerator  # noqa: E402
from s2flib.weights.load import save_safetensors  # noqa: E402
from s2flib.weights.published import IRSE50  # noqa: E402

# --- the step before ----------------------------------------------------------------------------------------


def grouped_filter(x, pad, gain=1.0):
    """fir_filter as grouped convolutions on every device."""
    c = x.shape[1]
    taps = torch.tensor(fir.FIR, dtype=x.dtype, device=x.device) / sum(fir.FIR)
    if pad[0] != pad[1]:
        x, pad = F.pad(x, (pad[0], pad[1], pad[0], pad[1])), (0, 0)
    x = F.conv2d(x, (taps * gain).view(1, 1, 4, 1).expand(c, 1, 4, 1), padding=(pad[0], 0), groups=c)
    return F.conv2d(x, taps.view(1, 1, 1, 4).expand(c, 1, 1, 4), padding=(0, pad[0]), groups=c)


def every_loss_by_itself(self, photo, output, w_plus, latent_avg, targets=None):
    """SketchLoss.forward that computes the photo's features itself."""
    nets, parts = self.nets, {"l2": l2_loss(photo.float(), output.float())}
    for name, value in (("lpips", lpips_loss), ("id", id_loss), ("attention", attention_loss)):
        if name in nets:
            parts[name] = value(photo, output, nets[name].net if name == "attention" else nets[name])
    parts["reg"] = reg_loss(w_plus, latent_avg)
    total = sum(getattr(self.weights, k) * v.float() for k, v in parts.items())
    return total, {k: v.detach() for k, v in {"total": total, **parts}.items()}


class RangerByTensor(torch.optim.RAdam):
    """Ranger with a Python loop over tensors."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr, betas=(0.95, 0.999), eps=1e-5)

    @torch.no_grad()
    def step(self, closure=None):
        early = []
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            if "slow" not in self.state[p]:
                zeros = {k: torch.zeros_like(p) for k in ("exp_avg", "exp_avg_sq")}
                self.state[p].update(step=torch.tensor(0.0), slow=p.detach().clone(), **zeros)
            if p.grad.ndim > 1:
                p.grad.sub_(p.grad.mean(tuple(range(1, p.grad.ndim)), keepdim=True))
            if int(self.state[p]["step"]) < 5:  # not rectified yet
                early.append((p, p.clone()))
        super().step(closure)
        for p, old in early:
            p.copy_(old)
        for p in (p for group in self.param_groups for p in group["params"] if "slow" in self.state[p]):
            if int(self.state[p]["step"]) % 6 == 0:
                self.state[p]["slow"].lerp_(p, 0.5)
                p.copy_(self.state[p]["slow"])


@contextlib.contextmanager
def before():
    """Everything as it was."""
    with (
        mock.patch.object(fir, "fir_filter", grouped_filter),
        mock.patch.object(SketchLoss, "forward", every_loss_by_itself),
        mock.patch.object(SketchLoss, "targets", lambda self, photo, sketch: {}),
        mock.patch.object(EncoderTrainer, "measure", lambda self, *of: {}),
        mock.patch.object(encoder_training, "Ranger", RangerByTensor),
        mock.patch.object(encoder_training, "placed", lambda module, device: module.to(device)),
    ):
        yield


# --- measuring ----------------------------------------------------------------------------------------------


class RandomPairs:
    """Random photos (in smooth patches) and sketches, decoded in memory."""

    def __init__(self, preset, n: int = 32):
        rng = np.random.default_rng(0)
        self.size, self.n = preset.size, n
        coarse = torch.from_numpy(rng.integers(0, 256, (n, 4, 16, 16)).astype(np.float32))
        fine = F.interpolate(coarse, size=(self.size, self.size), mode="bicubic").clamp(0, 255).byte().numpy()
        self._arrays = {"photos": fine[:, :3], "sketches": fine[:, 3:]}

    def __len__(self) -> int:
        return self.n

    def arrays(self) -> dict[str, np.ndarray]:
        return self._arrays


@contextlib.contextmanager
def random_judges():
    """ArcFace's and LPIPS' networks with random weights; the shipped judges of tiny as they are."""

    def arcface():
        torch.manual_seed(1)
        return IRSE50().eval().requires_grad_(False)

    def alexnet():
        import torchvision

        torch.manual_seed(1)
        return judges.LPIPS(torchvision.models.alexnet().state_dict())

    with mock.patch.object(judges, "load_ir_se50", arcface), mock.patch.object(judges, "load_lpips", alexnet):
        yield


def make_trainer(args, generator: Path, **fields) -> EncoderTrainer:
    config = EncoderConfig(
        out="unused", preset=args.preset, steps=10**6, mixed_precision=args.precision, cpu=args.cpu,
        generator=str(generator), **{"batch": args.batch, **fields},
    ).resolved()  # fmt: skip
    with random_judges():
        return EncoderTrainer(config, RandomPairs(get_preset(args.preset)), None, make_accelerator(args.cpu))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(trainer: EncoderTrainer, steps: int) -> dict[str, Any]:
    """Times of blocks of five steps, and what one step costs."""
    device, cuda = trainer.device, trainer.device.type == "cuda"
    first = {k: float(v) for k, v in trainer.step().items()}
    for _ in range(7):  # past Ranger's first steps, and torch's choice of kernels
        trainer.step()
    wait(device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(max(1, steps // 10)):  # every step is measured in two rounds
        start = time.perf_counter()
        for _ in range(5):
            trainer.step()
        wait(device)
        times.append((time.perf_counter() - start) / 5)
    memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else math.nan
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(3):
            trainer.step()
        wait(device)
    events = list(profile.events())
    kernels = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    waits = sum(e.name in ("cudaStreamSynchronize", "cudaEventSynchronize") for e in events)
    return {
        "times": times, "first": first, "GiB": memory,
        "busy": sum(e.self_device_time_total for e in kernels) / 3e6 if cuda else math.nan,
        "launches": (len(kernels) if cuda else sum(e.name.startswith("aten::") for e in events)) / 3,
        "waits": waits / 3 if cuda else math.nan,
    }  # fmt: skip


def memory(args, generator: Path) -> dict[str, float]:
    """GiB of a training's state, and of what its backward pass needs without and with checkpointing."""
    found = {}
    for checkpointing in (False, True):
        trainer = make_trainer(args, generator, batch=1, checkpointing=checkpointing)
        trainer.done = 1  # a step without a measurement of the gradients' shares
        networks = [trainer.psp, trainer.ema, trainer.loss]
        parameters = [p for net in networks for p in net.parameters()]
        with trainer.autocast(), SavedTensors(parameters) as saved:
            trainer.losses(*trainer.feed(1))
        trained = sum(p.numel() for p in trainer.update.params)
        found["state"] = (sum(p.numel() for p in parameters) + 4 * trained) * 4 / 2**30  # gradient, three averages
        found["checkpointed" if checkpointing else "saved"] = args.batch * saved.bytes / 2**30
    return found


def line(name: str, batch: int, seconds: float, r: dict[str, Any]) -> str:
    def known(value: float, form: str) -> str:
        return format("-" if math.isnan(value) else format(value, form), ">6s")

    return (
        f"{name:8s} {1e3 * seconds:8.1f} ms {batch / seconds:8.1f} images/s {known(r['GiB'], '.2f')} GiB  "
        f"busy {known(r['busy'] / seconds, '.0%')} {r['launches']:8.0f} launches {known(r['waits'], '.0f')} waits"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="colab", choices=("tiny", "colab", "paper"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default="auto", choices=("auto", "no", "bf16", "fp16"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    preset = get_preset(args.preset)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generator.safetensors"
        torch.manual_seed(0)
        generator = stylegan2.Generator.from_preset(preset)
        tensors = generator.state_dict() | {"latent_avg": generator.mean_latent(64)}
        save_safetensors(path, tensors, {"kind": "stylegan2", "preset": preset.name, "size": str(preset.size)})
        del generator, tensors
        device = make_accelerator(args.cpu).device
        card = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        print(f"{args.preset}, batch {args.batch}, {args.precision}; {card}; torch {torch.__version__}", flush=True)
        rounds: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
        for name in ("before", "now", "now", "before"):
            with before() if name == "before" else contextlib.nullcontext():
                trainer = make_trainer(args, path)
                rounds[name].append(measure(trainer, args.steps))
            del trainer
            if device.type == "cuda":
                torch.cuda.empty_cache()
        gib = memory(args, path)
    seconds = {name: median(t for r in results for t in r["times"]) for name, results in rounds.items()}
    for name, results in rounds.items():
        print(line(name, args.batch, seconds[name], results[0]))
    old, new = rounds["before"][0]["first"], rounds["now"][0]["first"]
    differ = max(abs(new[k] / v - 1) for k, v in old.items() if v)
    print(f"{seconds['before'] / seconds['now']:.2f} times as fast as before; first losses within {differ:.2%}")
    print(f"memory: state {gib['state']:.2f} GiB; saved {gib['saved']:.2f}, checkpointed {gib['checkpointed']:.2f} GiB")


if __name__ == "__main__":
    main()
