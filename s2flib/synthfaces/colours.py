"""Colours: conversion between sRGB and linear light; palettes for skin, hair and iris."""

from __future__ import annotations

import numpy as np

# skin tones, lightest to darkest (sRGB); Identity.tone interpolates between them in linear light
SKIN = ("e3c0aa", "dab096", "cb9c80", "b7866a", "9e6f56", "805843", "624335", "483129")
HAIR = {"black": "14100e", "darkbrown": "2c1e16", "brown": "4b3323", "lightbrown": "7b5a3c", "blond": "b8955f",
        "platinum": "d9c7a4", "auburn": "5c2b19", "red": "8c4522", "grey": "8b8783", "white": "d3cfca",
        "pink": "c2688a", "blue": "34558c"}  # fmt: skip
IRIS = {"darkbrown": "2d1a10", "brown": "51301a", "hazel": "6f5430", "amber": "875c28", "green": "566748",
        "blue": "5a7d9b", "lightblue": "86a5bb", "grey": "76808a"}  # fmt: skip


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] → linear light (IEC 61966-2-1)."""
    srgb = np.asarray(srgb, float)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(light: np.ndarray) -> np.ndarray:
    """Linear light → sRGB; clips to [0, 1]."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-6) ** (1 / 2.4) - 0.055)


def linear(hex_srgb: str) -> np.ndarray:
    """'ff8000' → linear RGB (3,)."""
    return to_linear(np.array([int(hex_srgb[i : i + 2], 16) for i in (0, 2, 4)]) / 255)


def skin_rgb(tone: float) -> np.ndarray:
    """Linear RGB (3,) of a tone between 0 and 7."""
    palette = np.stack([linear(h) for h in SKIN])
    return np.array([np.interp(tone, np.arange(len(SKIN)), palette[:, c]) for c in range(3)])
