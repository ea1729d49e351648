"""Metrics of edits: success rate per kind, distance to the true edit, unwanted changes, and identity.

Everything is measured on people and phrasings that no training used. For each requested change:

success  the judge (s2flib.judges.edit_judge) reads the edited image as the new value rather than the old one: of these
         two values the new one is more likely; for a number (age, skin tone), its reading is closer to that of the
         true edit than to that of the input. For colours (hair, eyes, skin), the mean colour of the pixels that truly
         change must also be closer to the true edit's than to the input's (ΔE in CIELAB). A new background must change
         the mask's pixels by at least half of the median change of true edits.
strict   of all values of the head, the judge reads the requested one (numbers, background: same as success).
ceiling  the success rate of the true edited render: the judge's limit. floor: that of the input.

Per pair: the perceptual distance to the true edit, and that of the input (no edit); the mean absolute change outside
the mask and everywhere, in grey levels; the similarity to the input according to the measuring identity network;
seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from skimage.color import rgb2lab
from torch import Tensor

from s2flib.datasets.edit_pairs import EditPairs
from s2flib.errors import DataError, S2FError
from s2flib.evaluation.evaluate import Judges, batches
from s2flib.evaluation.intervals import Interval, bootstrap_mean
from s2flib.images import as_float
from s2flib.judges.edit_judge import EditJudge, expected_reading
from s2flib.synthfaces.edits import Edit
from s2flib.synthfaces.phrases import KINDS, templates

COLOUR_KINDS = ("hair_color", "eye_color", "skin_tone")
KEEPS_PERSON = tuple(k for k in KINDS if k not in ("age", "skin_tone"))  # the identity should be preserved
VISIBLE = 8 / 255  # a change of less than 8 grey levels is not visible
FEW = 12  # pixels: true edits that change fewer are not visible and are skipped

Editor = Callable[[Sequence[np.ndarray], Sequence[str]], Sequence[np.ndarray]]
"""pictures uint8 (H, W, 3) and instructions → edited pictures of the same shape."""


@dataclass
class EditScores:
    """One editor's results. ``changes`` has one entry per requested change, ``pairs`` one per pair."""

    changes: dict[str, np.ndarray]  # kind, value, template, identity, success, strict, ceiling, floor
    pairs: dict[str, np.ndarray]  # kind, identity, lpips, lpips_nothing, outside, moved, similarity, seconds
    labels: dict[str, str] = field(default_factory=dict)  # the networks' names
    skipped: int = 0  # pairs whose true edit is not visible

    def of_kind(self, kind: str, column: str = "success") -> Interval:
        keep = self.changes["kind"] == kind
        if not keep.any():
            raise DataError(f"there is no {kind} edit among these pairs: use more pairs.")
        return bootstrap_mean(self.changes[column][keep], self.changes["identity"][keep])

    def kinds(self) -> list[str]:
        return [k for k in KINDS if (self.changes["kind"] == k).any()]

    def overall(self, column: str = "success") -> Interval:
        """Mean over changes (for a column of ``pairs``, over pairs)."""
        part = self.changes if column in self.changes else self.pairs
        return bootstrap_mean(part[column], part["identity"])

    def lpips_gain(self) -> Interval:
        """1 − mean distance / mean distance without an edit: 0.3 is "30 % below doing nothing"; pairs are resampled."""
        a, b = self.pairs["lpips"], self.pairs["lpips_nothing"]
        drawn = np.random.default_rng(0).integers(0, len(a), (2000, len(a)))
        gains = 1 - a[drawn].mean(1) / b[drawn].mean(1)
        low, high = np.percentile(gains, [2.5, 97.5])
        return Interval(float(1 - a.mean() / b.mean()), float(low), float(high), len(a), len(a))

    def keeps_person(self) -> np.ndarray:
        """(pairs,) bool: whether the identity should be preserved."""
        return np.array([all(k in KEEPS_PERSON for k in kind.split("+")) for kind in self.pairs["kind"]])

    def similarity_kept(self) -> Interval:
        """Mean similarity before/after over the edits that should preserve the identity."""
        keep = self.keeps_person()
        return bootstrap_mean(self.pairs["similarity"][keep], self.pairs["identity"][keep])


def measure(
    editor: Editor,
    pairs: EditPairs,
    judge: EditJudge,
    judges: Judges,  # perceptual and measuring identity network
    progress: bool = False,
) -> EditScores:
    """Edit the first image of every pair by its instruction and compare the results with the true edits."""
    changes, rows = [], []
    typical, skipped = background_change(pairs), 0
    for items in batches(pairs, 8, progress, "edits"):
        seen = [visible(item["before"], item["after"]).sum() >= FEW for item in items]
        skipped += len(seen) - sum(seen)
        items = [item for item, keep in zip(items, seen, strict=True) if keep]
        if not items:
            continue
        began = time.perf_counter()
        edited = editor([item["before"] for item in items], [item["instruction"] for item in items])
        seconds = (time.perf_counter() - began) / len(items)
        if len(edited) != len(items) or any(e.shape != i["before"].shape for e, i in zip(edited, items, strict=True)):
            raise S2FError("the editor must return one image of the same shape for each input.")
        before, after, made = (
            as_float(np.stack(x)) for x in ([i["before"] for i in items], [i["after"] for i in items], edited)
        )
        with torch.inference_mode():
            reads = [judge.heads(x) for x in (before, after, made)]
            lpips = judges.perceptual(made, after).float().numpy()
            nothing = judges.perceptual(before, after).float().numpy()
            similarity = judges.identity.similarity(before, made).float().numpy()
        for k, item in enumerate(items):
            outside = ~item["mask"]
            moved = np.abs(edited[k].astype(float) - item["before"]).mean(2)
            rows.append(
                {
                    "name": item["name"],
                    "kind": item["kind"],
                    "identity": item["identity"],
                    "lpips": lpips[k],
                    "lpips_nothing": nothing[k],
                    "outside": moved[outside].mean() if outside.any() else 0.0,
                    "moved": moved.mean(),
                    "similarity": similarity[k],
                    "seconds": seconds,
                }
            )
            mine = [{name: head[k] for name, head in read.items()} for read in reads]
            for edit in item["edits"]:
                verdicts = {
                    name: verdict(edit, item, picture, mine[0], mine[1], read, typical)
                    for name, picture, read in (
                        ("success", edited[k], mine[2]),
                        ("ceiling", item["after"], mine[1]),
                        ("floor", item["before"], mine[0]),
                    )
                }
                changes.append(
                    {
                        "kind": edit.kind,
                        "value": edit.value,
                        "identity": item["identity"],
                        "template": template_of(edit.kind, item["instruction"]),
                        "strict": strictly(edit, mine[2], verdicts["success"]),
                        **verdicts,
                    }
                )
    if not rows:
        raise DataError("no pair shows a visible edit: use more pairs.")
    by_change, by_pair = (
        {k: np.asarray([r[k] for r in part], float if isinstance(part[0][k], bool) else None) for k in part[0]}
        for part in (changes, rows)
    )
    labels = {"perceptual": judges.perceptual.label, "identity": judges.identity.label}
    return EditScores(by_change, by_pair, labels, skipped)


def verdict(
    edit: Edit,
    item: dict,
    picture: np.ndarray,
    before: dict[str, Tensor],
    after: dict[str, Tensor],
    made: dict[str, Tensor],
    typical: float,
) -> bool:
    """Whether ``picture`` shows the change: "success" in the module docstring. before, after, made: judge readings."""
    reading = expected_reading(edit)
    if reading is None:  # a new background
        region = item["mask"] & visible(item["before"], item["after"])
        return bool(np.abs(picture.astype(float) - item["before"]).mean(2)[region].mean() >= 0.5 * typical)
    head, value = reading
    if value is None:
        right = abs(made[head] - after[head]) < abs(made[head] - before[head])
    else:
        was = before[head].clone()
        was[value] = -torch.inf  # the old value: the most likely other value
        right = made[head][value] > made[head][was.argmax()]
    if edit.kind not in COLOUR_KINDS:
        return bool(right)
    return bool(right) and nearer_colour(picture, item["before"], item["after"], item["mask"])


def strictly(edit: Edit, made: dict[str, Tensor], success: bool) -> bool:
    found = expected_reading(edit)
    if found is None or found[1] is None:
        return success
    return bool(made[found[0]].argmax() == found[1])


def nearer_colour(picture: np.ndarray, before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the mean colour of the masked pixels that truly change is closer to after's than to before's (ΔE)."""
    region = mask & visible(before, after)
    if not region.any():
        return False
    lab = [rgb2lab(x[region][None] / 255.0)[0].mean(0) for x in (picture, before, after)]
    return bool(np.linalg.norm(lab[0] - lab[2]) < np.linalg.norm(lab[0] - lab[1]))


def visible(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels that change by 8 grey levels or more, on average over the channels."""
    return np.abs(before.astype(float) - after).mean(2) / 255 >= VISIBLE


def background_change(pairs: EditPairs) -> float:
    """Median over background pairs of the mean change of the masked pixels that truly change, in grey levels."""
    found = []
    for i in [i for i, row in enumerate(pairs.rows) if "background" in row.kind][:40]:
        item = pairs[i]
        region = item["mask"] & visible(item["before"], item["after"])
        if region.any():
            found.append(np.abs(item["before"].astype(float) - item["after"]).mean(2)[region].mean())
    return float(np.median(found)) if found else 0.0


def template_of(kind: str, instruction: str) -> str:
    """The phrasing of ``kind`` that an instruction is based on, "" if there is none."""
    for template in sorted(templates(kind) + templates(kind, held_out=True), key=len, reverse=True):
        if re.search(re.escape(template).replace(re.escape("{x}"), ".+"), instruction):
            return template
    return ""


def same_person_level(dataset, identity) -> Interval:
    """Mean similarity of two real renders of the same person in different shots, over the first 400 photos."""
    order = np.argsort(dataset.identities, kind="stable")[:400]
    photos = torch.stack([dataset[int(i)]["photo"] for i in order])
    with torch.inference_mode():
        e = torch.cat([identity.embed(p).float() for p in photos.split(32)]).numpy()
    who = dataset.identities[order]
    i, j = np.triu_indices(len(e), 1)
    same = who[i] == who[j]
    if not same.any():
        raise DataError("no person has two photos in this data set: use more photos.")
    return bootstrap_mean((e[i] * e[j]).sum(1)[same], who[i][same])
