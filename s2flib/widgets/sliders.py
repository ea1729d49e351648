"""Sliders that control an image rendered in Python, with a preset for StyleGAN2's latent space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import traitlets
from torch import Tensor

from s2flib.errors import S2FError
from s2flib.images import as_array, contact_sheet
from s2flib.inversion.directions import Direction
from s2flib.inversion.protocol import Inversion
from s2flib.stylegan2 import Generator
from s2flib.widgets.base import BYTES, STATIC, Widget, from_png, next_serial, png_bytes


@dataclass(frozen=True)
class Control:
    """One slider: ``render`` receives its value as ``name`` (an int if ``low`` and ``step`` are integers)."""

    name: str
    label: str
    low: float
    high: float
    step: float
    value: float
    help: str = ""

    def __post_init__(self):
        numbers = (self.low, self.high, self.step, self.value)
        if not all(math.isfinite(x) for x in numbers) or not self.low < self.high or not 0 < self.step:
            raise S2FError(f"slider {self.name!r} needs finite numbers with low < high and step > 0.")

    def clean(self, value) -> float:
        """The nearest allowed value; raises S2FError if ``value`` is not a finite number."""
        try:
            value = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise S2FError(f"{self.label} must be a number, not {str(value)[:40]!r}.") from error
        if not math.isfinite(value):
            raise S2FError(f"{self.label} must be a finite number, not {value}.")
        last = math.floor((self.high - self.low) / self.step + 1e-9)  # the range need not end on a step
        value = self.low + min(round((min(max(value, self.low), self.high) - self.low) / self.step), last) * self.step
        whole = float(self.step).is_integer() and float(self.low).is_integer()
        return round(value) if whole else round(value, 6)


class Sliders(Widget):
    """``Sliders(render, controls)``: the sliders call ``render(**values)``, which returns the image.

    render:    called with one keyword argument per control; returns a photo (3,H,W) in [−1,1] or a uint8 array
    controls:  list of :class:`Control`

    ``set(psi=0.5)`` moves a slider from code. If ``render`` fails, ``message`` shows the error and the previous
    image stays. Of two calls in different threads the later one includes the earlier one's values, and the image and
    the message are the later one's. Images are marked as synthetic in their PNG metadata.
    """

    _esm = STATIC / "sliders.js"
    FROM_BROWSER = frozenset({"request"})
    controls = traitlets.List(read_only=True).tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    request = traitlets.Dict().tag(sync=True)  # from the browser: {serial, values}
    answered = traitlets.Int(0).tag(sync=True)  # serial of the last processed request
    image = traitlets.Bytes(b"").tag(**BYTES)
    description = traitlets.Unicode("The image for the current slider values").tag(sync=True)

    def __init__(self, render: Callable[..., Tensor | np.ndarray], controls: list[Control], **traits):
        if not controls or len({c.name for c in controls}) != len(controls):
            raise S2FError("sliders need at least one control, and their names must be unique.")
        self._render, self._controls = render, {c.name: c for c in controls}
        super().__init__(**traits)
        self.set_trait("controls", [asdict(c) for c in controls])
        self._wanted = self.values = {c.name: c.clean(c.value) for c in controls}  # _wanted: also by running calls
        self.observe(self._requested, "request")
        self.set()

    def set(self, **values: float) -> bool:
        """Moves sliders and renders; returns whether it succeeded. Clamps values; unknown names raise S2FError."""
        unknown = set(values) - set(self._controls)
        if unknown:
            known = ", ".join(self._controls)
            raise S2FError(f"unknown sliders {', '.join(sorted(unknown))}: choose from {known}.")

        def work() -> None:
            clean = {k: self._controls[k].clean(v) for k, v in values.items()}
            with self._works:
                self._wanted = wanted = {**self._wanted, **clean}
            try:
                picture = png_bytes(self._picture(wanted), synthetic=True)
            except BaseException:
                self.publish(lambda: setattr(self, "_wanted", self.values))
                raise
            self.publish(lambda: self._show(wanted, picture))

        return self.attempt(work, "rendering")

    def _show(self, values: dict, picture: bytes) -> None:
        with self.hold_sync():
            self.values, self.image = values, picture

    def to_array(self) -> np.ndarray:
        """The current image, uint8."""
        if not self.image:
            raise S2FError(f"nothing has been rendered yet ({self.message}): correct the callback, then call set().")
        return from_png(self.image)

    def static(self, steps: int = 5) -> bytes:
        """A contact sheet as PNG bytes: one row per slider with ``steps`` values over its range, the others as set."""
        pictures, titles = [], []
        for control in self._controls.values():
            ticks = [control.clean(v) for v in np.linspace(control.low, control.high, steps)]
            pictures += [self._picture({**self.values, control.name: tick}) for tick in ticks]
            titles += [f"{control.label} = {tick:g}" for tick in ticks]
        return png_bytes(contact_sheet(pictures, steps, titles, cell=128, gap=8), synthetic=True)

    def _picture(self, values: dict) -> np.ndarray:
        with torch.no_grad():
            return as_array(self._render(**values))

    def _requested(self, change) -> None:
        values, serial = change["new"].get("values"), change["new"].get("serial")

        def work() -> None:
            if not isinstance(values, dict):
                raise S2FError("the browser sent no values: move a slider again.")
            self.set(**{k: v for k, v in values.items() if k in self._controls})

        try:
            self.attempt(work, "rendering")
        finally:  # the front end waits for this before it sends the next values
            self.answered = next_serial(serial, self.answered)


def latent_controls(n_styles: int) -> list[Control]:
    """The sliders of :func:`latent_sliders` for a generator with ``n_styles`` rows of W+."""
    return [
        Control("psi", "Truncation ψ", 0, 1.2, 0.05, 0.7, "0 is the mean face, 1 the sample itself."),
        Control("face_a", "Face A", 0, 99, 1, 0),
        Control("face_b", "Face B", 0, 99, 1, 1),
        Control(
            "first", "B from layer", 0, n_styles, 1, n_styles // 2, "W+ rows from this one on are B's (style mixing)."
        ),
        Control("last", "B up to layer", 0, n_styles, 1, n_styles, "… and rows from this one on are A's again."),
        Control("amount", "How much of B", 0, 1, 0.05, 1.0, "0 keeps A's rows, 1 replaces them with B's."),
    ]


def latent_render(generator: Generator, w_avg: Tensor, seed: int = 0) -> Callable[..., Tensor]:
    """The callback behind :func:`latent_sliders`.

    render(psi, face_a, face_b, first, last, amount) → (3, S, S) in [−1, 1]. w_avg (D,) is the mean latent.
    The same seed and face number always give the same face.
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
    """Interactive truncation ψ, style mixing and W+ layers of a generator."""
    render, controls = latent_render(generator, w_avg, seed), latent_controls(generator.n_styles)
    return Sliders(render, controls, description="A generated face")


def direction_sliders(inversion: Inversion, directions: Sequence[Direction], strength: float = 3.0) -> Sliders:
    """A slider from −strength to strength, in standard deviations, for each direction; they add up.

    The first photo of ``inversion`` is edited, by its own generator where the method changed one. S2FError for two
    directions of one name.
    """
    first = replace(
        inversion, w_plus=inversion.w_plus[:1], weights=None if inversion.weights is None else inversion.weights[:1]
    )

    @torch.no_grad()
    def render(**amounts: float) -> Tensor:
        w_plus = first.w_plus
        for k, direction in enumerate(directions):
            w_plus = direction.move(w_plus, amounts[f"direction_{k}"])
        return first.generate(w_plus)[0].clamp(-1, 1)

    if len({d.name for d in directions}) != len(directions):
        raise S2FError("two directions have the same name: give each a name of its own.")
    controls = [
        Control(f"direction_{k}", d.name.replace("_", " "), -strength, strength, strength / 12, 0.0)
        for k, d in enumerate(directions)
    ]
    return Sliders(render, controls, description="The edited face")
