"""A line-up that hides the answer until the viewer has chosen, and counts how often the choice was right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import ipywidgets
import numpy as np

from s2flib.errors import S2FError
from s2flib.images import Picture, as_array, contact_sheet
from s2flib.widgets.base import Panel, png_bytes

SIDE = 110  # px of a picture


class Round(NamedTuple):
    """One line-up. answer: the index of the right photo, or None if the person is not there."""

    shown: Sequence[Picture]  # what the witness gives: the drawing, its face, or both
    photos: Sequence[Picture]
    answer: int | None
    machine: int | None = None  # the photo that a judge finds most similar; told with the answer


class LineupPanel(Panel):
    """``LineupPanel(rounds)``: the shown pictures, the photos of a line-up with a button each, and "not there".

    Nothing in the panel's state says which photo is right until a button was clicked; a second click changes nothing.
    ``choose(i)`` does what a button does. ``right`` and ``answered`` count.
    """

    def __init__(self, rounds: Sequence[Round]):
        self.rounds = [r for r in rounds]
        if not self.rounds:
            raise S2FError("a line-up panel needs at least one round: give shown pictures, photos and the answer.")
        for k, r in enumerate(self.rounds):
            if not r.shown or len(r.photos) < 2 or r.answer is not None and not 0 <= r.answer < len(r.photos):
                raise S2FError(f"round {k} needs something to show, two photos or more, and an answer among them.")
        self.place, self.right, self.answered = 0, 0, 0
        self.chosen: int | None = None
        self.revealed = False
        self.shown = ipywidgets.HBox()
        self.gallery = ipywidgets.HBox(layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.absent = ipywidgets.Button(description="not there")
        self.following = ipywidgets.Button(description="next", disabled=True)
        self.absent.on_click(lambda _: self.choose(None))
        self.following.on_click(lambda _: self.next())
        buttons = ipywidgets.HBox([self.absent, self.following])
        super().__init__([self.shown, self.gallery, buttons])
        self._open()

    def choose(self, i: int | None) -> None:
        """Called by the buttons: photo ``i``, or None for "not there". Shows the answer and counts."""
        self.attempt(lambda: self._choose(i), "choosing")

    def next(self) -> None:
        """Called by the button: the next round, if this one is answered."""
        self.attempt(self._next, "the next round")

    def _choose(self, i: int | None) -> str:
        r = self.rounds[self.place]
        if self.revealed:
            return "you have chosen already"
        if i is not None and not 0 <= i < len(r.photos):
            raise S2FError(f"there is no photo {i}: choose 0 to {len(r.photos) - 1}, or None.")
        self.chosen, self.revealed = i, True
        self.answered += 1
        self.right += i == r.answer
        self._mark()
        truth = "the person is not there" if r.answer is None else f"it is photo {r.answer + 1}"
        said = [f"{'right' if i == r.answer else 'wrong'}: {truth}"]
        if r.machine is not None:
            said.append(f"the judge's first is photo {r.machine + 1}")
        self.following.disabled = self.place + 1 == len(self.rounds)
        return "; ".join([*said, f"{self.right} of {self.answered} right"])

    def _next(self) -> str:
        if not self.revealed:
            return "choose first"
        if self.place + 1 < len(self.rounds):
            self.place, self.revealed, self.chosen = self.place + 1, False, None
            self._open()
        return f"line-up {self.place + 1} of {len(self.rounds)}"

    def _open(self) -> None:
        r = self.rounds[self.place]
        self.following.disabled = True
        self.shown.children = [_image(picture) for picture in r.shown]
        boxes = []
        for i, photo in enumerate(r.photos):
            button = ipywidgets.Button(description=str(i + 1), layout=ipywidgets.Layout(width=f"{SIDE}px"))
            button.on_click(lambda _, i=i: self.choose(i))
            boxes.append(ipywidgets.VBox([_image(photo), button]))
        self.gallery.children = boxes

    def _mark(self) -> None:
        r = self.rounds[self.place]
        for i, box in enumerate(self.gallery.children):
            button = box.children[1]
            button.button_style = "success" if i == r.answer else "danger" if i == self.chosen else ""

    def static(self) -> bytes:
        """Shown pictures and numbered photos as PNG bytes, without the answer."""
        r = self.rounds[self.place]
        pictures = [as_array(p) for p in (*r.shown, *r.photos)]
        titles = [*("shown" for _ in r.shown), *(str(i + 1) for i in range(len(r.photos)))]
        return png_bytes(contact_sheet(pictures, min(8, len(pictures)), titles, cell=SIDE, gap=6), synthetic=True)


def _image(picture: Picture) -> ipywidgets.Image:
    return ipywidgets.Image(value=png_bytes(np.asarray(as_array(picture)), synthetic=True), width=SIDE, height=SIDE)
