"""Edit a face by words, interactively: type, apply, cancel, undo, look at before and after."""

from __future__ import annotations

import threading

import ipywidgets
import numpy as np

from s2flib.errors import S2FError
from s2flib.stylize import EditSession
from s2flib.stylize.networks import DEFAULTS, Suited
from s2flib.widgets.base import from_png, png_bytes, sheet
from s2flib.widgets.compare import Compare


class EditPanel(ipywidgets.VBox):
    """``EditPanel(picture, preset, pipe=…)``: a line of text, two guidances, a seed, apply, cancel, undo, the wipe.

    ``session`` holds the chain (s2flib.stylize.EditSession). An edit runs in a thread of its own, for a kernel that is
    busy with a callback hears no further click, Cancel's least of all. What goes wrong stands in the status line: a
    callback runs outside any cell, so it never raises.
    """

    def __init__(self, picture, preset="tiny", **options):
        self.session = EditSession(picture, preset, **options)
        chosen = DEFAULTS[self.session.preset.name]
        wide = ipywidgets.Layout(width="420px")
        self.words = ipywidgets.Text(placeholder="make the hair blond", description="edit", layout=wide)
        suited = isinstance(chosen.guidance, Suited)
        self.guidance = ipywidgets.FloatSlider(chosen.guidance.scales[0] if suited else chosen.guidance, min=1, max=12,
                                               step=0.25, description="text", layout=wide, disabled=suited)
        self.suited = ipywidgets.Checkbox(suited, disabled=not suited, indent=False, layout=wide,
                                          description="text as loud as suits the size of the change")
        self.suited.observe(lambda change: setattr(self.guidance, "disabled", change["new"]), "value")
        self.image_guidance = ipywidgets.FloatSlider(chosen.image_guidance, min=1, max=3, step=0.05,
                                                     description="picture", layout=wide)
        self.seed = ipywidgets.IntText(0, description="seed", layout=ipywidgets.Layout(width="180px"))
        self.go = ipywidgets.Button(description="Apply", button_style="primary")
        self.stop = ipywidgets.Button(description="Cancel", disabled=True)
        self.back = ipywidgets.Button(description="Undo")
        self.bar = ipywidgets.IntProgress(0, min=0, max=1, layout=wide)
        self.status = ipywidgets.HTML("")
        self.view = Compare(self.session.original, self.session.image, "original", "now")
        self.go.on_click(lambda _: self.apply())
        self.stop.on_click(lambda _: self.cancel())
        self.back.on_click(lambda _: self.undo())
        self._cancelled = threading.Event()
        self._worker: threading.Thread | None = None
        row = ipywidgets.HBox([self.seed, self.go, self.stop, self.back])
        super().__init__([self.words, self.suited, self.guidance, self.image_guidance, row, self.bar, self.status,
                          self.view])

    def apply(self) -> None:
        """What the button does: start the edit and return; :meth:`wait` for it from code."""
        if self._worker is not None:
            return
        words, options = self.words.value, dict(
            seed=self.seed.value, guidance=None if self.suited.value else self.guidance.value,
            image_guidance=self.image_guidance.value, progress=self._progress, cancel=self._cancelled)

        def work() -> str:
            made = self.session.apply(words, **options)
            self.words.value = ""
            return "; ".join(made.notes)

        def run() -> None:
            try:
                self._attempt(work)
            finally:
                self._busy(False)
                self._worker = None

        self._cancelled.clear()
        self._busy(True)
        self._worker = threading.Thread(target=run, name="edit", daemon=True)
        self._worker.start()

    def cancel(self) -> None:
        """Stop the edit under way between two of its steps; the session stays as it was."""
        self._cancelled.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until no edit is under way, or for so many seconds; is none?"""
        worker = self._worker
        if worker is not None:
            worker.join(seconds)
        return worker is None or not worker.is_alive()

    def _busy(self, busy: bool) -> None:
        self.go.disabled = self.back.disabled = busy
        self.stop.disabled = not busy

    def undo(self) -> None:
        """What the button does; nothing while an edit is under way."""
        if self._worker is not None:
            return

        def work() -> str:
            self.session.undo()
            return ""

        self._attempt(work)

    def _progress(self, step: int, steps: int) -> None:
        self.bar.max, self.bar.value = steps, step

    def _attempt(self, work) -> None:
        try:
            note = work()
        except S2FError as error:
            note = str(error)
        except Exception as error:  # noqa: BLE001  (see the class: a callback never raises)
            note = f"the edit failed ({type(error).__name__}: {error})."
        chain = " → ".join(self.session.instructions) or "nothing edited yet"
        self.status.value = _escape(f"{chain}; {note}" if note else chain)
        self.view.show(self.session.original, self.session.image)

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)       # ipywidgets give a dict, or nothing where none is shown
        return None if bundle is None else {**bundle, "image/png": self.static()}

    def static(self) -> bytes:
        """Original and result side by side, as PNG bytes."""
        pictures = [from_png(png_bytes(np.asarray(p))) for p in (self.session.original, self.session.image)]
        return png_bytes(sheet([pictures], [["original", "now"]], cell=240), synthetic=True)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
