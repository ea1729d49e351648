"""The encoder's losses, as defined in the seed paper (Sec. 3.3, after pSp, https://arxiv.org/abs/2008.00951).

x is the sketch's source photo, y = D(E(sketch)) the generator's output; both (B,3,H,W) in [-1,1], at the preset's loss
size. Only the encoder sees the one-channel sketch; the losses do not.

    L_E   = λ1 L2 + λ2 LPIPS + λ3 ID + λ_reg reg
    total = L_E + λ4 attention

The paper uses λ4 for two weights; here λ_reg is the regulariser's and λ4 the attention loss's. Its outer λ is 1.

The meaning of a λ depends on how "‖·‖₂" is scaled. The definitions are:

    l2         mean of the squared differences, as in pSp's code: ‖x − y‖₂² / (3HW), mean over the batch
    lpips      mean over the batch of the perceptual judge's distance (a weighted sum of squared differences)
    id         1 − cosine, mean over the batch
    reg        ‖w − w̄‖₂ over all styles of an image, neither squared nor normalised, as in pSp's code
    attention  ‖F''(x) − F''(y)‖₂ / √(numbers in F''): not squared; mean over the maps and the batch

The paper does not state the scale of its attention loss. Without the division it would be about a hundred times larger
under tiny. Adam and similar optimisers are invariant to a common factor, so once λ4·attention outweighs the rest, at
λ4 = 10³ as well as at 10⁹, training follows only the attention loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

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


def id_loss(x: Tensor, y: Tensor, judge: Any) -> Tensor:
    """1 − ⟨R(x), R(y)⟩, mean over the batch; R = judge.embed, unit length. No gradient flows into x."""
    with torch.no_grad():
        target = judge.embed(x)
    return _cosine_distance(target, judge.embed(y))


def _cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    """1 − ⟨x, y⟩ of embeddings (B,d) of unit length, mean over the batch."""
    return 1 - (x * y).sum(1).mean()


def reg_loss(w_plus: Tensor, latent_avg: Tensor) -> Tensor:
    """‖E(x) − w̄‖₂: w_plus (B,n,D), latent_avg (D,) or (n,D) -> mean over the batch of the Frobenius norms."""
    delta = (w_plus - latent_avg).flatten(1).float()
    return _safe_norm(delta).mean()


@overload
def attention_loss(x: Tensor, y: Tensor, net: AttributeNet) -> Tensor: ...


@overload
def attention_loss(x: Iterable[Tensor], y: Iterable[Tensor], net: None = None) -> Tensor: ...


def attention_loss(x: Any, y: Any, net: AttributeNet | None = None) -> Tensor:
    """‖F''(x) − F''(y)‖₂ of CBAM-refined maps, divided by √(numbers in the map), mean over maps and batch.

    x, y: photos (B,3,H,W) together with ``net``, or two lists of precomputed maps (B,C,H',W').

    net must be frozen. The paper does not say which network its F'' come from. If the network were trained together
    with the encoder by this loss, it could make F''(x) − F''(y) zero for any image by closing every gate or shrinking
    every map, and gradient descent finds that solution long before it finds a better face; the loss is then zero and
    teaches nothing (notebook 04 shows this). F'' therefore come from a network that was first trained to recognise
    attributes and then frozen: the only way to reduce this loss is to generate a face with the same attributes in the
    same places.
    """
    if net is not None:
        if any(p.requires_grad for p in net.parameters()) or net.training:
            raise S2FError("the attention loss needs a frozen network: call net.requires_grad_(False).eval() first.")
        with torch.no_grad():
            x = net.attention_features(x)
        y = net.attention_features(y)
    differences = [(a.float() - b.float()).flatten(1) for a, b in zip(x, y, strict=True)]
    return torch.stack([_safe_norm(d).mean() / d.shape[1] ** 0.5 for d in differences]).mean()


def _safe_norm(x: Tensor) -> Tensor:
    """Row norms (B,N) -> (B,), with a gradient of zero instead of NaN at zero."""
    return (x.square().sum(1) + 1e-12).sqrt()


class AttentionLoss(nn.Module):
    """:func:`attention_loss` with a frozen network: ``compare(targets(photo), output)``, a scalar.

    maps: which of the network's refined maps F'' are compared, 0 being the finest; none: all of them.
    """

    def __init__(self, net: AttributeNet, maps: Sequence[int] = ()):
        super().__init__()
        available = len(net.blocks)
        if bad := [i for i in maps if i not in range(available)]:
            raise S2FError(f"the attribute network has the maps 0 to {available - 1}, not {bad[0]}.")
        self.net, self.maps = net, tuple(maps) or tuple(range(available))

    def features(self, x: Tensor) -> list[Tensor]:
        every = self.net.attention_features(x)
        return [every[i] for i in self.maps]

    def targets(self, photo: Tensor, sketch: Tensor | None = None) -> list[Tensor]:
        """What the output is compared with. The sketch is not used."""
        return self.features(photo)

    def compare(self, targets: list[Tensor], output: Tensor) -> Tensor:
        return attention_loss(targets, self.features(output))


def gradient_norms(losses: Mapping[str, Callable[[Tensor], Tensor]], output: Tensor) -> dict[str, Tensor]:
    """‖∂L_k/∂y‖ of each loss at ``output`` (B, 3, H, W), all numbers of the batch together; 0-d float64 tensors."""
    norms = {}
    for name, loss in losses.items():
        y = output.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(y), y)
        norms[name] = gradient.double().norm()
    return norms


def gradient_shares(losses: Mapping[str, Callable[[Tensor], Tensor]], output: Tensor) -> dict[str, float]:
    """Each weighted loss's share of the gradient at ``output``, in [0, 1]: ‖∂L_k/∂y‖ / Σ_j ‖∂L_j/∂y‖.

    losses: name → function of the output (B, 3, H, W) that includes its λ. What a loss does in training is decided by
    this share, not by λ. All zero if no loss has a gradient.
    """
    norms = {name: float(norm) for name, norm in gradient_norms(losses, output).items()}
    total = sum(norms.values())
    return {name: norm / total if total else 0.0 for name, norm in norms.items()}


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
                raise S2FError(f"the weight of the {name} loss is {value}: use a finite number of 0 or more.")

    @classmethod
    def of(cls, preset: str | Preset) -> LossWeights:
        """The preset's weights."""
        p = get_preset(preset)
        return cls(p.lambda_l2, p.lambda_lpips, p.lambda_id, p.lambda_reg, p.lambda4)


class SketchLoss(nn.Module):
    """The weighted sum of all losses: (photo, output, w_plus, latent_avg) -> (total, {loss: value}).

    networks: {"lpips": a perceptual judge, "id": an identity judge, "attention": an AttributeNet, an
    :class:`AttentionLoss` or a :class:`~s2flib.published_attention.PublishedAttentionLoss`}, one for each of these
    losses with a weight above 0; :func:`s2flib.judges.loss_networks` returns a preset's.

    All networks are frozen: this module has nothing to train, and its state dict is not part of a checkpoint. The
    values are detached 0-d tensors, unweighted, and include "total". ``weights`` may be replaced between two calls.
    """

    def __init__(self, weights: LossWeights, networks: Mapping[str, nn.Module]):
        super().__init__()
        self.weights = weights
        nets = {k: networks[k] for k in ("lpips", "id", "attention") if getattr(weights, k) > 0 and k in networks}
        if missing := [k for k in ("lpips", "id", "attention") if getattr(weights, k) > 0 and k not in nets]:
            raise S2FError(f"the {missing[0]} loss needs its network: see s2flib.judges.loss_networks.")
        if isinstance(net := nets.get("attention"), AttributeNet):
            nets["attention"] = AttentionLoss(net)
        self.nets = nn.ModuleDict(nets).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> SketchLoss:
        return super().train(False)  # always frozen: no batch statistics, no dropout

    @torch.no_grad()
    def targets(self, photo: Tensor, sketch: Tensor | None = None) -> dict[str, Any]:
        """What the losses compare with: the networks' features of the photos (B,3,H,W) in [-1,1].

        sketch (B,1,H,W) in [0,1]: for the published attention loss, which compares with it too.
        """
        nets: Any = self.nets
        known = {}
        if "lpips" in nets:
            known["lpips"] = nets["lpips"].features(photo)
        if "id" in nets:
            known["id"] = nets["id"].embed(photo)
        if "attention" in nets:
            known["attention"] = nets["attention"].targets(photo, sketch)
        return known

    def image_losses(self, photo: Tensor, targets: Mapping[str, Any]) -> dict[str, Callable[[Tensor], Tensor]]:
        """Every loss of the output, unweighted: name → function of the output (B,3,H,W)."""
        nets: Any = self.nets
        losses: dict[str, Callable[[Tensor], Tensor]] = {}
        if self.weights.l2:
            losses["l2"] = lambda y: l2_loss(photo.float(), y.float())
        if self.weights.lpips:
            losses["lpips"] = lambda y: nets["lpips"].compare(targets["lpips"], nets["lpips"].features(y)).mean()
        if self.weights.id:
            losses["id"] = lambda y: _cosine_distance(targets["id"], nets["id"].embed(y))
        if self.weights.attention:
            losses["attention"] = lambda y: nets["attention"].compare(targets["attention"], y)
        return losses

    def forward(
        self,
        photo: Tensor,  # (B,3,H,W) in [-1,1]
        output: Tensor,  # (B,3,H,W), the generator's output pooled to the same size
        w_plus: Tensor,  # (B,n_styles,style_dim)
        latent_avg: Tensor,  # (n_styles,style_dim) or (style_dim,)
        targets: Mapping[str, Any] | None = None,  # targets(photo), where they are needed more than once
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if photo.ndim != 4 or photo.shape[1] != 3 or photo.shape != output.shape:
            raise ImageError(
                f"the losses compare photo and output, both (B,3,H,W) of one size, but got {tuple(photo.shape)} and "
                f"{tuple(output.shape)}: pass the photo, not the sketch, pooled to the output's size."
            )
        known = self.targets(photo) if targets is None else targets
        parts = {name: loss(output) for name, loss in self.image_losses(photo, known).items()}
        if self.weights.reg:
            parts["reg"] = reg_loss(w_plus, latent_avg)
        if not parts:
            raise S2FError("every loss has weight 0, so there is nothing to train: set at least one weight above 0.")
        zero = torch.zeros((), device=photo.device)
        total = sum((getattr(self.weights, k) * v.float() for k, v in parts.items()), zero)
        return total, {k: v.detach() for k, v in {"total": total, **parts}.items()}
