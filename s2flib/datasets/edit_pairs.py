"""Edit pairs from disk: a face before and after an edit, the words that ask for it, and where it may change.

Reads what ``s2f render --edits`` (:func:`s2flib.synthfaces.render.render_dataset`) writes: edits.zip with
NNNNNN_{before,after,mask}.webp and edits.csv. Each pair is of a person of its own, so the split is by identity;
the val and test pairs are worded by phrasings that no training pair uses.
"""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from s2flib.datasets.faces import SPLITS, _open_zip
from s2flib.errors import DataError, S2FError
from s2flib.files import available_cpus
from s2flib.synthfaces.edits import Edit, Scene, apply_edit, possible_edits, render_edit, words_of
from s2flib.synthfaces.identity import sample_identity
from s2flib.synthfaces.look import sample_look
from s2flib.synthfaces.phrases import KINDS, instruction
from s2flib.synthfaces.render import VERSION, attributes
from s2flib.synthfaces.shot import sample_shot
from s2flib.synthfaces.streams import stream

Edits = tuple[Edit, ...]        # what one instruction asks for: one change, sometimes two

COLUMNS = ("pair", "split", "instruction", "identity", "kinds", "values")

@dataclass(frozen=True)
class PairRow:
    """One line of edits.csv."""

    name: str                        # six digits
    identity: int
    instruction: str
    edits: tuple[Edit, ...]          # one change, sometimes two

    @property
    def kind(self) -> str:
        """The kind, or both joined by "+"."""
        return "+".join(e.kind for e in self.edits)


class EditPairs:
    """One split of a folder of edit pairs.

    ``pairs[i]`` is a dict: before, after (H, W, 3) uint8, mask (H, W) bool, and the row's fields.
    Raises DataError that names what is missing, damaged or contradictory.
    """

    def __init__(self, root: str | Path, split: str, size: int = 128, limit: int | None = None):
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}.")
        self.root, self.split, self.size = Path(root), split, size
        if not (self.root / "edits.zip").is_file():
            raise DataError(f"{self.root / 'edits.zip'} is missing: render edit pairs first, with "
                            "s2f render --out DIR --people 1 --edits 8000.")
        self.rows = [row for row in _rows(self.root / "edits.csv") if row[0] == split]
        self.rows = [row[1] for row in self.rows][:limit]
        if not self.rows:
            raise DataError(f"{self.root} holds no edit pairs of the {split} split: render more of them.")

    def keep_kinds(self, kinds: Sequence[str]) -> None:
        """Drop every pair without a change of one of these kinds."""
        unknown = [k for k in kinds if k not in KINDS]
        if unknown:
            raise DataError(f"there is no kind of edit {unknown[0]!r}: choose from {', '.join(KINDS)}.")
        self.rows = [row for row in self.rows if any(e.kind in kinds for e in row.edits)]
        if not self.rows:
            raise DataError(f"{self.root} holds no {' or '.join(kinds)} pairs of the {self.split} split: render more.")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        row = self.rows[range(len(self))[i]]
        return {"before": self.read(row, "before"), "after": self.read(row, "after"),
                "mask": self.read(row, "mask")[..., 0] > 127, **vars(row), "kind": row.kind}

    def read(self, row: PairRow, what: str) -> np.ndarray:
        """(H, W, 3) uint8 of "before", "after" or "mask"."""
        file = f"{row.name}_{what}.webp"
        try:
            picture = np.array(Image.open(io.BytesIO(_open_zip(str(self.root / "edits.zip"), os.getpid()).read(file)))
                               .convert("RGB"))
        except KeyError:
            raise DataError(f"{file} is not in {self.root / 'edits.zip'} though edits.csv lists it: render the "
                            "pairs again.") from None
        except (zipfile.BadZipFile, OSError, EOFError) as e:
            raise DataError(f"{self.root / 'edits.zip'} is damaged at {file} ({e}): render the pairs again.") from None
        if len(picture) == self.size:
            return picture
        way = cv2.INTER_NEAREST if what == "mask" else cv2.INTER_AREA if len(picture) > self.size else cv2.INTER_CUBIC
        return cv2.resize(picture, (self.size, self.size), interpolation=way)

    def arrays(self) -> dict[str, np.ndarray]:
        """The split in RAM: before, after (N, 3, H, W) uint8, mask (N, H, W) bool; 7 bytes a pixel."""
        n, s = len(self), self.size
        out = {"before": np.empty((n, 3, s, s), np.uint8), "after": np.empty((n, 3, s, s), np.uint8),
               "mask": np.empty((n, s, s), bool)}

        def fill(i: int) -> None:
            for what in ("before", "after"):
                out[what][i] = self.read(self.rows[i], what).transpose(2, 0, 1)
            out["mask"][i] = self.read(self.rows[i], "mask")[..., 0] > 127

        with ThreadPoolExecutor(available_cpus()) as pool:
            for _ in pool.map(fill, range(n)):
                pass
        return out

    def both_ways(self) -> list[tuple[Edits, Edits | None]]:
        """Per pair its edits, and those that lead back from after to before (None: no words for that)."""
        seed = self.seed()
        return [both_ways(row, *attributes_of(row, seed)) for row in self.rows]

    def seed(self) -> int:
        """The renderer's seed, from which people, looks and shots are drawn again without rendering."""

        try:
            recipe = json.loads((self.root / "render.json").read_text(encoding="utf-8"))
            seed, version = int(recipe["seed"]), int(recipe["version"])
        except (OSError, ValueError, KeyError):
            raise DataError(f"{self.root / 'render.json'} is missing or damaged: render the pairs again.") from None
        if version != VERSION:
            raise DataError(f"{self.root} was rendered by version {version} of SynthFaces and this is {VERSION}: "
                            "render the pairs again.")
        return seed


def times_drawn(often: str) -> dict[str, int]:
    """How often pairs of a kind are drawn in training: "age=2,hat=3" → {"age": 2, "hat": 3}; else S2FError."""
    out = {}
    for part in filter(None, often.split(",")):
        kind, _, times = part.partition("=")
        if kind not in KINDS or not times.isdecimal() or int(times) < 1:
            raise S2FError(f"often: {part!r} is not a kind of edit and how many times to draw it, such as age=2; "
                           f"kinds: {', '.join(KINDS)}.")
        out[kind] = int(times)
    return out


class FreshPairs:
    """A few pairs rendered on the spot, half a second each, with the interface of :class:`EditPairs`.

    One change each, kinds taking turns, in held-out phrasings. People are ``seed``'s number 0 and on; they are in no
    data set but one of the same seed.
    """

    split = "val"

    def __init__(self, n: int, seed: int = 99, kinds: Sequence[str] = KINDS, size: int = 128, progress=iter):
        self.size, self.rows, self._items, number = size, [], [], -1
        for k in progress(range(n)):
            kind = kinds[k % len(kinds)]
            edit = None
            while edit is None:                                # the next person who can be asked for this change
                number += 1
                scene, options = _scene(seed, number)
                edit = next((e for e in options if e.kind == kind), None)
            self._render(seed, number, scene, edit)

    def _render(self, seed: int, number: int, scene, edit) -> None:

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
    """A person about to be photographed, and one edit of each kind that makes sense for them."""

    person = sample_identity(seed, number)
    scene = Scene(person, sample_look(person, seed, number), sample_shot(person, seed, number))
    return scene, possible_edits(scene, stream(seed, number, "edits"))


def attributes_of(row: PairRow, seed: int) -> tuple[dict, dict]:
    """The manifest's attributes (see synthfaces.render.attributes) of a pair's two pictures, before and after."""

    scene, _ = _scene(seed, row.identity)
    before = attributes(scene.identity, scene.look, scene.shot)
    for edit in row.edits:
        scene = apply_edit(scene, edit, seed)
    return before, attributes(scene.identity, scene.look, scene.shot)


_OPPOSITE = {"older": "twenty years younger", "a little older": "younger", "younger": "a little older",
             "twenty years younger": "older", "lighter": "darker", "darker": "lighter",
             "a little lighter": "a little darker", "a little darker": "a little lighter"}
_UNDONE_BY = {"glasses": ("no_glasses", ""), "sunglasses": ("no_glasses", ""), "makeup": ("no_makeup", "0"),
              "hat": ("no_hat", "")}


def both_ways(row: PairRow, before: dict, after: dict) -> tuple[Edits, Edits | None]:
    """The pair's edits with their words, and those of the way back."""
    there = tuple(Edit(e.kind, e.value, words_of(e.kind, e.value, before)) for e in row.edits)
    back = [_back(edit, before, after) for edit in there]
    return there, None if None in back else tuple(back)


def _back(edit: Edit, before: dict, after: dict) -> Edit | None:
    """The edit that undoes ``edit``; None where no phrase asks for it, or where the words do not say what came
    back: edits draw one beanie, one grin and one blue for everybody, but the hat, the grin and the eyes that a person
    had before are their own, and hair that has greyed does not tell what it was."""
    kind = edit.kind
    if kind == "sunglasses" and before["glasses"] != "none":
        return None                                        # others were there, and "add glasses" takes none off
    if kind in _UNDONE_BY:
        return Edit(*_UNDONE_BY[kind], "")
    if kind == "beard" and before["beard"] == "none":
        return Edit("no_beard", "none", "")
    if kind == "skin_tone" or kind == "age" and max(before["age"], after["age"]) <= 45:
        words = _OPPOSITE.get(edit.words)
        return words and Edit(kind, str(before[kind]), words)
    column = {"hair_style": "hair_style", "beard": "beard", "no_beard": "beard"}.get(kind)
    try:
        return column and Edit(column, before[column], words_of(column, before[column], before))
    except KeyError:
        return None                                        # a style without a phrase


def _rows(path: Path) -> list[tuple[str, PairRow]]:
    """edits.csv as (split, row); DataError when it is missing, damaged, or a split shares a person."""
    try:
        with open(path, newline="", encoding="utf-8") as f:
            lines = list(csv.DictReader(f))
    except OSError:
        raise DataError(f"{path} is missing: render edit pairs first, with s2f render --edits N.") from None
    lacking = [c for c in COLUMNS if not lines or c not in lines[0]]
    if lacking:
        raise DataError(f"{path} lacks the columns {', '.join(lacking)}: render the pairs again.")
    seen: dict[str, str] = {}
    out = []
    for number, line in enumerate(lines, start=2):
        kinds, values = (str(line[c] or "").split("+") for c in ("kinds", "values"))
        if len(kinds) != len(values) or not set(kinds) <= set(KINDS) or line["split"] not in SPLITS:
            raise DataError(f"{path} is damaged at line {number}: render the pairs again.")
        if seen.setdefault(line["identity"], line["split"]) != line["split"]:
            raise DataError(f"{path} puts identity {line['identity']} into two splits (line {number}): render the "
                            "pairs again.")
        edits = tuple(map(Edit, kinds, values))
        out.append((line["split"], PairRow(line["pair"], int(line["identity"]), line["instruction"], edits)))
    return out
