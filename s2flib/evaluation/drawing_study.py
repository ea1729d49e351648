"""The drawing study of notebook 09, in a folder: variants, accessories, and what an encoder was trained on.

Three tables, all on people of one split whom no network saw in training; similarity is that of the measuring judge.

variants.csv     by kind of drawing and fidelity: how much K variants vary, by region, and how well they obey
accessories.csv  glasses, sunglasses, hats: the same person in the same photo, with and without (seed paper, Fig. 6)
training.csv     (with encoders to compare) encoders trained on pencil sketches, on line drawings, on both, each tested
                 on both kinds: whether the tones of a pencil sketch carry the likeness
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from s2flib.datasets.faces import SynthFaces, open_dataset
from s2flib.errors import S2FError
from s2flib.evaluation.drawings import REGIONS, agreement, by_region, variation
from s2flib.evaluation.intervals import Interval, bootstrap_mean
from s2flib.evaluation.lineup import gallery_indices, rank_probes, shots
from s2flib.files import csv_text, write_text
from s2flib.generate import sample_faces
from s2flib.images import to_photo
from s2flib.judges.edit_judge import HEADS, load_edit_judge
from s2flib.judges.load import IdentityJudge, identity_judge
from s2flib.presets import Preset, get_preset
from s2flib.psp import PSP
from s2flib.runs import check_seed, finish, result_folder, run_record, write_json
from s2flib.sketch import sketch
from s2flib.synthfaces.drawing import HANDS
from s2flib.synthfaces.person import Person
from s2flib.synthfaces.portrait import photograph
from s2flib.synthfaces.render import render_shot
from s2flib.weights.load import load_psp

PENCIL = "pencil sketch"
KINDS = (PENCIL, *(f"line drawing, {hand}" for hand in HANDS))
FIDELITIES = (1.0, 0.5, 0.0)  # see PSP.blend


class Accessory(NamedTuple):
    """How an accessory is found, read and taken off."""

    column: str  # of the attributes
    shows: tuple[str, ...]  # the column's values that show it
    head: str  # of the edit judge
    seen: tuple[str, ...]  # the head's values that mean it
    without: dict[str, None]  # fields of a Look


ACCESSORIES = {
    "glasses": Accessory("glasses", ("round", "rect", "oval"), "glasses", ("clear", "sun"), {"glasses": None}),
    "sunglasses": Accessory("glasses", ("sun",), "glasses", ("sun",), {"glasses": None}),
    "hat": Accessory("hat", ("beanie", "cap", "brim"), "hat", HEADS["hat"][1:], {"hat": None}),
}


@dataclass(frozen=True)
class Study:
    """One encoder, and how much is measured."""

    preset: str = "tiny"
    weights: Path | None = None  # an encoder's file; None: the preset's own
    generator: Path | None = None
    split: str = "test"
    data: Path | None = None
    people: int | None = None  # the first so many people; None: all
    variants: int = 16  # per drawing
    encoders: Mapping[str, Path] | None = None  # name → file; then only training.csv is made
    seed: int = 0


class Bench:
    """The networks and the data set of a study, loaded once."""

    def __init__(self, study: Study):
        self.study, self.preset = study, get_preset(study.preset)
        data = open_dataset(self.preset, study.split, study.data)
        if not isinstance(data, SynthFaces):
            raise S2FError("the drawing study needs line drawings and people to render again: use SynthFaces.")
        self.data = data
        self.psp = load_psp(self.preset, study.weights, study.generator)
        self.judge: IdentityJudge = identity_judge(self.preset, role="measure")
        names = np.array(data.names)
        self.galleries, _ = gallery_indices(data.identities, names)
        self.shot = shots(data.identities, names)
        self.people = np.unique(self.data.identities)[: study.people]
        self._photos: dict[int, np.ndarray] = {}

    def probes(self, kind: str) -> list[int]:
        """One photo of every person of the study, as indices into the data set: the first one; for a line drawing the
        one that this hand drew."""
        hand = kind.removeprefix("line drawing, ")
        out = []
        for person in self.people:
            own = np.flatnonzero(self.data.identities == person)
            drawn = [i for i in own if kind == PENCIL or self.data.attributes[i]["drawing_hand"] == hand]
            out += [int(i) for i in drawn[:1]]
        return out

    def drawing(self, i: int, kind: str) -> Tensor:
        """(1, H, W) in [0, 1]."""
        if kind == PENCIL:
            return self.data[i]["sketch"]
        return torch.from_numpy(self.data.drawing(i))[None].float() / 255

    @torch.no_grad()
    def embed(self, faces: Tensor) -> np.ndarray:
        return np.concatenate([self.judge.embed(part.clamp(-1, 1)).numpy() for part in faces.split(25)])

    def gallery(self, shot: int) -> np.ndarray:
        """Embeddings (G, d) of the photos with which a probe of this shot is compared: another shot of everyone."""
        if shot not in self._photos:
            self._photos[shot] = self.embed(torch.stack([self.data[int(i)]["photo"] for i in self.galleries[shot]]))
        return self._photos[shot]

    def other_shot(self, i: int) -> int:
        """The photo of the same person that is in the gallery of probe ``i``."""
        gallery = self.galleries[int(self.shot[i])]
        return int(gallery[np.flatnonzero(self.data.identities[gallery] == self.data.identities[i])[0]])

    def rank(self, embeddings: np.ndarray, probes: list[int]) -> np.ndarray:
        """Rank (N,) of each probe's person among everyone's other shot."""
        out = np.empty(len(probes), np.int64)
        shot, ids = self.shot[probes], self.data.identities
        for s in np.unique(shot):
            who = np.flatnonzero(shot == s)
            truth = ids[np.asarray(probes)[who]]
            out[who] = rank_probes(embeddings[who], truth, self.gallery(int(s)), ids[self.galleries[int(s)]]).rank
        return out


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1)  # the judge's embeddings have length 1


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


@torch.no_grad()
def variants(bench: Bench, progress: Callable[[str], None] = lambda line: None) -> list[dict]:
    """A row per kind of drawing and fidelity (:meth:`s2flib.psp.PSP.multimodal`)."""
    n, rows = bench.study.variants, []
    for kind in KINDS:
        probes = bench.probes(kind)
        progress(f"variants: {kind}, {len(probes)} drawings × {n}")
        items = [bench.data[i] for i in probes]
        drawings = torch.stack([bench.drawing(i, kind) for i in probes])
        photos, masks = (torch.stack([x[k] for x in items]) for k in ("photo", "mask"))
        truth, ids = bench.embed(photos), bench.data.identities[probes]
        shuffled = torch.arange(len(probes)).roll(1)
        ceiling = bootstrap_mean(agreement(drawings, photos, masks).numpy(), ids)
        control = bootstrap_mean(agreement(drawings, photos[shuffled], masks).numpy(), ids)
        for fidelity in FIDELITIES:
            found: dict[str, list[float]] = {}
            for drawing, mask, own, i in zip(drawings, masks, truth, probes, strict=True):
                faces = bench.psp.multimodal(drawing, n, bench.study.seed + i, fidelity=fidelity)
                e = bench.embed(faces)
                obeys = agreement(drawing.expand(n, -1, -1, -1), faces, mask.expand(n, -1, -1))
                spread = variation(faces)
                values = {
                    "agreement": float(obeys.mean()),
                    "similarity": float(_cosine(e, own).mean()),
                    "alike": float((e @ e.T)[~np.eye(n, dtype=bool)].mean()),
                    "variation": float(spread.mean()),
                    **{f"variation {region}": v for region, v in by_region(spread, mask).items()},
                    "identity": float(bench.data.identities[i]),
                }
                for key, value in values.items():
                    found.setdefault(key, []).append(value)
                for region in REGIONS:  # a mask may lack one
                    if f"variation {region}" not in values:
                        found.setdefault(f"variation {region}", []).append(np.nan)
            row: dict = {"drawing": kind, "fidelity": fidelity, "n": len(probes), "variants": n}
            for key, values_of in found.items():
                have = np.isfinite(values_of)
                if key != "identity" and have.any():
                    row |= _columns(key, bootstrap_mean(np.array(values_of)[have], ids[have]))
            row |= _columns("agreement of the photo", ceiling) | _columns("agreement of another person", control)
            rows.append(row)
    return rows


def with_and_without(data: SynthFaces, name: str, accessory: str) -> dict[str, tuple[Tensor, Tensor]]:
    """{"with", "without"} → (photo (3, H, W), mask (H, W)) of a data set's photo, as it is and without its accessory;
    both are rendered anew, so that nothing else differs."""
    identity, shot = (int(part) for part in name.split("_")[-2:])
    portrait, person, scene = render_shot(data.seed, identity, shot, data.size)
    look: Any = replace(person.look, **ACCESSORIES[accessory].without)
    both = {"with": portrait, "without": photograph(Person(person.identity, look, like=person), scene, data.size)}
    return {k: (to_photo(p.rgb, data.size), torch.from_numpy(p.labels)) for k, p in both.items()}


def pairs(bench: Bench, accessory: str) -> Iterator[tuple[int, dict[str, tuple[Tensor, Tensor]]]]:
    """For every photo of the study's people that shows the accessory: its index, and :func:`with_and_without`."""
    kind = ACCESSORIES[accessory]
    for i, attributes in enumerate(bench.data.attributes):
        if attributes[kind.column] in kind.shows and bench.data.identities[i] in bench.people:
            yield i, with_and_without(bench.data, bench.data.names[i], accessory)


@torch.no_grad()
def accessories(bench: Bench, progress: Callable[[str], None] = lambda line: None) -> tuple[list[dict], list[dict]]:
    """A row per accessory, with and without it; and one row per photo, for finding the failures.

    seen: share of the faces in which the edit judge sees the accessory. A face without its glasses is a failure of
    another kind than a face that is not the person's; a line-up tells the second. In the gallery stands another photo,
    in which many wear the accessory, too (column "worn in the gallery").
    """
    judge = load_edit_judge()
    rows, photos_of = [], []
    for accessory, (column, shows, head, values, _) in ACCESSORIES.items():
        index: list[int] = []
        got: dict[str, list] = {f"{what} {k}": [] for k in ("with", "without") for what in ("photo", "face")}
        for i, both in pairs(bench, accessory):
            index.append(i)
            for k, (photo, mask) in both.items():
                got[f"photo {k}"].append(photo)
                got[f"face {k}"].append(sample_faces(bench.psp, sketch(photo, mask), 1, 0)[0])
        progress(f"accessories: {accessory}, {len(index)} photos with and without")
        if not index:
            continue
        pictures = {k: torch.stack(v) for k, v in got.items()}
        ids, wanted = bench.data.identities[index], [HEADS[head].index(v) for v in values]
        seen = {
            k: torch.cat([judge.heads(x.clamp(-1, 1))[head].exp()[:, wanted].sum(1) > 0.5 for x in v.split(25)]).numpy()
            for k, v in pictures.items()
        }
        e = {k: bench.embed(v) for k, v in pictures.items()}
        similarity = {k: _cosine(e[f"face {k}"], e[f"photo {k}"]) for k in ("with", "without")}
        rank = {k: bench.rank(e[f"face {k}"], index) for k in ("with", "without")}
        worn = np.mean([bench.data.attributes[bench.other_shot(i)][column] in shows for i in index])
        for k in ("with", "without"):
            rows.append(
                {"accessory": accessory, "worn": k, "n": len(index), "people": len(np.unique(ids))}
                | {"worn in the gallery": worn}
                | _columns("seen on the photo", bootstrap_mean(seen[f"photo {k}"], ids))
                | _columns("seen on the face", bootstrap_mean(seen[f"face {k}"], ids))
                | _columns("similarity", bootstrap_mean(similarity[k], ids))
                | _columns("rank-10", bootstrap_mean(rank[k] <= 10, ids))
                | _columns("similarity minus without", bootstrap_mean(similarity[k] - similarity["without"], ids))
            )
        photos_of += [
            {
                "accessory": accessory,
                "photo": bench.data.names[i],
                "seen": int(seen["face with"][j]),
                "similarity": similarity["with"][j],
                "similarity_without": similarity["without"][j],
                "rank": rank["with"][j],
                "rank_without": rank["without"][j],
            }
            for j, i in enumerate(index)
        ]
    return rows, photos_of


@torch.no_grad()
def training(bench: Bench, progress: Callable[[str], None] = lambda line: None) -> list[dict]:
    """A row per encoder of the study and kind of drawing (pencil, or lines by all hands)."""
    rows = []
    probes = bench.probes(PENCIL)
    ids = bench.data.identities[probes]
    truth = bench.embed(torch.stack([bench.data[i]["photo"] for i in probes]))
    for name, path in (bench.study.encoders or {}).items():
        psp: PSP = load_psp(bench.preset, path, bench.study.generator)
        for kind in (PENCIL, "line drawing"):
            progress(f"training: {name}, tested on {len(probes)} × {kind}")
            drawings = torch.stack([bench.drawing(i, kind) for i in probes])
            e = bench.embed(torch.cat([psp(part)[0] for part in drawings.split(25)]))
            rank = bench.rank(e, probes)
            rows.append(
                {"trained on": name, "tested on": kind, "n": len(probes), "gallery": len(bench.galleries[0])}
                | _columns("similarity", bootstrap_mean(_cosine(e, truth), ids))
                | {k: v for n in (1, 10) for k, v in _columns(f"rank-{n}", bootstrap_mean(rank <= n, ids)).items()}
            )
    return rows


def report_drawings(
    study: Study,
    out: Path | None = None,  # None: a new runs/<time>
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[str, Path]:
    """Run the study; returns its text, and the folder with drawings.txt, one CSV per table and run.json. With encoders
    to compare, training.csv is the only table."""
    check_seed(study.seed)
    if study.variants < 2 or study.people is not None and study.people < 2:
        raise S2FError("the drawing study needs at least two variants and two people.")
    record = run_record(study.preset, study, study.seed)
    folder = result_folder(out, overwrite, "training.csv" if study.encoders else "variants.csv")
    bench = Bench(study)
    if study.encoders:
        tables = {"training": training(bench, progress)}
    else:
        rows, each = accessories(bench, progress)
        tables = {"variants": variants(bench, progress), "accessories": rows, "accessories_photos": each}
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", csv_text([_rounded(row) for row in table]), overwrite)
    text = as_text(tables, bench.preset, study, bench.judge.label)
    write_text(folder / "drawings.txt", text + "\n", overwrite)
    write_json(folder / "run.json", finish(record, n={k: len(v) for k, v in tables.items()}), overwrite)
    return text, folder


def _rounded(row: dict) -> dict:
    return {k: round(float(v), 4) if isinstance(v, (float, np.floating)) else v for k, v in row.items()}


def as_text(tables: Mapping[str, list[dict]], preset: Preset, study: Study, judge: str) -> str:
    """The tables with their intervals, and what they mean."""

    def cell(row: dict, name: str, scale: float = 1, digits: int = 3) -> str:
        if name not in row:
            return "–"
        low, high = (scale * row[f"{name}_{end}"] for end in ("low", "high"))
        return f"{scale * row[name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    lines = []
    if "variants" in tables:
        lines += ["Variants of one drawing. Agreement: 1 is the drawing itself."]
    for row in tables.get("variants", ()):
        head = f"{row['drawing']:26s} fidelity {row['fidelity']:.1f}  n {row['n']:3d} × {row['variants']}"
        lines.append(
            f"{head}  agreement {cell(row, 'agreement')} (photo {row['agreement of the photo']:.3f}, another person "
            f"{row['agreement of another person']:.3f})  similarity {cell(row, 'similarity')}  "
            f"variants among themselves {cell(row, 'alike')}  variation {cell(row, 'variation', 1, 1)} of 255"
        )
    if "accessories" in tables:
        lines += ["", "Accessories, rendered with and without."]
    for row in tables.get("accessories", ()):
        lines.append(
            f"{row['accessory']:12s} {row['worn']:8s} n {row['n']:3d} of {row['people']:3d} people  seen on the face "
            f"{cell(row, 'seen on the face', 100, 0)} % (photo {100 * row['seen on the photo']:.0f} %)  similarity "
            f"{cell(row, 'similarity')}  rank-10 {cell(row, 'rank-10', 100, 1)} % "
            f"({100 * row['worn in the gallery']:.0f} % wear it in the gallery)"
        )
    if "training" in tables:
        lines += ["Encoders, by what they were trained on."]
    for row in tables.get("training", ()):
        lines.append(
            f"{row['trained on']:12s} tested on {row['tested on']:14s} n {row['n']} of {row['gallery']}  similarity "
            f"{cell(row, 'similarity')}  rank-1 {cell(row, 'rank-1', 100, 1)} %  "
            f"rank-10 {cell(row, 'rank-10', 100, 1)} %"
        )
    note = f"Split {study.split}, seed {study.seed}; 95 % bootstrap intervals over people; similarity: {judge}."
    return "\n".join([*lines, "", note + (f" {preset.label}" if preset.label else "")])
