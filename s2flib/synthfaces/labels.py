"""Label masks in CelebAMask-HQ's 19 classes, exact because they are computed from the geometry.

Left and right are the person's. Beards and stubble are skin; glasses are eye_g, including the lenses.
"""

from __future__ import annotations

import numpy as np

# Label ids 0 … 18, in the painting order of the published g_mask.py: later parts cover earlier ones.
LABELS = (
    "background",
    "skin",
    "nose",
    "eye_g",
    "l_eye",
    "r_eye",
    "l_brow",
    "r_brow",
    "l_ear",
    "r_ear",
    "mouth",
    "u_lip",
    "l_lip",
    "hair",
    "hat",
    "ear_r",
    "neck_l",
    "neck",
    "cloth",
)
LABEL = {name: np.uint8(i) for i, name in enumerate(LABELS)}


def skin_labels(surface) -> np.ndarray:
    """Labels (n,) of a skin.Surface's pixels."""
    x, y = surface.canonical[:, 0], surface.canonical[:, 1]
    out = np.full(len(x), LABEL["skin"])
    out[surface.neck > 0.5] = LABEL["neck"]
    out[surface.nose > 0.5] = LABEL["nose"]
    ear, lip, brow = surface.ears > 0.5, surface.lips > 0.5, surface.brow > 0.45
    out[brow] = np.where(x[brow] > 0, LABEL["l_brow"], LABEL["r_brow"])
    out[ear] = np.where(x[ear] > 0, LABEL["l_ear"], LABEL["r_ear"])
    out[lip] = np.where(y[lip] > 6.607, LABEL["u_lip"], LABEL["l_lip"])
    out[surface.inside > 0.5] = LABEL["mouth"]
    out[surface.scalp > 0.45] = LABEL["hair"]
    out[surface.necklace > 0.4] = LABEL["neck_l"]
    out[surface.cloth > 0] = LABEL["cloth"]
    return out


def majority(labels: np.ndarray, factor: int) -> np.ndarray:
    """(H·f, W·f) → (H, W): the most frequent label of each block, the smallest if tied (scipy.stats.mode is slower)."""
    if factor == 1:
        return labels
    h, w = labels.shape[0] // factor, labels.shape[1] // factor
    block = labels.reshape(h, factor, w, factor).transpose(0, 2, 1, 3).reshape(h, w, factor * factor)
    block = np.sort(block, -1)
    best, votes = block[..., 0].copy(), np.zeros((h, w), np.int8)
    for k in range(block.shape[-1]):
        count = (block == block[..., k : k + 1]).sum(-1)
        more = count > votes
        best[more] = block[..., k][more]
        votes[more] = count[more]
    return best
