"""One photo, one inversion method: watch how it converges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import ipywidgets
from torch import Tensor

from s2flib.errors import S2FError
from s2flib.images import Picture, as_array, contact_sheet
from s2flib.inversion import TITLES
from s2flib.inversion.protocol import Inversion, Method, Step
from s2flib.widgets.base import Background, Panel, png_bytes

SIDE = 192  # px of a picture


class InversionPanel(Background, Panel):
    """``InversionPanel(photos, methods)``: choose a photo and a method, start it, and see every step of its trace.

    photos:   (N, 3, S, S) in [−1, 1]
    methods:  name → a method, or a function without arguments that loads it at its first use

    ``run()`` does what the button does, ``wait()`` waits for the end, and ``inversion`` is the last result. Cancel
    stops a method at its next step; the result before stays.
    """

    def __init__(self, photos: Tensor, methods: Mapping[str, Method | Callable[[], Method]]):
        if not len(photos) or not methods:
            raise S2FError("an inversion panel needs at least one photo and one method.")
        self.photos, self.methods = photos, dict(methods)
        self.inversion: Inversion | None = None
        self.steps: list[Step] = []
        names = [(f"photo {i + 1}", i) for i in range(len(photos))]
        self.photo = ipywidgets.Dropdown(options=names, description="photo")
        self.method = ipywidgets.Dropdown(options=[(TITLES.get(m, m), m) for m in methods], description="method")
        self.go = ipywidgets.Button(description="Invert", button_style="primary")
        self.stop = ipywidgets.Button(description="Cancel", disabled=True)
        self.image = ipywidgets.Image(format="png")
        self.photo.observe(lambda _: self._another(), "value")
        self.go.on_click(lambda _: self.run())
        self.stop.on_click(lambda _: self.cancel())
        choice = ipywidgets.HBox([self.photo, self.method, self.go, self.stop])
        super().__init__([choice, self.image])
        self.image.value = self.static()

    def run(self) -> None:
        """Called by the button: starts the chosen method on the chosen photo and returns immediately."""
        name, photo = str(self.method.value), self.photos[self.photo.value][None]

        def work(cancelled: threading.Event) -> str:
            def watch(step: Step) -> None:
                if cancelled.is_set():
                    raise S2FError("cancelled")
                self.steps.append(step)
                self.image.value = self.static()
                self.say(_about(name, step))

            self.steps = []
            self.inversion = self._ready(name).invert(photo, watch)
            return _about(name, self.steps[-1])

        self.background(work, "the inversion")

    def busy(self, busy: bool) -> None:
        self.go.disabled = self.photo.disabled = self.method.disabled = busy
        self.stop.disabled = not busy

    def _ready(self, name: str) -> Method:
        method = self.methods[name]
        if callable(method):
            method = self.methods[name] = method()
        return method

    def _another(self) -> None:
        def work() -> None:
            self.steps = []
            self.image.value = self.static()

        self.between(work, "showing the photo")

    def static(self) -> bytes:
        """The photo, the starting point and the last step, as PNG bytes."""
        shown: list[Picture] = [self.photos[self.photo.value]]
        titles = ["photo"]
        if self.steps:
            first, last = self.steps[0], self.steps[-1]
            shown += [first.reconstruction[0].clamp(-1, 1), last.reconstruction[0].clamp(-1, 1)]
            titles += ["start", f"after {last.step}"]
        sheet = contact_sheet([as_array(picture) for picture in shown], 3, titles, cell=SIDE, gap=6)
        return png_bytes(sheet, synthetic=True)


def _about(name: str, step: Step) -> str:
    return f"{TITLES.get(name, name)}: step {step.step}, {step.seconds:.1f} s, MSE {float(step.error[0]):.4f}"
