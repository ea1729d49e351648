"""What a training step keeps for its backward pass: counted, and within the memory of the presets' cards."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import alexnet

from s2flib.cbam import AttributeNet
from s2flib.judges.load import LPIPS, IdentityJudge
from s2flib.losses import LossWeights, SketchLoss
from s2flib.presets import COLAB, PAPER
from s2flib.psp import PSP
from s2flib.stylegan2 import Generator
from s2flib.training.memory import SavedTensors
from s2flib.weights.published import IRSE50

GIB = 2**30


def test_saved_tensors_by_hand():
    w, x = torch.rand(100, requires_grad=True), torch.rand(100)
    with SavedTensors([w]) as saved:
        y = (w * x).exp()  # the product needs x, the exponential its result
        z = (y[:50] * y[50:]).sum()  # views of one storage, which is saved already
    assert saved.bytes == 2 * 400
    z.backward()
    assert torch.isfinite(w.grad).all()
    v = torch.rand(100, requires_grad=True)
    for named, found in (([w], 400), ([w, v], 0), ([], 800)):  # the product of two needs both; a named one is no cost
        with SavedTensors(named) as saved:
            (w * v).sum()
        assert saved.bytes == found
    with SavedTensors() as saved:
        (w + x).sum()
    assert saved.bytes == 0


def small_generator():
    torch.manual_seed(0)
    g = Generator(64, 16, 2, 512, 16)
    for name, p in g.named_parameters():
        if "noise" in name:
            p.data.fill_(0.3)
    return g


def test_checkpointing_gives_the_same_gradients_with_random_noise():
    g, codes = small_generator(), torch.randn(2, 10, 16)
    g.requires_grad_(False)
    gradients, kept = [], []
    for checkpointing in (False, True):
        g.checkpointing = checkpointing
        w = codes.clone().requires_grad_()
        torch.manual_seed(1)
        with SavedTensors(g.parameters()) as saved:
            loss = g.synthesis(w, noise="random").square().mean()
        kept.append(saved.bytes)
        loss.backward()
        gradients.append(w.grad)
    torch.testing.assert_close(gradients[1], gradients[0])
    assert kept[1] < kept[0] / 2
    g.checkpointing = True
    with torch.no_grad():
        assert g.synthesis(codes).shape == (2, 3, 64, 64)


def needed(preset, checkpointing=False):
    """GiB in float32 of a training's state, and of what one picture saves. On the meta device, without any data."""
    trunk = {k: v for k, v in alexnet().state_dict().items() if k.startswith("features.")}
    with torch.device("meta"):
        psp, arcface, attributes = PSP.from_preset(preset).train(), IRSE50(), AttributeNet(24)
    judge = IdentityJudge(arcface, "ArcFace", lambda x: F.adaptive_avg_pool2d(x, 112))
    attributes.requires_grad_(False).eval()
    networks = {"lpips": LPIPS(trunk), "id": judge, "attention": attributes}
    loss = SketchLoss(LossWeights.of(preset), networks).to("meta")
    psp.decoder.requires_grad_(False).checkpointing = checkpointing
    parameters = [*psp.parameters(), *loss.parameters()]
    saved_bytes = []
    for batch in (1, 2):
        sketch = torch.empty(batch, 1, preset.encoder_size, preset.encoder_size, device="meta")
        photo = torch.empty(batch, 3, preset.loss_size, preset.loss_size, device="meta")
        with SavedTensors(parameters) as saved:
            w_plus, features = psp.encode_all(sketch)
            y = psp.decode(w_plus, features, size=preset.loss_size, noise="random")
            loss(photo, y, w_plus, psp.latent_avg.to("meta"), loss.targets(photo, sketch))
        saved_bytes.append(saved.bytes)
    trained = sum(p.numel() for p in psp.encoder.parameters())
    state = 4 * (
        sum(p.numel() for p in parameters) + 5 * trained
    )  # gradient, Ranger's three averages, the moving average
    return state / GIB, (saved_bytes[1] - saved_bytes[0]) / GIB


@pytest.mark.parametrize(("preset", "batch", "card"), [(COLAB, 8, 15), (PAPER, 4, 24)])
def test_presets_fit_their_cards(preset, batch, card):
    """colab a T4 (15 GiB usable of 16 GB), paper 24 GB. Half precision halves what is saved: a third must stay free for
    everything that is not counted. With checkpointing there is room even in float32."""
    assert preset.batch == batch
    state, saved = needed(preset)
    _, checkpointed = needed(preset, checkpointing=True)
    assert state + batch * saved / 2 < 0.67 * card
    assert state + batch * checkpointed < 0.7 * card
    assert checkpointed < 0.6 * saved
