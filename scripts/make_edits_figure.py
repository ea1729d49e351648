"""Draw docs/edits.png: sketches of test people, the shipped model's faces, and each face edited by eight sentences.

The people are evenly spaced over the test split; all of them are counted, the first four are drawn. Prints how many of
the edits succeed. Usage: python scripts/make_edits_figure.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from s2flib.datasets.faces import open_dataset
from s2flib.evaluation.edit_guidance import pipeline_editor
from s2flib.evaluation.edit_report import edit_generated
from s2flib.generate import how_made
from s2flib.instruct_pix2pix.editing import identity_of
from s2flib.instruct_pix2pix.pipeline import load_pipeline
from s2flib.judges.edit_judge import load_edit_judge
from s2flib.judges.load import identity_judge
from s2flib.plotting.canvas import save_figure
from s2flib.presets import get_preset
from s2flib.weights.load import load_psp

PEOPLE = 24
OUT = Path(__file__).resolve().parent.parent / "docs" / "edits.png"


def main(out: Path = OUT, people: int = PEOPLE) -> None:
    preset = get_preset("tiny")
    psp, pipe = load_psp(preset), load_pipeline(preset)
    made = edit_generated(psp, open_dataset("tiny", "test"), pipeline_editor(pipe, preset, seed=0), load_edit_judge(),
                          identity_judge(preset, role="measure"), people, progress=True)  # fmt: skip
    for k, text in enumerate(made.instructions):
        if not np.isnan(made.success[:, k]).all():
            print(f"{text:48s} {100 * made.rate(k).value:5.1f} %")
    value, low, high = made.rate()[:3]
    print(f"{'all edits of generated faces':48s} {100 * value:5.1f} % [{100 * low:.0f}, {100 * high:.0f}]")
    about = how_made(psp, preset) | {
        "pipeline": identity_of(pipe), "seed": 0, "what": "sketch, face, and the face edited",
        "instructions": list(made.instructions),
    }  # fmt: skip
    print(save_figure(made.figure(), out, overwrite=True, metadata=about))


if __name__ == "__main__":
    main()
