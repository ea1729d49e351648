"""How good edits are: success per kind, distance to the true edit, what else changed, whether it is still the person.

Everything is measured on pairs of people and in phrasings that no training saw. For each change asked for:

success  the judge (s2flib.judges.edit_judge) finds the edited picture to be what was asked for rather than what was there:
         of the two values, it reads the new one as the likelier; a number (age, skin tone) nearer to what it reads
         from the true edit than from the picture before. For colours (hair, eyes, skin), the mean colour of the
         pixels that truly change must also lie nearer to the true edit's than to the one before (ΔE in CIELAB).
         A new background has to change the mask's pixels at least half as much as true edits do in the median.
strict   of all values of the head, the judge reads the one asked for (numbers, background: as success).
ceiling  the same for the true edited render: what the judge could attest at best. floor: for the picture before.

Per pair: the perceptual distance to the true edit, and of the picture before to it (doing nothing); the mean absolute
change outside the mask, and everywhere, in grey levels; similarity to the picture before by the identity net that
measures; seconds.
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
from s2flib.evaluation.evaluate import Judges, progress_bar
from s2flib.evaluation.intervals import Interval, bootstrap_mean
from s2flib.images import as_float
from s2flib.judges.edit_judge import EditJudge, expected_reading
from s2flib.synthfaces.edits import Edit
from s2flib.synthfaces.phrases import KINDS, templates

COLOUR_KINDS = ("hair_color", "eye_color", "skin_tone")
KEEPS_PERSON = tuple(k for k in KINDS if k not in ("age", "skin_tone"))     # the person is meant to stay the same
VISIBLE = 8 / 255            # a pixel that changes by less than 8 grey levels does not change visibly
FEW = 12                     # pixels: an edit that truly changes fewer cannot be seen, and is not asked for

Editor = Callable[[Sequence[np.ndarray], Sequence[str]], Sequence[np.ndarray]]
"""pictures uint8 (H, W, 3) and instructions → edited pictures of the same shape."""


@dataclass
class EditScores:
    """One editor's numbers. Columns of ``changes`` have one entry per change asked for, of ``pairs`` one per pair."""

    changes: dict[str, np.ndarray]       # kind, value, template, identity, success, strict, ceiling, floor
    pairs: dict[str, np.ndarray]         # kind, identity, lpips, lpips_nothing, outside, moved, similarity, seconds
    labels: dict[str, str] = field(default_factory=dict)        # the nets' names
    skipped: int = 0                     # pairs whose true edit cannot be seen

    def of_kind(self, kind: str, column: str = "success") -> Interval:
        keep = self.changes["kind"] == kind
        if not keep.any():
            raise DataError(f"there is no {kind} edit among the measured pairs: measure more of them.")
        return bootstrap_mean(self.changes[column][keep], self.changes["identity"][keep])

    def kinds(self) -> list[str]:
        return [k for k in KINDS if (self.changes["kind"] == k).any()]

    def overall(self, column: str = "success") -> Interval:
        """Mean over changes (or over pairs, for a pair's column)."""
        part = self.changes if column in self.changes else self.pairs
        return bootstrap_mean(part[column], part["identity"])

    def lpips_gain(self, resamples: int = 2000, seed: int = 0) -> Interval:
        """1 − mean distance / mean distance of doing nothing: 0.3 is "30 % below doing nothing"; pairs resampled."""
        a, b = self.pairs["lpips"], self.pairs["lpips_nothing"]
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, len(a), (resamples, len(a)))
        gains = 1 - a[drawn].mean(1) / b[drawn].mean(1)
        low, high = np.percentile(gains, [2.5, 97.5])
        return Interval(float(1 - a.mean() / b.mean()), float(low), float(high), len(a), len(a))

    def keeps_person(self) -> np.ndarray:
        """(pairs,) bool: is the person meant to stay the same?"""
        return np.array([all(k in KEEPS_PERSON for k in kind.split("+")) for kind in self.pairs["kind"]])

    def similarity_kept(self) -> Interval:
        """Mean similarity before/after over the edits that are to keep the person."""
        keep = self.keeps_person()
        return bootstrap_mean(self.pairs["similarity"][keep], self.pairs["identity"][keep])


def measure(
    editor: Editor,
    pairs: EditPairs,
    judge: EditJudge,
    judges: Judges,                       # perceptual and measuring identity net
    batch: int = 8,
    device: str = "cpu",
    progress: bool = False,
) -> EditScores:
    """Edit every pair's before-picture by its instruction and compare with the truth."""
    changes: dict[str, list] = {k: [] for k in ("kind", "value", "template", "identity", "success", "strict", "ceiling",
                                                "floor")}
    rows: dict[str, list] = {k: [] for k in ("name", "kind", "identity", "lpips", "lpips_nothing", "outside", "moved",
                                             "similarity", "seconds")}
    typical, skipped = background_change(pairs), 0
    for start in progress_bar(range(0, len(pairs), batch), progress, "edits"):
        items = [pairs[i] for i in range(start, min(start + batch, len(pairs)))]
        seen = [visible(item["before"], item["after"]).sum() >= FEW for item in items]
        skipped += len(seen) - sum(seen)
        items = [item for item, keep in zip(items, seen, strict=True) if keep]
        if not items:
            continue
        began = time.perf_counter()
        edited = editor([item["before"] for item in items], [item["instruction"] for item in items])
        seconds = (time.perf_counter() - began) / len(items)
        if len(edited) != len(items) or any(e.shape != i["before"].shape for e, i in zip(edited, items, strict=True)):
            raise S2FError("the editor must give one picture of the same shape for each it gets.")
        before, after, made = (as_float(np.stack(x)).to(device) for x in (
            [i["before"] for i in items], [i["after"] for i in items], edited))
        with torch.inference_mode():
            reads = [judge.heads(x) for x in (before, after, made)]
            lpips = judges.perceptual(made, after).float().cpu().numpy()
            nothing = judges.perceptual(before, after).float().cpu().numpy()
            similarity = judges.identity.similarity(before, made).float().cpu().numpy()
        for k, item in enumerate(items):
            outside = ~item["mask"]
            moved = np.abs(edited[k].astype(float) - item["before"]).mean(2)
            for name, value in (("name", item["name"]), ("kind", item["kind"]), ("identity", item["identity"]),
                                ("lpips", lpips[k]), ("lpips_nothing", nothing[k]), ("seconds", seconds),
                                ("outside", moved[outside].mean() if outside.any() else 0.0), ("moved", moved.mean()),
                                ("similarity", similarity[k])):
                rows[name].append(value)
            mine = [{name: head[k] for name, head in read.items()} for read in reads]
            for edit in item["edits"]:
                verdicts = {
                    name: verdict(edit, item, picture, mine[0], mine[1], read, typical)
                    for name, picture, read in (("success", edited[k], mine[2]), ("ceiling", item["after"], mine[1]),
                                                ("floor", item["before"], mine[0]))}
                changes["strict"].append(strictly(edit, mine[2], verdicts["success"]))
                for name, found in verdicts.items():
                    changes[name].append(found)
                for name, value in (("kind", edit.kind), ("value", edit.value), ("identity", item["identity"]),
                                    ("template", template_of(edit.kind, item["instruction"]))):
                    changes[name].append(value)
    if not rows["kind"]:
        raise DataError("no pair shows a visible edit: measure more pairs.")
    as_arrays = [{k: np.asarray(v, float) if isinstance(v[0], (bool, np.bool_)) else np.asarray(v)
                  for k, v in part.items()} for part in (changes, rows)]
    return EditScores(*as_arrays, {"perceptual": judges.perceptual.label, "identity": judges.identity.label}, skipped)


def verdict(edit: Edit, item: dict, picture: np.ndarray, before: dict[str, Tensor], after: dict[str, Tensor],
            made: dict[str, Tensor], typical: float) -> bool:
    """Did the change happen in ``picture``? See "success" at the top; before, after, made: the judge's readings."""
    if edit.kind == "background":
        region = item["mask"] & visible(item["before"], item["after"])
        return bool(np.abs(picture.astype(float) - item["before"]).mean(2)[region].mean() >= 0.5 * typical)
    head, value = expected_reading(edit)
    if value is None:
        right = abs(made[head] - after[head]) < abs(made[head] - before[head])
    else:
        was = before[head].clone()
        was[value] = -torch.inf                               # what it was: the likeliest other value
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
    """Is the mean colour, over the masked pixels that truly change, nearer to after's than to before's (ΔE)?"""
    region = mask & visible(before, after)
    if not region.any():
        return False
    lab = [rgb2lab(x[region][None] / 255.0)[0].mean(0) for x in (picture, before, after)]
    return bool(np.linalg.norm(lab[0] - lab[2]) < np.linalg.norm(lab[0] - lab[1]))


def visible(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels that change by 8 grey levels or more, on average over the channels."""
    return np.abs(before.astype(float) - after).mean(2) / 255 >= VISIBLE


def background_change(pairs: EditPairs) -> float:
    """Median over background pairs of the true mean change of the masked pixels that change, in grey levels."""
    found = []
    for i in [i for i, row in enumerate(pairs.rows) if "background" in row.kind][:40]:
        item = pairs[i]
        region = item["mask"] & visible(item["before"], item["after"])
        if region.any():
            found.append(np.abs(item["before"].astype(float) - item["after"]).mean(2)[region].mean())
    return float(np.median(found)) if found else 0.0


def template_of(kind: str, instruction: str) -> str:
    """The phrasing of ``kind`` that an instruction was made from, "" if none fits."""
    for template in sorted(templates(kind) + templates(kind, held_out=True), key=len, reverse=True):
        if re.search(re.escape(template).replace(re.escape("{x}"), ".+"), instruction):
            return template
    return ""


def same_person_level(dataset, identity, limit: int = 400, device: str = "cpu") -> Interval:
    """Mean similarity of two real renders of one person, other shots: what "the same person" scores."""
    order = np.argsort(dataset.identities, kind="stable")[:limit]
    photos = torch.stack([dataset[int(i)]["photo"] for i in order])
    with torch.inference_mode():
        e = torch.cat([identity.embed(p.to(device)).float().cpu() for p in photos.split(32)]).numpy()
    who = dataset.identities[order]
    i, j = np.triu_indices(len(e), 1)
    same = who[i] == who[j]
    if not same.any():
        raise DataError("no person has two photos here: measure more of them.")
    return bootstrap_mean((e[i] * e[j]).sum(1)[same], who[i][same])
