"""The encoder's losses, each by the seed paper's formula (Sec. 3.3, after pSp, https://arxiv.org/abs/2008.00951).

x is the photo the sketch was made from, y = D(E(sketch)) the generator's picture; both (B,3,H,W) in [-1,1], at the
preset's loss size. The encoder sees the one-channel sketch; no loss ever does.

    L_E   = λ1 L2 + λ2 LPIPS + λ3 ID + λ_reg reg
    total = L_E + λ4 attention

The paper writes λ4 for two weights; here λ_reg is the regulariser's and λ4 the attention loss's. Its outer λ is 1.

How "‖·‖₂" is scaled decides what a λ means, so precisely:

    l2         mean of squared differences over all numbers, as in pSp's code: ‖x − y‖₂² / (3HW), mean over the batch
    lpips      mean over the batch of the perceptual judge's distance (a weighted sum of squared differences)
    id         1 − cosine, mean over the batch
    reg        ‖w − w̄‖₂ over all styles of an image, not squared and not divided by anything, as in pSp's code
    attention  ‖F''(x) − F''(y)‖₂ / √(numbers in F''): not squared; mean over the maps and the batch

The paper does not say how its attention loss was scaled. Undivided it would be about a hundred times ours under
tiny. Adam and its kin do not feel a common factor, so once λ4·attention outweighs the rest, at λ4 of 10³ as
much as of 10⁹, training follows the attention loss alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.cbam import AttributeNet
from s2flib.errors import ImageError, S2FError
from s2flib.presets import Preset, get_preset


def l2_loss(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error (the paper's L2 = ‖x − D(E(x))‖₂; the norm itself is √(3HW · this))."""
    return F.mse_loss(y, x)


def lpips_loss(x: Tensor, y: Tensor, judge: nn.Module) -> Tensor:
    """Mean of judge(x, y), see judges.perceptual_judge (the paper's LPIPS = ‖F(x) − F(D(E(x)))‖₂)."""
    return judge(x, y).mean()


def id_loss(x: Tensor, y: Tensor, judge: nn.Module) -> Tensor:
    """1 − ⟨R(x), R(y)⟩, mean over the batch; R = judge.embed, unit length. No gradient flows into x."""
    with torch.no_grad():
        target = judge.embed(x)
    return 1 - (target * judge.embed(y)).sum(1).mean()


def reg_loss(w_plus: Tensor, latent_avg: Tensor) -> Tensor:
    """‖E(x) − w̄‖₂: w_plus (B,n,D), latent_avg (D,) or (n,D) -> mean over the batch of the Frobenius norms."""
    delta = (w_plus - latent_avg).flatten(1).float()
    return _safe_norm(delta).mean()


def attention_loss(
    x: Tensor | Iterable[Tensor], y: Tensor | Iterable[Tensor], net: AttributeNet | None = None
) -> Tensor:
    """‖F''(x) − F''(y)‖₂ of CBAM-refined maps, divided by √(numbers in the map), mean over maps and batch.

    x, y: photos (B,3,H,W) together with ``net``, or two lists of maps (B,C,H',W') already computed.

    net must be frozen. The paper does not say which net its F'' come from. Were the net trained along with the
    encoder by this loss, nothing would keep its attention open: closing every gate, or shrinking every map, makes
    F''(x) − F''(y) zero whatever the picture shows, and gradient descent finds that long before it finds a better
    face. Then the loss is zero and teaches nothing (notebook 04 shows it). So F'' comes
    from a net that learned to tell attributes apart first and is then held still: the only way to lower this
    loss is to draw a face with the same attributes in the same places.
    """
    if net is not None:
        if any(p.requires_grad for p in net.parameters()) or net.training:
            raise S2FError("the attention loss needs a frozen net: call net.requires_grad_(False).eval() first.")
        with torch.no_grad():
            x = net.attention_features(x)
        y = net.attention_features(y)
    distances = [_rms(a.float() - b.float()) for a, b in zip(x, y, strict=True)]
    return torch.stack(distances).mean()


def _safe_norm(x: Tensor) -> Tensor:
    """Row norms (B,N) -> (B,), exact where they matter, with gradient zero instead of NaN at zero."""
    return (x.square().sum(1) + 1e-12).sqrt()


def _rms(difference: Tensor) -> Tensor:
    """(B,C,H,W) -> mean over the batch of ‖·‖₂ / √(CHW)."""
    flat = difference.flatten(1)
    return _safe_norm(flat).mean() / flat.shape[1] ** 0.5


@dataclass(frozen=True)
class LossWeights:
    """λ1 (l2), λ2 (lpips), λ3 (id), λ_reg (reg) and the paper's λ4 (attention); a loss of weight 0 is not computed."""

    l2: float = 1.0
    lpips: float = 0.8
    id: float = 0.1
    reg: float = 0.005
    attention: float = 1.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value < float("inf"):
                raise S2FError(f"the weight of the {name} loss is {value}: give a number of 0 or more.")

    @classmethod
    def of(cls, preset: str | Preset) -> LossWeights:
        """The preset's weights."""
        p = get_preset(preset)
        return cls(p.lambda_l2, p.lambda_lpips, p.lambda_id, p.lambda_reg, p.lambda4)


class SketchLoss(nn.Module):
    """The weighted sum of all of them: (photo, output, w_plus, latent_avg) -> (total, each loss as a float).

    networks: {"lpips": a perceptual judge, "id": an identity judge, "attention": an AttributeNet}, one for each of these
    losses whose weight is above 0; :func:`s2flib.judges.loss_networks` gives a preset's.

    All are frozen: this module has nothing to train, and its state dict is no part of a checkpoint. The floats are
    unweighted; "total" is among them.
    """

    def __init__(self, weights: LossWeights, networks: Mapping[str, nn.Module]):
        super().__init__()
        self.weights = weights
        wanted = [k for k in ("lpips", "id", "attention") if getattr(weights, k) > 0]
        if missing := [k for k in wanted if k not in networks]:
            raise S2FError(f"the {missing[0]} loss needs its network: see s2flib.judges.loss_networks.")
        self.nets = nn.ModuleDict({k: networks[k] for k in wanted}).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> SketchLoss:
        return super().train(False)         # frozen means frozen: no batch statistics, no dropout

    def forward(
        self,
        photo: Tensor,        # (B,3,H,W) in [-1,1]
        output: Tensor,       # (B,3,H,W), the generator's picture pooled to the same size
        w_plus: Tensor,       # (B,n_styles,style_dim)
        latent_avg: Tensor,   # (n_styles,style_dim) or (style_dim,)
    ) -> tuple[Tensor, dict[str, float]]:
        if photo.ndim != 4 or photo.shape[1] != 3 or photo.shape != output.shape:
            raise ImageError(
                f"the losses compare photo and output, (B,3,H,W) of one size, but got {tuple(photo.shape)} and "
                f"{tuple(output.shape)}: pass the photo, not the sketch, pooled to the output's size."
            )
        parts: dict[str, Tensor] = {}
        if self.weights.l2:
            parts["l2"] = l2_loss(photo.float(), output.float())
        if self.weights.lpips:
            parts["lpips"] = lpips_loss(photo, output, self.nets["lpips"])
        if self.weights.id:
            parts["id"] = id_loss(photo, output, self.nets["id"])
        if self.weights.reg:
            parts["reg"] = reg_loss(w_plus, latent_avg)
        if self.weights.attention:
            parts["attention"] = attention_loss(photo, output, self.nets["attention"])
        if not parts:
            raise S2FError("every loss has weight 0, so there is nothing to train: give one of them a weight.")
        total = sum(getattr(self.weights, k) * v.float() for k, v in parts.items())
        values = torch.stack([total, *parts.values()]).detach().tolist()    # one wait for the GPU, not five
        return total, dict(zip(["total", *parts], values, strict=True))
