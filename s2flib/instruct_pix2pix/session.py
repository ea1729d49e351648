"""A chain of edits with undo and redo: what a conversation with a witness is."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s2flib.errors import S2FError
from s2flib.images import Picture, inherited
from s2flib.instruct_pix2pix.editing import Edited, edit
from s2flib.instruct_pix2pix.inputs import check_length, check_words, frame
from s2flib.instruct_pix2pix.pipeline import load_pipeline
from s2flib.instruct_pix2pix.reading import read
from s2flib.presets import Preset, get_preset


class EditSession:
    """Successive edits, each applied to the last result, with undo and redo.

        session = EditSession("face.png")
        session.apply("brown hair"); session.apply("add glasses"); session.undo(); session.save("out.png")

    options: arguments of edit() (steps, guidance, image_guidance, interval, keep, pipe …) for all edits of the session.
    """

    def __init__(self, image: Picture, preset: str | Preset = "tiny", **options):
        self.preset, self.options = get_preset(preset), options
        self.original, self.notes = frame(image, self.preset.edit)
        self.about = inherited(image)[0] if isinstance(image, (str, os.PathLike)) else {}  # what a file says of itself
        self.history: list[Edited] = []  # the edits that led to ``image``
        self._undone: list[Edited] = []

    @property
    def image(self) -> np.ndarray:
        """The current image, (H, W, 3) uint8."""
        return self.history[-1].image if self.history else self.original

    @property
    def instructions(self) -> list[str]:
        return [step.instruction for step in self.history]

    def apply(self, instruction: str, **options) -> Edited:
        """Apply one more edit. If it fails or is cancelled, the session does not change."""
        self._load()
        every: dict[str, Any] = self.options | {"seed": 0} | options
        made = edit(self.image, instruction, self.preset, **every)
        if isinstance(made, list):
            raise S2FError("a session edits one image: pass one seed.")
        chain = [*self.instructions, instruction]
        made = Edited(
            made.image,
            made.before,
            instruction,
            made.seed,
            made.parameters | self.about | {"history": json.dumps(chain)},
            made.notes,
        )
        self.history.append(made)
        self._undone.clear()
        return made

    def _load(self):
        """The pipeline of the session, loaded once."""
        if self.options.get("pipe") is None:
            self.options["pipe"] = load_pipeline(self.preset)
        return self.options["pipe"]

    def chain(self, instructions: Sequence[str], **options) -> list[Edited]:
        """Apply several edits in order.

        With the tiny model an instruction may name several wishes ("a beard, and take the glasses off"); each becomes
        an edit of its own. All instructions are read before the first edit; if an edit itself fails, those before it
        remain.
        """
        if self.preset.edit.trained_here:
            for text in instructions:
                check_words(text)
                check_length(text, self._load())
            wishes = [(text, read(text)) for text in instructions]
            instructions = [w.words if len(ws) > 1 else text for text, ws in wishes for w in ws]
        return [self.apply(text, **options) for text in instructions]

    def undo(self) -> np.ndarray:
        """Undo the last edit; returns the image before it."""
        if not self.history:
            raise S2FError("there is nothing to undo: this is the original image.")
        self._undone.append(self.history.pop())
        return self.image

    def redo(self) -> np.ndarray:
        """Redo the edit that was undone last; returns the image."""
        if not self._undone:
            raise S2FError("there is nothing to redo: no edit was undone.")
        self.history.append(self._undone.pop())
        return self.image

    def save(self, path: str | Path, overwrite: bool = False, mark: bool = False) -> Path:
        """Write the current image, with all instructions in its metadata."""
        if not self.history:
            raise S2FError("nothing has been edited yet: call apply first.")
        return self.history[-1].save(path, overwrite, mark)
