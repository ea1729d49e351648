"""What a drawing leaves open, and whether a face obeys it (notebook 09).

Several faces fit one drawing (seed paper, Fig. 5). Two numbers describe them:

* variation: how much the variants differ, for every pixel, and for every part of the face;
* agreement: how well a face obeys the drawing. The face is sketched again, with the mask of the drawing, and compared
  with it. The comparison is a correlation of blurred darkness, so that it also serves line drawings, which have no
  tones. It has no scale of its own: the sketched photo (ceiling) and another person's face (control) stand beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from s2flib.errors import ImageError
from s2flib.sketch import gaussian_blur, sketch
from s2flib.synthfaces.labels import LABELS

# region → its labels in a mask
REGIONS = {
    "skin": ("skin", "neck", "l_ear", "r_ear"),
    "eyes": ("l_eye", "r_eye"),
    "brows": ("l_brow", "r_brow"),
    "nose": ("nose",),
    "mouth": ("mouth", "u_lip", "l_lip"),
    "hair": ("hair",),
    "clothes": ("cloth",),
    "background": ("background",),
}
BLUR = 0.012  # of the side: σ of the blur before drawings are compared, about two pencil lines at 128 px


def variation(faces: Tensor) -> Tensor:
    """Variants (K, 3, H, W) in [−1, 1], K ≥ 2 → (H, W): standard deviation over the variants, in grey levels of 255.

    The root of the mean over the three channels of the variance (with K − 1 in the denominator).
    """
    if faces.ndim != 4 or len(faces) < 2:
        raise ImageError(f"variation compares at least two faces (K, 3, H, W), not {tuple(faces.shape)}.")
    grey = 127.5 * (faces.clamp(-1, 1) + 1)
    return grey.var(0).mean(0).sqrt()


def by_region(values: Tensor, mask: Tensor) -> dict[str, float]:
    """Mean of values (H, W) over each of REGIONS of a mask (H, W) of labels; regions that it lacks are left out."""
    out = {}
    for name, labels in REGIONS.items():
        inside = torch.isin(mask, torch.tensor([LABELS.index(label) for label in labels]).to(mask))
        if inside.any():
            out[name] = float(values[inside].mean())
    return out


def agreement(drawings: Tensor, faces: Tensor, masks: Tensor) -> Tensor:
    """How well faces obey drawings, (B,) in [−1, 1].

    drawings (B, 1, H, W) in [0, 1]; faces (B, 3, H, W) in [−1, 1]; masks (B, H, W), the person where not 0. Each face
    is sketched with its mask (:func:`s2flib.sketch.sketch`); drawing and sketch are blurred (BLUR) and correlated over
    the person's pixels. A drawing or a face without any contrast there has the agreement 0.
    """
    if not len(drawings) == len(faces) == len(masks) or drawings.shape[-2:] != faces.shape[-2:]:
        raise ImageError("agreement needs as many faces and masks as drawings, of the same size.")
    again = sketch(faces.clamp(-1, 1), masks)
    sigma = BLUR * faces.shape[-1]
    a, b = (gaussian_blur(1 - x.float(), sigma)[:, 0].flatten(1).double() for x in (drawings, again))
    weight = (masks != 0).flatten(1).double()
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1)

    def centred(x: Tensor) -> Tensor:
        return x - (weight * x).sum(1, keepdim=True)

    a, b = centred(a), centred(b)
    variances = (weight * a * a).sum(1) * (weight * b * b).sum(1)
    return torch.where(variances > 1e-12, (weight * a * b).sum(1) / variances.clamp_min(1e-12).sqrt(), 0).float()
