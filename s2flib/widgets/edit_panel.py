"""Interactive text-guided face editing: type, apply, cancel, undo, compare before and after."""

from __future__ import annotations

import html
import threading

import ipywidgets
import numpy as np

from s2flib.images import contact_sheet
from s2flib.instruct_pix2pix.session import EditSession
from s2flib.presets import Suited
from s2flib.widgets.base import Background, from_png, png_bytes
from s2flib.widgets.compare import Compare


class EditPanel(Background, ipywidgets.VBox):
    """``EditPanel(picture, preset, pipe=…)``: controls for instruction, guidance and seed, and a comparison.

    ``session`` (s2flib.instruct_pix2pix.EditSession) stores the chain of edits. While an edit runs, only Cancel can be
    clicked; however it ends, the other buttons come back and the status line says how.
    """

    def __init__(self, picture, preset="tiny", **options):
        self.session = EditSession(picture, preset, **options)
        chosen = self.session.preset.edit
        wide = ipywidgets.Layout(width="420px")
        self.words = ipywidgets.Text(placeholder="make the hair blond", description="edit", layout=wide)
        guidance = chosen.guidance
        suited = isinstance(guidance, Suited)
        scale = guidance.scales[0] if suited else guidance
        self.guidance = ipywidgets.FloatSlider(
            scale, min=1, max=12, step=0.25, description="text", layout=wide, disabled=suited
        )
        label = "choose the text scale by the size of the change"
        self.suited = ipywidgets.Checkbox(suited, disabled=not suited, indent=False, layout=wide, description=label)
        self.suited.observe(lambda change: setattr(self.guidance, "disabled", change["new"]), "value")
        self.image_guidance = ipywidgets.FloatSlider(
            chosen.image_guidance, min=1, max=3, step=0.05, description="picture", layout=wide
        )
        self.seed = ipywidgets.IntText(0, description="seed", layout=ipywidgets.Layout(width="180px"))
        self.go = ipywidgets.Button(description="Apply", button_style="primary")
        self.stop = ipywidgets.Button(description="Cancel", disabled=True)
        self.back = ipywidgets.Button(description="Undo")
        self.bar = ipywidgets.IntProgress(0, min=0, max=1, layout=wide)
        self.status = ipywidgets.HTML("")
        self.view = Compare(self.session.original, self.session.image, "original", "now", about=self._about())
        self.go.on_click(lambda _: self.apply())
        self.stop.on_click(lambda _: self.cancel())
        self.back.on_click(lambda _: self.undo())
        row = ipywidgets.HBox([self.seed, self.go, self.stop, self.back])
        super().__init__(
            [self.words, self.suited, self.guidance, self.image_guidance, row, self.bar, self.status, self.view]
        )

    def apply(self) -> None:
        """Called by the button: starts the edit and returns immediately; see ``wait``. ``cancel`` stops it at its next
        step, and the session does not change."""
        words = self.words.value
        guidance = None if self.suited.value else self.guidance.value
        options = {"seed": self.seed.value, "guidance": guidance, "image_guidance": self.image_guidance.value}

        def work(cancelled: threading.Event) -> str:
            try:
                made = self.session.chain([words], **options, progress=self._progress, cancel=cancelled)
            finally:
                self._show()  # of two wishes, the first may have succeeded
            if self.words.value == words:  # what was typed meanwhile is the next edit
                self.words.value = ""
            return "; ".join(note for step in made for note in step.notes)

        self.background(work, "the edit")

    def busy(self, busy: bool) -> None:
        self.go.disabled = self.back.disabled = busy
        self.stop.disabled = not busy
        if busy:
            self.bar.value = 0

    def undo(self) -> None:
        """Called by the button; does nothing while an edit is running."""
        self.between(self._undo, "undoing")

    def _undo(self) -> None:
        self.session.undo()
        self._show()

    def _progress(self, step: int, steps: int) -> None:
        self.bar.max, self.bar.value = steps, step

    def _show(self) -> None:
        self.view.show(self.session.original, self.session.image, self._about())

    def _about(self) -> dict:
        """How the current image was made, with every instruction, as EditSession.save writes it."""
        return dict(self.session.history[-1].parameters if self.session.history else self.session.about)

    def say(self, text: str, ok: bool = True) -> None:
        chain = " → ".join(self.session.instructions) or "nothing edited yet"
        self.status.value = html.escape(f"{chain}; {text}" if text else chain, quote=False)

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)  # a dict, or None if widgets cannot be displayed
        return None if bundle is None else {**bundle, **self.static_bundle()}

    def static(self) -> bytes:
        """Original and result side by side as PNG bytes."""
        pictures = [from_png(png_bytes(np.asarray(p))) for p in (self.session.original, self.session.image)]
        sheet = contact_sheet(pictures, 2, ["original", "now"], cell=240, gap=8)
        return png_bytes(sheet, synthetic=True, metadata=self._about())
