"""The inversion methods side by side: time, distortion and editability, on the same photos (notebook 11).

Seconds are those of photos inverted one at a time, measured last and on a few photos, so that nothing else has to rest
meanwhile. Distortion is MSE and perceptual distance at the preset's evaluation size, and the similarity of the
measuring judge, which nothing here was trained with. Editability as e4e and PTI report it, at the same strength for
every method:

directions   five attributes by InterFaceGAN (s2flib.inversion.directions), found on random faces that the attribute
             network labels; w+ is moved by ``STRENGTH`` standard deviations towards what the photo does not show.
             Success: the edit judge, another network, reads the change in the picture.
text edits   InstructPix2Pix on the reconstruction, judged in the same way
kept         similarity of the edited picture to the photo
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2flib.datasets.attributes import ATTRIBUTE_NAMES, attribute_targets
from s2flib.datasets.faces import open_dataset
from s2flib.errors import S2FError
from s2flib.evaluation.evaluate import Judges, pool
from s2flib.evaluation.inversion_tables import EDITED, TEXT_EDITS, Attribute, check_claims, per_photo, summary, table
from s2flib.files import atomic_path, claimed, csv_text, write_text
from s2flib.images import contact_sheet, save_image, to_array
from s2flib.instruct_pix2pix.editing import edit_batch
from s2flib.instruct_pix2pix.pipeline import load_pipeline
from s2flib.inversion.directions import Direction, interfacegan, save_directions
from s2flib.inversion.methods import BUDGETS, METHODS, Budget, load_method
from s2flib.inversion.protocol import Inversion, Method, Watch
from s2flib.judges.edit_judge import HEADS, SCALE, EditJudge, load_edit_judge
from s2flib.judges.load import attribute_net
from s2flib.presets import get_preset
from s2flib.runs import check_seed, finish, result_folder, run_record, write_json
from s2flib.stylegan2 import Generator
from s2flib.weights.load import load_generator

STRENGTH = 3.0  # standard deviations by which an edit moves a code


@dataclass(frozen=True)
class InversionStudy:
    """What is measured, and on how many photos."""

    preset: str = "tiny"
    methods: tuple[str, ...] = METHODS
    split: str = "test"
    data: Path | None = None
    people: int = 60  # the first so many people, one photo each
    timed: int = 5  # of these photos, inverted once more for the time, one at a time
    faces: int = 1000  # random faces on which the directions are found
    w_plus: int | None = None  # updates; None: the preset's budget
    projector: int | None = None
    tuning: int | None = None
    seed: int = 0


@torch.no_grad()
def attribute_directions(
    generator: Generator, n: int, seed: int, names: Sequence[str] = tuple(a.name for a in EDITED), batch: int = 25
) -> dict[str, Direction]:
    """Name → direction, by InterFaceGAN on ``n`` random faces that the attribute network labels (about 0.1 s a face).

    S2FError if fewer than ten faces have, or lack, an attribute.
    """
    net = attribute_net()
    w = generator.random_codes(n, seed)
    logits = torch.cat([net(generator.synthesis(generator.expand(part)).clamp(-1, 1)) for part in w.split(batch)])
    return {name: interfacegan(w, logits[:, net.names.index(name)] > 0, name, seed) for name in names}


class Remembering:
    """A method that inverts no batch of photos twice."""

    def __init__(self, method: Method):
        self.method, self.name = method, method.name
        self.found: dict[bytes, Inversion] = {}

    def invert(self, photos: Tensor, watch: Watch | None = None) -> Inversion:
        key = photos.numpy().tobytes()
        if key not in self.found:
            self.found[key] = self.method.invert(photos, watch)
        return self.found[key]


class Bench:
    """The photos, judges and directions of a study, loaded once."""

    def __init__(self, study: InversionStudy, progress: Callable[[str], None]):
        self.study, self.preset = study, get_preset(study.preset)
        data = open_dataset(self.preset, study.split, study.data)
        people, first = np.unique(data.identities, return_index=True)
        if not 2 <= study.people <= len(people):
            raise S2FError(f"the split {study.split} has {len(people)} people: choose 2 to {len(people)}.")
        if not 1 <= study.timed <= study.people:
            raise S2FError(f"{study.timed} photos cannot be timed: choose 1 to {study.people}, the number of people.")
        index = np.sort(first)[: study.people]
        self.person = data.identities[index]
        self.photos = torch.stack([data[int(i)]["photo"] for i in index])
        targets = attribute_targets(data)[index]
        self.shows = {name: targets[:, k] > 0.5 for k, name in enumerate(ATTRIBUTE_NAMES)}
        self.judges = Judges.of(self.preset)
        self.reader: EditJudge = load_edit_judge()
        self.generator = load_generator(self.preset)
        progress(f"directions from {study.faces} random faces")
        self.directions = attribute_directions(self.generator, study.faces, study.seed)
        self.pipe: Any = load_pipeline(self.preset)
        self.projector: Method | None = None

    def method(self, name: str, pivot: Method | None = None) -> Method:
        """A method in front of this generator, with the study's budget. pivot: of PTI; None: a projector of its own."""
        s = self.study
        budget = Budget(s.w_plus, s.projector, s.tuning, s.seed)
        return load_method(name, self.preset, generator=self.generator, pivot=pivot, budget=budget)

    def remembering(self, name: str) -> Method:
        """:meth:`method`, for measuring all but time: PTI takes the pivots that were measured as the projector's."""
        if name == "projector" or name == "pti":
            self.projector = self.projector or Remembering(self.method("projector"))
            return self.projector if name == "projector" else self.method(name, self.projector)
        return self.method(name)

    def compare(self, pictures: Tensor, photos: Tensor) -> dict[str, np.ndarray]:
        """MSE, perceptual distance and similarity of pictures (N, 3, S, S) and photos."""
        x, y = (pool(p.clamp(-1, 1), self.preset.eval_size) for p in (photos, pictures))
        identity = self.judges.identity
        return {
            "mse": (x - y).square().mean((1, 2, 3)).numpy(),
            "lpips": self.judges.perceptual(x, y).flatten().numpy(),
            "similarity": identity.similarity(x, y).numpy(),
        }

    def read(self, pictures: Tensor) -> dict[str, Tensor]:
        """The edit judge's readings of pictures (N, 3, S, S)."""
        return self.reader.heads(pool(pictures.clamp(-1, 1), 128))


def changed(attribute: Attribute, before: dict[str, Tensor], after: dict[str, Tensor], adds: np.ndarray) -> np.ndarray:
    """(N,) bool: the judge reads the requested change. adds (N,): whether the attribute should appear or disappear.

    A head with values: "yes" after and not before, or the other way round. A number: moved the requested way by half
    of its standard deviation over people.
    """
    if attribute.values:
        yes = [HEADS[attribute.head].index(v) for v in attribute.values]
        had, has = (np.isin(r[attribute.head].argmax(1).numpy(), yes) for r in (before, after))
        return np.where(adds, has & ~had, had & ~has)
    moved = (after[attribute.head] - before[attribute.head]).numpy()
    wanted = np.where(adds == attribute.rises, 1, -1)
    return moved * wanted >= SCALE[attribute.head][1] / 2


@torch.no_grad()
def measure(method: Method, bench: Bench, progress: Callable[[str], None], batch: int = 6) -> dict[str, np.ndarray]:
    """One method on every photo: distortion (start_… of its starting point), success_… and kept_… of every direction
    and text edit (NaN where a photo shows already what a text edit asks for), and the pictures (uint8).

    A photo's result does not depend on the others of its ``batch`` (up to rounding).
    """
    parts: list[dict[str, np.ndarray]] = []
    for k in range(0, len(bench.photos), batch):
        photos = bench.photos[k : k + batch]
        inversion = method.invert(photos)
        result = inversion.reconstruction
        part = bench.compare(result, photos)
        start = bench.compare(inversion.trace[0].reconstruction, photos)
        part |= {f"start_{name}": values for name, values in start.items()}
        before = bench.read(result)
        for a in EDITED:
            adds = ~bench.shows[a.name][k : k + batch]
            direction, strengths = bench.directions[a.name], np.where(adds, STRENGTH, -STRENGTH)
            codes = [direction.move(w[None], s) for w, s in zip(inversion.w_plus, strengths, strict=True)]
            edited = inversion.generate(torch.cat(codes))
            part[f"success_{a.name}"] = changed(a, before, bench.read(edited), adds).astype(float)
            part[f"kept_{a.name}"] = bench.compare(edited, photos)["similarity"]
        part["picture"] = to_array(result.clamp(-1, 1))
        parts.append(part)
        progress(f"{method.name}: {min(k + batch, len(bench.photos))} of {len(bench.photos)} photos")
    out = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return out | measure_text_edits(out["picture"], bench)


def time_method(method: Method, photos: Tensor, progress: Callable[[str], None]) -> np.ndarray:
    """(N,) seconds of every photo, inverted alone; of networks, the second of two passes."""
    warm = 1 if method.name in BUDGETS else 2
    seconds = [[method.invert(p[None]).seconds for _ in range(warm)][-1] for p in photos]
    progress(f"{method.name}: {np.median(seconds):.2f} s a photo")
    return np.array(seconds)


@torch.no_grad()
def measure_text_edits(pictures: np.ndarray, bench: Bench) -> dict[str, np.ndarray]:
    """success_… and kept_… of the text edits of pictures (N, S, S, 3) uint8, one for each photo."""
    out = {}
    for edit in TEXT_EDITS:
        asked = np.flatnonzero(~bench.shows[edit.attribute])
        success, kept = np.full(len(pictures), np.nan), np.full(len(pictures), np.nan)
        if len(asked):
            made = edit_batch(
                list(pictures[asked]), [edit.words] * len(asked), bench.preset, bench.study.seed, bench.pipe
            )
            edited = torch.stack([torch.from_numpy(e.image).permute(2, 0, 1) / 127.5 - 1 for e in made])
            yes = [HEADS[edit.head].index(v) for v in edit.values]
            success[asked] = np.isin(bench.read(edited)[edit.head].argmax(1).numpy(), yes)
            kept[asked] = bench.compare(edited, bench.photos[torch.from_numpy(asked)])["similarity"]
        out |= {f"success_{edit.words}": success, f"kept_{edit.words}": kept}
    return out


def report_inversions(
    study: InversionStudy,
    out: Path | None = None,  # None: a new runs/<time>
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[str, Path]:
    """Every method on every photo; the text, and the folder with inversions.{txt,csv,png}, claims.csv, per_photo.npz,
    directions.safetensors and run.json. A run that was stopped continues from the methods in its methods/ folder; times
    are taken anew."""
    check_seed(study.seed)
    unknown = [m for m in study.methods if m not in METHODS]
    if unknown or not study.methods:
        raise S2FError(f"there is no inversion method {', '.join(unknown)!r}: choose from {', '.join(METHODS)}.")
    preset = get_preset(study.preset)
    record = run_record(preset, asdict(study), study.seed)
    folder = result_folder(out, overwrite, "inversions.csv")
    with claimed(folder):
        bench = Bench(study, progress)
        measured = {name: measured_method(name, bench, folder / "methods", progress) for name in study.methods}
        seconds = {name: time_method(bench.method(name), bench.photos[: study.timed], progress) for name in measured}
        figures = {name: {"seconds": seconds[name]} | per_photo(columns) for name, columns in measured.items()}
        rows, claims = summary(figures, bench.person), check_claims(figures, bench.person)
        text = table(rows, claims, preset, bench.judges)
        write_text(folder / "inversions.txt", text + "\n", overwrite)
        write_text(folder / "inversions.csv", csv_text(rows), overwrite)
        if claims:
            write_text(folder / "claims.csv", csv_text(claims), overwrite)
        found = list(bench.directions.values())
        save_directions(folder / "directions.safetensors", found, bench.generator, preset.name, overwrite)
        save_image(folder / "inversions.png", sheet(bench.photos, measured), {"preset": preset.name}, overwrite)
        with atomic_path(folder / "per_photo.npz") as part, open(part, "wb") as file:
            every = {f"{m}/{k}": v for m, columns in figures.items() for k, v in columns.items()}
            np.savez_compressed(file, person=bench.person, **every)  # type: ignore[arg-type]
        write_json(folder / "run.json", finish(record, rows=rows), overwrite)
    return text, folder


def sheet(photos: Tensor, measured: dict[str, dict[str, np.ndarray]], n: int = 6) -> np.ndarray:
    """The first ``n`` photos and every method's reconstructions of them, a row each person, uint8."""
    n = min(n, len(photos))
    columns = [to_array(photos[:n]), *(m["picture"][:n] for m in measured.values())]
    titles = ["photo", *measured] + [""] * ((n - 1) * len(columns))
    return contact_sheet([column[i] for i in range(n) for column in columns], len(columns), titles, cell=128, gap=4)


def measured_method(name: str, bench: Bench, folder: Path, progress: Callable[[str], None]) -> dict[str, np.ndarray]:
    """:func:`measure`, or what an interrupted run of the same study wrote into ``folder``."""
    study = bench.study
    same = json.dumps({k: str(v) for k, v in asdict(study).items() if k not in ("methods", "timed")})
    path = folder / f"{name}.npz"
    if path.is_file():
        with np.load(path) as stored:
            found = dict(stored)
        if str(found.pop("study")) == same:
            return found
    columns = measure(bench.remembering(name), bench, progress)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, study=same, **columns)  # type: ignore[arg-type]
    return columns
