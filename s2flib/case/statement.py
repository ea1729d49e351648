"""What every case says about its own limits."""

from __future__ import annotations

from pathlib import Path

import s2flib
from s2flib.presets import Preset

LIMITS = (
    "Every face in this file is synthetic: a guess that fits a drawing, of a person who need not exist. It is a lead "
    "at most, never evidence. Do not use it to identify, arrest, charge or rule out anybody, to search a register "
    "without cause, or to show it to a witness as the picture of a suspect. Similarity is not identification: a "
    "line-up always has a most similar photo, also when the person drawn is not in the gallery; compare its similarity "
    "with that of the shuffled control. Colours of skin, hair and eyes are guesses: a drawing does not state them. "
)
MEASURED = {
    "synthfaces": "Measured only on rendered people of SynthFaces, never on photographs of real people or on "
    "witnesses' drawings; nothing is known about how it does there. ",
    "celebamask-hq": "Measured only on sketches computed from photos of celebrities (CelebA), mostly young, "
    "light-skinned and Western, never on witnesses' drawings; nothing is known about how it does there. ",
}
GROUPS = (
    "Errors differ between groups of people (skin tone, sex, age): the networks' training data are not balanced. What "
    "was measured, on whom, and where it fails: {card} and data/weights/*.md of s2flib {version}."
)


def statement(preset: Preset) -> str:
    """The fixed text for a preset's cases, with the model cards that hold the figures."""
    card = f"data/weights/{Path(preset.shipped_psp).stem}.md" if preset.shipped_psp else "README.md"
    return LIMITS + MEASURED[preset.data] + GROUPS.format(card=card, version=s2flib.__version__)
