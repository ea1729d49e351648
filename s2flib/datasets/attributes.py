"""Binary face attributes, one list for both data sets: the targets of AttributeNet (CBAM features)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from s2flib.errors import DataError


class Attribute(NamedTuple):
    """name; predicate on SynthFaces' attributes; CelebA's column, None when CelebA has no such column."""

    name: str
    synthfaces: Callable[[dict], bool]
    celeba: str | None


def _one_of(column: str, *values: str) -> Callable[[dict], bool]:
    return lambda a: a[column] in values


# SynthFaces' predicates describe what was rendered, not what is visible: long hair may hide an earring.
ATTRIBUTES = (
    Attribute("male", _one_of("gender", "male"), "Male"),
    Attribute("young", lambda a: a["age"] < 35, "Young"),
    Attribute("old", lambda a: a["age"] > 60, None),
    Attribute("smiling", _one_of("expression", "smile", "grin"), "Smiling"),
    Attribute("mouth_open", _one_of("expression", "open", "surprise", "grin"), "Mouth_Slightly_Open"),
    Attribute("glasses", lambda a: a["glasses"] != "none", "Eyeglasses"),
    Attribute("sunglasses", _one_of("glasses", "sun"), None),
    Attribute("beard", _one_of("beard", "short", "goatee", "full"), None),
    Attribute("mustache", _one_of("beard", "mustache", "short", "goatee", "full"), "Mustache"),
    Attribute("stubble", _one_of("beard", "stubble"), "5_o_Clock_Shadow"),
    Attribute("black_hair", _one_of("hair_color", "black"), "Black_Hair"),
    Attribute("brown_hair", _one_of("hair_color", "darkbrown", "brown", "lightbrown"), "Brown_Hair"),
    Attribute("blond_hair", _one_of("hair_color", "blond", "platinum"), "Blond_Hair"),
    Attribute("red_hair", _one_of("hair_color", "red", "auburn"), None),
    Attribute("grey_hair", _one_of("hair_color", "grey", "white"), "Gray_Hair"),
    Attribute("bald", _one_of("hair_style", "bald"), "Bald"),
    Attribute("long_hair", _one_of("hair_style", "long", "longwavy", "bangs_long"), None),
    Attribute("curly_hair", _one_of("hair_style", "curly", "afro"), "Wavy_Hair"),
    Attribute("bangs", _one_of("hair_style", "bangs", "bangs_long"), "Bangs"),
    Attribute("earrings", lambda a: a["earrings"] == 1, "Wearing_Earrings"),
    Attribute("makeup", lambda a: a["makeup"] > 0.5, "Heavy_Makeup"),
    Attribute("pale_skin", lambda a: a["skin_tone"] < 1, "Pale_Skin"),
    Attribute("dark_skin", lambda a: a["skin_tone"] > 4, None),
)
ATTRIBUTE_NAMES = tuple(a.name for a in ATTRIBUTES)


def attribute_targets(dataset) -> np.ndarray:
    """(N, K) float32 of 0 and 1 in the order of ATTRIBUTE_NAMES, one row per photo of a FaceDataset.

    SynthFaces has all K. CelebA has no column for some (old, sunglasses, …); these are NaN: exclude them from the loss.
    Raises DataError when a photo has the attributes of neither data set.
    """
    rows = dataset.attributes
    out = np.full((len(rows), len(ATTRIBUTES)), np.nan, np.float32)
    for i, row in enumerate(rows):
        try:
            for k, attribute in enumerate(ATTRIBUTES):
                if "hair_style" in row:
                    out[i, k] = attribute.synthfaces(row)
                elif attribute.celeba is not None:
                    out[i, k] = row[attribute.celeba]
        except KeyError as e:
            raise DataError(
                f"{dataset.names[i]} has no attribute {e}: use SynthFaces or CelebAMask-HQ, unchanged."
            ) from None
    return out
