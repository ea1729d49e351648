"""The rows of the λ4 sweep: how the attention loss enters the training.

A condition is written as the command line takes it:

    0, 1, 1e3        λ4, the constant weight of our attention loss; 0 is plain pSp
    10%              our attention loss, weighted such that it has 10 % of the gradient at the output
    10%@0, 1@0+2     the same of some of the attribute network's maps F'' only, 0 being the finest
    published:1e9    λ4 of the attention loss as the published code computes it
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from s2flib.errors import S2FError


@dataclass(frozen=True)
class Condition:
    """λ4 of the attention loss, or its share of the gradient, with the form of the loss."""

    lambda4: float = 0.0
    share: float | None = None
    published: bool = False
    maps: tuple[int, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether this is pSp without an attention loss."""
        return self.share is None and self.lambda4 == 0

    @property
    def key(self) -> str:
        """As it is written for :func:`condition`."""
        amount = f"{self.lambda4:g}" if self.share is None else f"{100 * self.share:g}%"
        maps = "@" + "+".join(map(str, self.maps)) if self.maps else ""
        return ("published:" if self.published else "") + amount + maps

    @property
    def label(self) -> str:
        """For figures: "λ4 = 1", "10 % of the gradient", "published code, λ4 = 1e+09"."""
        amount = f"λ4 = {self.lambda4:g}" if self.share is None else f"{100 * self.share:g} % of the gradient"
        maps = f", map{'s' * (len(self.maps) > 1)} {' and '.join(map(str, self.maps))}" if self.maps else ""
        return ("published code, " if self.published else "") + amount + maps

    @property
    def row(self) -> str:
        """For Table 1."""
        return "pSp (λ4 = 0)" if self.plain else f"+ attention, {self.label}"

    @property
    def folder(self) -> str:
        """The name of its folder in the sweep's."""
        amount = f"lambda4_{self.lambda4:g}" if self.share is None else f"share_{self.share:g}"
        maps = "_maps_" + "-".join(map(str, self.maps)) if self.maps else ""
        return ("published_" if self.published else "") + amount + maps

    @property
    def training(self) -> dict:
        """The fields of :class:`~s2flib.training.encoder.EncoderConfig` that make it."""
        fields: dict = {"lambda4": self.lambda4} if self.share is None else {"attention_share": self.share}
        if self.published:
            fields["attention"] = "published"
        if self.maps:
            fields["attention_maps"] = self.maps
        return fields


def condition(text: str | float | Condition) -> Condition:
    """The condition that ``text`` (or a bare λ4) describes; S2FError where it describes none."""
    if isinstance(text, Condition):
        return text
    written = re.sub(r"\s", "", str(text))
    found = re.fullmatch(r"(published:)?([^%@:]+)(%?)(?:@(\d+(?:\+\d+)*))?", written)
    try:
        number = float(found[2]) if found else math.nan
    except ValueError:
        number = math.nan
    published, share = bool(found and found[1]), bool(found and found[3])
    maps = tuple(sorted({int(i) for i in found[4].split("+")})) if found and found[4] else ()
    fits = math.isfinite(number) and (0 < number < 100 if share else number >= 0)
    if not fits or (published and (share or maps)) or (number == 0 and (published or maps)):
        raise S2FError(
            f"{written!r} is no condition of the λ4 sweep: write a λ4 of 0 or more, a share of the gradient between 0 "
            "and 100 such as 10%, either with the maps of the attribute network such as 10%@0+2, or published:1e9."
        )
    return Condition(0.0, number / 100, False, maps) if share else Condition(number, None, published, maps)


def conditions(texts: Sequence[str | float | Condition]) -> list[Condition]:
    """Several, each once, sorted: plain pSp, λ4, shares, published; S2FError where plain pSp is missing."""
    found = {condition(t) for t in texts}
    if Condition() not in found:
        raise S2FError("a sweep compares with plain pSp: add λ4 = 0 to the conditions.")
    return sorted(found, key=lambda c: (c.published, c.share is not None, c.maps, c.share or c.lambda4))
