"""Interactive text-guided face editing: type, apply, cancel, undo, compare before and after."""

from __future__ import annotations

import html
import threading

import ipywidgets
import numpy as np

from s2flib.errors import S2FError
from s2flib.images import contact_sheet
from s2flib.instruct_pix2pix.session import EditSession
from s2flib.presets import Suited
from s2flib.widgets.base import from_png, png_bytes
from s2flib.widgets.compare import Compare


class EditPanel(ipywidgets.VBox):
    """``EditPanel(picture, preset, pipe=…)``: controls for instruction, guidance and seed, and a comparison.

    ``session`` (s2flib.instruct_pix2pix.EditSession) stores the chain of edits. Each edit runs in its own thread,
    because a kernel that is busy with a callback does not process further clicks, including Cancel. Errors appear in
    the status line: callbacks run outside any cell, so they never raise.
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
        self.view = Compare(self.session.original, self.session.image, "original", "now")
        self.go.on_click(lambda _: self.apply())
        self.stop.on_click(lambda _: self.cancel())
        self.back.on_click(lambda _: self.undo())
        self._cancelled = threading.Event()
        self._worker: threading.Thread | None = None
        row = ipywidgets.HBox([self.seed, self.go, self.stop, self.back])
        super().__init__(
            [self.words, self.suited, self.guidance, self.image_guidance, row, self.bar, self.status, self.view]
        )

    def apply(self) -> None:
        """Called by the button: starts the edit and returns immediately; see :meth:`wait`."""
        if self._worker is not None:
            return
        words = self.words.value
        guidance = None if self.suited.value else self.guidance.value
        options = {"seed": self.seed.value, "guidance": guidance, "image_guidance": self.image_guidance.value}

        def work() -> str:
            made = self.session.chain([words], **options, progress=self._progress, cancel=self._cancelled)
            self.words.value = ""
            return "; ".join(note for step in made for note in step.notes)

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
        """Stops the current edit at its next step; the session does not change."""
        self._cancelled.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until no edit is running, for at most ``seconds``. Returns whether none is running."""
        worker = self._worker
        if worker is not None:
            worker.join(seconds)
        return worker is None or not worker.is_alive()

    def _busy(self, busy: bool) -> None:
        self.go.disabled = self.back.disabled = busy
        self.stop.disabled = not busy

    def undo(self) -> None:
        """Called by the button; does nothing while an edit is running."""
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
        except Exception as error:  # noqa: BLE001  (see the class: callbacks never raise)
            note = f"the edit failed ({type(error).__name__}: {error})."
        chain = " → ".join(self.session.instructions) or "nothing edited yet"
        self.status.value = html.escape(f"{chain}; {note}" if note else chain, quote=False)
        self.view.show(self.session.original, self.session.image)

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)  # a dict, or None if widgets cannot be displayed
        return None if bundle is None else {**bundle, "image/png": self.static()}

    def static(self) -> bytes:
        """Original and result side by side as PNG bytes."""
        pictures = [from_png(png_bytes(np.asarray(p))) for p in (self.session.original, self.session.image)]
        return png_bytes(contact_sheet(pictures, 2, ["original", "now"], cell=240, gap=8), synthetic=True)
