"""The person in a portrait without a mask, so that a photo is sketched as the training photos are: on white paper."""

from __future__ import annotations

import cv2
import numpy as np

from s2flib.errors import ImageError

SIDE = 256  # GrabCut works at this size: finer detail only adds noise


def person_mask(photo: np.ndarray) -> np.ndarray:
    """Foreground mask (H, W) uint8, 1 on the person, of a portrait (H, W, 3) uint8 that is framed as in training.

    GrabCut (Rother et al. 2004, OpenCV), initialised with an ellipse around the face as person and the upper border
    and corners as background; of the result the part that contains the face is kept, its holes are filled and its
    outline is smoothed. It needs no weights. Where it finds no plausible person (less than an eighth or more than nine
    tenths of the picture) the ellipse itself is returned.
    """
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise ImageError(f"a photo is an array (H, W, 3) of uint8, not {photo.shape} of {photo.dtype}.")
    height, width = photo.shape[:2]
    small = cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    guess = np.full((SIDE, SIDE), cv2.GC_PR_BGD, np.uint8)
    head = ellipse(0.42, 0.5, 0.52)
    guess[head > 0] = cv2.GC_PR_FGD
    guess[int(0.85 * SIDE) :, int(0.12 * SIDE) : int(0.88 * SIDE)] = cv2.GC_PR_FGD  # shoulders
    guess[int(0.95 * SIDE) :, int(0.3 * SIDE) : int(0.7 * SIDE)] = cv2.GC_FGD
    guess[ellipse(0.22, 0.3, 0.55) > 0] = cv2.GC_FGD
    edge = SIDE // 25
    guess[:edge] = guess[: SIDE // 2, :edge] = guess[: SIDE // 2, -edge:] = cv2.GC_BGD
    cv2.setRNGSeed(0)  # GrabCut's clustering starts at random
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    try:
        cv2.grabCut(
            small[..., ::-1].copy(), guess, (0, 0, SIDE, SIDE), background, foreground, 4, cv2.GC_INIT_WITH_MASK
        )
        found = np.isin(guess, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
        found = _around_the_face(found)
    except cv2.error:  # a picture of one colour has no model
        found = head
    if not 0.125 < found.mean() < 0.9:
        found = head
    return (cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5).astype(
        np.uint8
    )


def ellipse(half_width: float, half_height: float, centre_y: float) -> np.ndarray:
    """(SIDE, SIDE) uint8, 1 inside an upright ellipse in the middle; lengths as shares of the side."""
    out = np.zeros((SIDE, SIDE), np.uint8)
    axes = (int(half_width * SIDE), int(half_height * SIDE))
    cv2.ellipse(out, (SIDE // 2, int(centre_y * SIDE)), axes, 0, 0, 360, 1, -1)
    return out


def _around_the_face(mask: np.ndarray) -> np.ndarray:
    """The connected part that contains the middle of the face, without holes, with a smooth outline."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    mask = cv2.morphologyEx(cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel), cv2.MORPH_CLOSE, kernel)
    _, parts = cv2.connectedComponents(mask)
    part = parts[int(0.55 * SIDE), SIDE // 2]
    if part == 0:
        return mask
    outline, _ = cv2.findContours((parts == part).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(mask), outline, -1, 1, cv2.FILLED)
