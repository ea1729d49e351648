"""Sliders around a picture that Python renders; ready-made ones for StyleGAN2's latent space."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
import traitlets
from torch import Tensor

from s2flib.errors import S2FError
from s2flib.stylegan2 import Generator
from s2flib.widgets.base import BYTES, STATIC, Widget, as_uint8, from_png, png_bytes, sheet


@dataclass(frozen=True)
class Control:
    """One slider: ``render`` receives its value under ``name`` (an int when ``step`` is whole)."""

    name: str
    label: str
    low: float
    high: float
    step: float
    value: float
    help: str = ""

    def clean(self, value) -> float:
        """The nearest allowed value; S2FError for what is not a number."""
        try:
            value = float(value)
        except (TypeError, ValueError) as error:
            raise S2FError(f"{self.label} takes a number, not {value!r}.") from error
        if not math.isfinite(value):
            raise S2FError(f"{self.label} takes a finite number, not {value}.")
        value = self.low + round((min(max(value, self.low), self.high) - self.low) / self.step) * self.step
        whole = float(self.step).is_integer() and float(self.low).is_integer()
        return round(value) if whole else round(value, 6)


class Sliders(Widget):
    """``Sliders(render, controls)``: ``render(**values)`` makes the picture, sliders call it.

    render:    called with one keyword per control; returns a photo (3,H,W) in [−1,1] or a uint8 array
    controls:  list of :class:`Control`

    ``set(psi=0.5)`` moves a slider from code. An error in ``render`` stays in ``message``; the picture before
    it remains. Pictures are marked synthetic in their PNG metadata.
    """

    _esm = STATIC / "sliders.js"
    controls = traitlets.List(read_only=True).tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    request = traitlets.Dict().tag(sync=True)        # from the browser: {serial, values}
    answered = traitlets.Int(0).tag(sync=True)       # serial of the last request that was dealt with
    image = traitlets.Bytes(b"").tag(**BYTES)
    message = traitlets.Unicode("").tag(sync=True)
    description = traitlets.Unicode("The picture for the sliders' setting").tag(sync=True)

    def __init__(self, render: Callable[..., Tensor | np.ndarray], controls: list[Control], **traits):
        if not controls or len({c.name for c in controls}) != len(controls):
            raise S2FError("sliders need at least one control, each with its own name.")
        self._render, self._controls = render, {c.name: c for c in controls}
        super().__init__(**traits)
        self.set_trait("controls", [asdict(c) for c in controls])
        self.observe(self._requested, "request")
        self.set(**{c.name: c.value for c in controls})

    def set(self, **values: float) -> bool:
        """Move sliders and render; True if it went well. Unknown names raise S2FError, values are clamped."""
        unknown = set(values) - set(self._controls)
        if unknown:
            known = ", ".join(self._controls)
            raise S2FError(f"no slider called {', '.join(sorted(unknown))}: there are {known}.")

        def work() -> None:
            wanted = {**self.values, **{k: self._controls[k].clean(v) for k, v in values.items()}}
            picture = png_bytes(self._picture(wanted), synthetic=True)
            with self.hold_sync():
                self.values, self.image, self.message = wanted, picture, ""

        return self.attempt(work, "rendering")

    def to_array(self) -> np.ndarray:
        """The picture now shown, uint8."""
        return from_png(self.image)

    def static(self, steps: int = 5) -> bytes:
        """A sheet as PNG bytes: a row per slider, ``steps`` values over its range, the others as set."""
        rows, titles = [], []
        for control in self._controls.values():
            spread = np.linspace(control.low, control.high, steps)
            ticks = list(dict.fromkeys(control.clean(v) for v in spread))
            rows.append([self._picture({**self.values, control.name: tick}) for tick in ticks])
            titles.append([f"{control.label} = {tick:g}" for tick in ticks])
        return png_bytes(sheet(rows, titles, cell=128), synthetic=True)

    def _picture(self, values: dict) -> np.ndarray:
        with torch.no_grad():
            return as_uint8(self._render(**values))

    def _requested(self, change) -> None:
        request = change["new"]
        values = request.get("values")
        if isinstance(values, dict):
            known = {k: v for k, v in values.items() if k in self._controls}
            self.attempt(lambda: self.set(**known), "rendering")
        serial = request.get("serial")
        self.answered = serial if isinstance(serial, int) else self.answered + 1


def latent_controls(n_styles: int) -> list[Control]:
    """The sliders of :func:`latent_sliders` for a generator with ``n_styles`` rows in W+."""
    return [
        Control("psi", "Truncation ψ", 0, 1.2, 0.05, 0.7, "0 is the mean face, 1 the sample itself."),
        Control("face_a", "Face A", 0, 99, 1, 0),
        Control("face_b", "Face B", 0, 99, 1, 1),
        Control("first", "B from layer", 0, n_styles, 1, n_styles // 2,
                "W+ rows from here on come from face B (style mixing)."),
        Control("last", "B up to layer", 0, n_styles, 1, n_styles, "… and rows from here on are A's again."),
        Control("amount", "How much of B", 0, 1, 0.05, 1.0, "0 keeps A, 1 takes B's rows whole."),
    ]


def latent_render(generator: Generator, w_avg: Tensor, seed: int = 0) -> Callable[..., Tensor]:
    """The callback behind :func:`latent_sliders`.

    render(psi, face_a, face_b, first, last, amount) → (3, S, S) in [−1, 1]. w_avg (D,) is the mean latent;
    faces are numbered: the same seed and number are always the same face.
    """
    def code(number: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed * 100_003 + int(number))
        z = torch.randn(1, generator.style_dim, generator=rng).to(w_avg.device)
        return generator.mapping(z)

    @torch.no_grad()
    def render(psi: float, face_a: int, face_b: int, first: int, last: int, amount: float) -> Tensor:
        a, b = (generator.expand(generator.truncate(code(n), psi, w_avg)) for n in (face_a, face_b))
        rows = torch.arange(generator.n_styles, device=w_avg.device)
        share = (amount * ((rows >= first) & (rows < last)))[None, :, None].to(a.dtype)  # (1, n_styles, 1)
        return generator.synthesis(torch.lerp(a, b, share))[0].clamp(-1, 1)

    return render


def latent_sliders(generator: Generator, w_avg: Tensor, seed: int = 0) -> Sliders:
    """Truncation ψ, style mixing and W+ layers of a generator, live."""
    return Sliders(latent_render(generator, w_avg, seed), latent_controls(generator.n_styles),
                   description="A generated face")
