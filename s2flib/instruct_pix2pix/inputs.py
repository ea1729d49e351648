"""Checks the user input of an edit, an image and an instruction, and prepares it for the model."""

from __future__ import annotations

import threading

import cv2
import numpy as np

from s2flib.errors import ImageError, S2FError
from s2flib.images import MAX_SIDE, MIN_SIDE, Picture, as_array, centre_square
from s2flib.instruct_pix2pix.reading import read
from s2flib.presets import EditSettings, Preset

EXAMPLE = "'make the hair blond'"


def frame(image: Picture, settings: EditSettings) -> tuple[np.ndarray, tuple[str, ...]]:
    """Any image → uint8 (H, W, 3) at the model's size, and notes on the changes.

    With ``settings.square``: the centre square at size × size. Otherwise the shorter side becomes ``settings.size`` and
    both sides multiples of 64, as Stable Diffusion needs; the remainder is cropped at the edges.
    """
    size = settings.size
    array, notes = as_array(image), []
    h, w = array.shape[:2]
    if min(h, w) < MIN_SIDE or max(h, w) > MAX_SIDE:
        raise ImageError(f"the image is {w}×{h} px: use one with sides of {MIN_SIDE} to {MAX_SIDE:,} px.")
    if settings.square:
        if (h, w) != (size, size):
            notes.append(f"the image was {w}×{h} px: its centre was cropped and scaled to {size}×{size}")
        return centre_square(array, size), tuple(notes)
    scale = size / min(h, w)
    th, tw = (max(size, int(side * scale) // 64 * 64) for side in (h, w))
    if max(th, tw) > 3 * size:
        raise ImageError(f"the image is {w}×{h} px, too long for its width: crop it to at most three to one.")
    if (h, w) != (th, tw):
        notes.append(f"the image was {w}×{h} px: it is edited at {tw}×{th}")
        scale = max(th / h, tw / w)
        nh, nw = max(th, round(h * scale)), max(tw, round(w * scale))
        array = cv2.resize(array, (nw, nh), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        top, left = (nh - th) // 2, (nw - tw) // 2
        array = np.ascontiguousarray(array[top : top + th, left : left + tw])
    return array, tuple(notes)


def check_words(instruction: str) -> None:
    """S2FError unless the instruction is text, not empty, and in Latin script."""
    if not isinstance(instruction, str) or not instruction.strip():
        raise S2FError(f"the instruction is empty: say in English what to change, such as {EXAMPLE}.")
    letters = [c for c in instruction if c.isalpha()]
    if not letters:
        raise S2FError(
            f"the instruction {instruction[:40]!r} contains no words: say in English what to change, such as {EXAMPLE}."
        )
    if sum(ord(c) < 0x250 for c in letters) < 0.7 * len(letters):
        raise S2FError(
            f"the instruction {instruction[:40]!r} is not in Latin letters, and the model reads English "
            f"only: translate it first, such as {EXAMPLE}."
        )


class OneAtATime:
    """A tokenizer that several threads may call: transformers' keep padding and truncation as state during a call."""

    _lock = threading.Lock()

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __call__(self, *args, **kwargs):
        with self._lock:
            return self._tokenizer(*args, **kwargs)

    def __getattr__(self, name: str):
        return getattr(self._tokenizer, name)


def check_length(text: str, pipe, what: str = "instruction") -> None:
    """S2FError if the text does not fit the tokenizer's window; it is never truncated silently."""
    most = pipe.tokenizer.model_max_length - 2
    n = None  # a very long text is refused without tokenizing it
    if len(text) < 20_000:
        tokenizer = OneAtATime(pipe.tokenizer)
        n = len(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])
    if n is None or n > most:
        raise S2FError(
            f"the {what} has {n or 'thousands of'} tokens (parts of words), but the model reads at most "
            f"{most}: make it shorter, or split it into several edits."
        )


def understood(instruction: str, pipe, preset: Preset) -> tuple[str, tuple[str, ...]]:
    """The text for the model, and notes. A tiny model gets the one wish that the instruction names, in a wording that
    it knows (:mod:`s2flib.instruct_pix2pix.reading`). S2FError for an instruction that names none or several."""
    check_length(instruction, pipe)
    if not preset.edit.trained_here:
        return instruction, ()
    wishes = read(instruction)
    if len(wishes) > 1:
        listed = " and ".join(repr(w.words) for w in wishes)
        raise S2FError(f"{instruction[:60]!r} names {len(wishes)} wishes: give them one after the other, {listed}.")
    wish, notes = wishes[0], []
    if wish.ignored:
        notes.append(f"words that are not understood and ignored: {', '.join(wish.ignored)[:80]}")
    if wish.words != instruction:
        notes.append(f"understood as: {wish.words}")
    return wish.words, tuple(notes)
