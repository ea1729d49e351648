"""Draw the contact sheets of the SynthFaces data card into docs/synthfaces (before_128.png is the prototype's).

    python scripts/make_contact_sheets.py [--out docs/synthfaces]

Photos and shots come from the shipped test set; attributes, drawings and edits are rendered here (2 minutes).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from s2flib.datasets.faces import SynthFaces, open_dataset
from s2flib.images import contact_sheet, save_image
from s2flib.plotting.pictures import colour_mask
from s2flib.sketch import sketch
from s2flib.synthfaces.drawing import HANDS, line_drawing
from s2flib.synthfaces.edits import Scene, possible_edits, render_edit
from s2flib.synthfaces.identity import sample_identity
from s2flib.synthfaces.look import BEARDS, HAIR_STYLES, HATS, sample_glasses, sample_hat, sample_look
from s2flib.synthfaces.person import Person
from s2flib.synthfaces.portrait import photograph
from s2flib.synthfaces.render import render_shot
from s2flib.synthfaces.shot import sample_shot

ROOT = Path(__file__).resolve().parents[1]
SEED = 900


def photos(dataset: SynthFaces, people: int, shots: int) -> list[np.ndarray]:
    return [dataset.read(4 * i + k)[0] for i in range(people) for k in range(shots)]


def attributes() -> list[np.ndarray]:
    """Hair styles (14), beards (6), ages of one man (8), hats (3), glasses (2), make-up (3), 36 in all."""
    out = []

    def take(i: int, male: bool, age: float, **look) -> None:
        identity = sample_identity(SEED, i, male=male, age=age)
        plain = replace(sample_look(identity, SEED, i), glasses=None, hat=None, beard="none", makeup=0.0)
        shot = replace(sample_shot(identity, SEED, i), yaw=0.1, pitch=0.0, roll=0.0)
        out.append(photograph(Person(identity, replace(plain, **look)), shot, 128).rgb)

    for k, style in enumerate(HAIR_STYLES):
        take(10 + k, style in ("buzz", "short", "sidepart", "slick", "bald", "bangs"), 30, style=style)
    for beard in BEARDS:
        take(41, True, 35, beard=beard, style="short")
    for age in (18, 27, 36, 45, 54, 63, 72, 80):
        take(52, True, age, style="short")
    rng = np.random.default_rng(0)
    for hat in HATS:
        take(61, hat != "brim", 40, hat=sample_hat(rng, hat))
    for sun in (False, True):
        take(62, False, 40, glasses=sample_glasses(rng, sun=sun), style="bob")
    for makeup in (0.0, 0.5, 1.0):
        take(63, False, 30, makeup=makeup, style="long")
    return out


def drawings() -> list[np.ndarray]:
    """For each of five people: photo, labels, pencil sketch, then the line drawing in the three styles (HANDS)."""
    out = []
    for i in (3, 8, 14, 21, 30):
        picture, _, _ = render_shot(SEED, i, 0, 256, keep_buffers=True)
        out += [picture.rgb, colour_mask(picture.labels), sketch(picture.rgb, picture.labels)]
        out += [line_drawing(picture.buffers, hand, i) for hand in HANDS]
    return out


def edits(columns: int) -> list[np.ndarray]:
    """Two rows per person, before and after, with one edit of each possible kind."""
    out = []
    for i in (5, 12):
        identity = sample_identity(SEED, i)
        scene = Scene(identity, sample_look(identity, SEED, i), sample_shot(identity, SEED, i))
        pairs = [render_edit(scene, (e,)) for e in possible_edits(scene, np.random.default_rng(i))][:columns]
        blank = [np.full_like(pairs[0].before.rgb, 255)] * (columns - len(pairs))
        out += [p.before.rgb for p in pairs] + blank + [p.after.rgb for p in pairs] + blank
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "synthfaces")
    args = parser.parse_args()
    small = open_dataset("tiny", "test")
    large = SynthFaces(small.root / "test-256", "test", size=256)
    sheets = {
        "after_128": contact_sheet(photos(small, 32, 1), 8),
        "after_256": contact_sheet([large.read(4 * i + 1)[0] for i in range(8)], 4),
        "shots": contact_sheet(photos(small, 6, 4), 8),
        "attributes": contact_sheet(attributes(), 9),
        "drawings": contact_sheet(drawings(), 6),
        "edits": contact_sheet(edits(11), 11),
    }
    for name, picture in sheets.items():
        save_image(args.out / f"{name}.png", picture, overwrite=True, synthetic=True)
        print(args.out / f"{name}.png")


if __name__ == "__main__":
    main()
