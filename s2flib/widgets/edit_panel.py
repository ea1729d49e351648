"""Edit a face by words, interactively: type, apply, undo, look at before and after."""

from __future__ import annotations

import ipywidgets
import numpy as np

from s2flib.errors import S2FError
from s2flib.stylize import EditSession
from s2flib.stylize.networks import DEFAULTS, Suited
from s2flib.widgets.base import from_png, png_bytes, sheet
from s2flib.widgets.compare import Compare


class EditPanel(ipywidgets.VBox):
    """``EditPanel(picture, preset, pipe=…)``: a line of text, two guidances, a seed, apply, undo, and the wipe.

    ``session`` holds the chain (s2flib.stylize.EditSession). What goes wrong stands in the status line: a callback
    runs outside any cell, so it never raises.
    """

    def __init__(self, picture, preset="tiny", **options):
        self.session = EditSession(picture, preset, **options)
        chosen = DEFAULTS[self.session.preset.name]
        wide = ipywidgets.Layout(width="420px")
        self.words = ipywidgets.Text(placeholder="make the hair blond", description="edit", layout=wide)
        suited = isinstance(chosen.guidance, Suited)
        self.guidance = ipywidgets.FloatSlider(chosen.guidance.scales[0] if suited else chosen.guidance, min=1, max=12,
                                               step=0.25, description="text", layout=wide, disabled=suited)
        self.suited = ipywidgets.Checkbox(suited, disabled=not suited, indent=False,
                                          description="text as loud as suits the size of the change")
        self.suited.observe(lambda change: setattr(self.guidance, "disabled", change["new"]), "value")
        self.image_guidance = ipywidgets.FloatSlider(chosen.image_guidance, min=1, max=3, step=0.05,
                                                     description="picture", layout=wide)
        self.seed = ipywidgets.IntText(0, description="seed", layout=ipywidgets.Layout(width="180px"))
        self.go = ipywidgets.Button(description="Apply", button_style="primary")
        self.back = ipywidgets.Button(description="Undo")
        self.bar = ipywidgets.IntProgress(0, min=0, max=1, layout=wide)
        self.status = ipywidgets.HTML("")
        self.view = Compare(self.session.original, self.session.image, "original", "now")
        self.go.on_click(lambda _: self.apply())
        self.back.on_click(lambda _: self.undo())
        super().__init__([self.words, self.suited, self.guidance, self.image_guidance,
                          ipywidgets.HBox([self.seed, self.go, self.back]), self.bar, self.status, self.view])

    def apply(self) -> None:
        """What the button does."""
        def work() -> str:
            made = self.session.apply(self.words.value, seed=self.seed.value,
                                      guidance=None if self.suited.value else self.guidance.value,
                                      image_guidance=self.image_guidance.value, progress=self._progress)
            self.words.value = ""
            return "; ".join(made.notes)

        self._attempt(work)

    def undo(self) -> None:
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
        self.status.value = _escape(f"{chain}. {note}" if note else chain)
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
