"""Edit pairs from disk: a face before and after an edit, the instruction, and the mask of where it may change.

Reads what ``s2f render --edits`` (:func:`s2flib.synthfaces.render.render_dataset`) writes: edits.zip with
NNNNNN_{before,after,mask}.webp and edits.csv. Each pair shows a different person, so the split is by identity; the
val and test pairs use phrasings that no training pair uses.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from s2flib.datasets.faces import SPLITS, check_split, read_table, read_webp
from s2flib.errors import DataError, S2FError
from s2flib.files import available_cpus
from s2flib.images import resize
from s2flib.synthfaces.edits import Edit, Scene, apply_edit, possible_edits, render_edit, words_of
from s2flib.synthfaces.identity import sample_identity
from s2flib.synthfaces.look import sample_look
from s2flib.synthfaces.phrases import KINDS, instruction
from s2flib.synthfaces.render import VERSION, attributes
from s2flib.synthfaces.shot import sample_shot
from s2flib.synthfaces.streams import stream

Edits = tuple[Edit, ...]  # what one instruction asks for: one change, sometimes two
COLUMNS = ("pair", "split", "instruction", "identity", "kinds", "values")
ADVICE = "render edit pairs with s2f render --out DIR --people 1 --edits 8000"
AGAIN = "render the pairs again"


@dataclass(frozen=True)
class PairRow:
    """One line of edits.csv."""

    name: str  # six digits
    identity: int
    instruction: str
    edits: Edits

    @property
    def kind(self) -> str:
        """The kind of the edit; two are joined by "+"."""
        return "+".join(e.kind for e in self.edits)


class EditPairs:
    """One split of a folder of edit pairs.

    ``pairs[i]`` is a dict: before, after (H, W, 3) uint8, mask (H, W) bool, and the row's fields.
    DataError names what is missing, damaged or contradictory.
    """

    def __init__(self, root: str | Path, split: str, size: int = 128, limit: int | None = None):
        check_split(split)
        self.root, self.split, self.size = Path(root), split, size
        if not (self.root / "edits.zip").is_file():
            raise DataError(f"{self.root / 'edits.zip'} is missing: {ADVICE}.")
        self.rows = [row for name, row in _rows(self.root / "edits.csv") if name == split][:limit]
        if not self.rows:
            raise DataError(f"{self.root} has no edit pairs in the {split} split: render more pairs.")

    def keep_kinds(self, kinds: Sequence[str]) -> None:
        """Keep only pairs with a change of one of these kinds."""
        unknown = [k for k in kinds if k not in KINDS]
        if unknown:
            raise DataError(f"there is no kind of edit {unknown[0]!r}: choose from {', '.join(KINDS)}.")
        self.rows = [row for row in self.rows if any(e.kind in kinds for e in row.edits)]
        if not self.rows:
            raise DataError(f"{self.root} has no {' or '.join(kinds)} pairs in the {self.split} split: render more.")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        row = self.rows[range(len(self))[i]]
        return {
            "before": self.read(row, "before"),
            "after": self.read(row, "after"),
            "mask": self.read(row, "mask")[..., 0] > 127,
            **vars(row),
            "kind": row.kind,
        }

    def read(self, row: PairRow, what: str) -> np.ndarray:
        """(H, W, 3) uint8 of "before", "after" or "mask"."""
        image = read_webp(self.root / "edits.zip", f"{row.name}_{what}.webp", "edits.csv", AGAIN)
        if len(image) == self.size:
            return image
        if what == "mask":
            return cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_NEAREST)
        return resize(image, (self.size, self.size))

    def arrays(self) -> dict[str, np.ndarray]:
        """The split in memory: before, after (N, 3, H, W) uint8, mask (N, H, W) bool; 7 bytes per pixel."""
        n, s = len(self), self.size
        out = {
            "before": np.empty((n, 3, s, s), np.uint8),
            "after": np.empty((n, 3, s, s), np.uint8),
            "mask": np.empty((n, s, s), bool),
        }

        def fill(i: int) -> None:
            for what in ("before", "after"):
                out[what][i] = self.read(self.rows[i], what).transpose(2, 0, 1)
            out["mask"][i] = self.read(self.rows[i], "mask")[..., 0] > 127

        with ThreadPoolExecutor(available_cpus()) as pool:
            list(pool.map(fill, range(n)))
        return out

    def both_ways(self) -> list[tuple[Edits, Edits | None]]:
        """For each pair its edits, and the edits that lead back from after to before (None: no words for them)."""
        seed = self.seed()
        return [both_ways(row, *attributes_of(row, seed)) for row in self.rows]

    def seed(self) -> int:
        """The renderer's seed, which reproduces people, looks and shots without rendering."""
        try:
            recipe = json.loads((self.root / "render.json").read_text(encoding="utf-8"))
            seed, version = int(recipe["seed"]), int(recipe["version"])
        except (OSError, ValueError, KeyError):
            raise DataError(f"{self.root / 'render.json'} is missing or damaged: {AGAIN}.") from None
        if version != VERSION:
            raise DataError(
                f"{self.root} was rendered by SynthFaces version {version}, but this is version {VERSION}: {AGAIN}."
            )
        return seed


def times_drawn(often: str) -> dict[str, int]:
    """How often pairs of a kind are sampled in training: "age=2,hat=3" → {"age": 2, "hat": 3}; else S2FError."""
    out = {}
    for part in filter(None, often.split(",")):
        kind, _, times = part.partition("=")
        if kind not in KINDS or not times.isdecimal() or int(times) < 1:
            raise S2FError(f"often: {part!r} is not KIND=TIMES, such as age=2. The kinds are {', '.join(KINDS)}.")
        out[kind] = int(times)
    return out


class FreshPairs:
    """A few pairs rendered on demand, half a second each, with the interface of :class:`EditPairs`.

    Each pair has one change, in a held-out phrasing; the kinds alternate. The people are number 0, 1, … of ``seed``:
    no data set of another seed contains them.
    """

    split = "val"

    def __init__(self, n: int, seed: int = 99, kinds: Sequence[str] = KINDS, progress=iter):
        self.size, self.rows, self._items, number = 128, [], [], -1
        for k in progress(range(n)):
            kind = kinds[k % len(kinds)]
            edit = None
            while edit is None:  # find the next person for whom this change is possible
                number += 1
                scene, options = _scene(seed, number)
                edit = next((e for e in options if e.kind == kind), None)
            words = instruction(edit.kind, edit.words, number, held_out=True)
            pair = render_edit(scene, (edit,), words, self.size, seed)
            self.rows.append(PairRow(f"{number:06d}", number, words, (edit,)))
            self._items.append({"before": pair.before.rgb, "after": pair.after.rgb, "mask": pair.mask})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        i = range(len(self))[i]
        return self._items[i] | vars(self.rows[i]) | {"kind": self.rows[i].kind}


def _scene(seed: int, number: int):
    """The scene of a person, and one edit of each kind that is possible for them."""
    person = sample_identity(seed, number)
    scene = Scene(person, sample_look(person, seed, number), sample_shot(person, seed, number))
    return scene, possible_edits(scene, stream(seed, number, "edits"))


def attributes_of(row: PairRow, seed: int) -> tuple[dict, dict]:
    """The manifest's attributes (see synthfaces.render.attributes) of a pair's two images, before and after."""
    scene, _ = _scene(seed, row.identity)
    before = attributes(scene.identity, scene.look, scene.shot)
    for edit in row.edits:
        scene = apply_edit(scene, edit, seed)
    return before, attributes(scene.identity, scene.look, scene.shot)


_OPPOSITE = {
    "older": "twenty years younger",
    "a little older": "younger",
    "younger": "a little older",
    "twenty years younger": "older",
    "lighter": "darker",
    "darker": "lighter",
    "a little lighter": "a little darker",
    "a little darker": "a little lighter",
}
_UNDONE_BY = {
    "glasses": ("no_glasses", ""),
    "sunglasses": ("no_glasses", ""),
    "makeup": ("no_makeup", "0"),
    "hat": ("no_hat", ""),
}


def both_ways(row: PairRow, before: dict, after: dict) -> tuple[Edits, Edits | None]:
    """The pair's edits with their words, and the edits that undo them."""
    there = tuple(Edit(e.kind, e.value, words_of(e.kind, e.value, before)) for e in row.edits)
    back = [_back(edit, before, after) for edit in there]
    return there, None if None in back else tuple(edit for edit in back if edit)


def _back(edit: Edit, before: dict, after: dict) -> Edit | None:
    """The edit that undoes ``edit``; None where no phrase asks for it or where words do not determine the result.

    Edits render the same beanie, grin and blue for everybody, but a person's original hat, grin and eyes are their
    own, and grey hair does not tell its former colour.
    """
    kind = edit.kind
    if kind == "sunglasses" and before["glasses"] != "none":
        return None  # the person wore other glasses before
    if kind in _UNDONE_BY:
        return Edit(*_UNDONE_BY[kind], "")
    if kind == "beard" and before["beard"] == "none":
        return Edit("no_beard", "none", "")
    if kind == "skin_tone" or kind == "age" and max(before["age"], after["age"]) <= 45:
        words = _OPPOSITE.get(edit.words)
        return Edit(kind, str(before[kind]), words) if words else None
    column = {"hair_style": "hair_style", "beard": "beard", "no_beard": "beard"}.get(kind)
    try:
        return Edit(column, before[column], words_of(column, before[column], before)) if column else None
    except KeyError:
        return None  # a style without a phrase


def _rows(path: Path) -> list[tuple[str, PairRow]]:
    """edits.csv as (split, row); DataError when it is missing or damaged, or when splits share a person."""
    out = []
    for number, line in enumerate(read_table(path, COLUMNS, AGAIN), start=2):
        kinds, values = line["kinds"].split("+"), line["values"].split("+")
        if len(kinds) != len(values) or not set(kinds) <= set(KINDS) or line["split"] not in SPLITS:
            raise DataError(f"{path} is damaged at line {number}: {AGAIN}.")
        edits = tuple(map(Edit, kinds, values))
        out.append((line["split"], PairRow(line["pair"], int(line["identity"]), line["instruction"], edits)))
    return out
