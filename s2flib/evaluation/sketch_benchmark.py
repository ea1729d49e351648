"""Closed-set identification on the field's sketch sets (CUFS, CUFSF, FS2K): whose photo is it?

Every sketch of the split is a probe. What is made of it is compared, by the measuring identity network, with one photo
of each person of the split (closed set; rank-1/10/50, as Klare et al., IEEE TPAMI 33(3), 2011), and again with further
people's photos added to this gallery. The artists drew from the gallery's photos ("viewed" sketches), which is easier
than a witness's description. The sets have one photo per person, so there is no photo-against-photo ceiling.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s2flib.datasets.align import SYNTHFACES_LANDMARKS, find_faces
from s2flib.datasets.sketch_benchmarks import Frame, SketchBenchmark, straighten
from s2flib.errors import DataError, S2FError
from s2flib.evaluation.evaluate import Predictor, batches, embed_photos, pool, psp_predictor
from s2flib.evaluation.intervals import Interval
from s2flib.evaluation.lineup import Chance, Ranks, derangement, rank_probes
from s2flib.evaluation.table1 import Table
from s2flib.files import write_text
from s2flib.generate import FAR
from s2flib.images import SUFFIXES, as_float, load_image
from s2flib.judges.load import identity_judge
from s2flib.presets import get_preset
from s2flib.runs import check_seed, finish, result_folder, run_record, write_json
from s2flib.weights.load import load_psp

KS = (1, 10, 50)


@dataclass(frozen=True)
class BenchmarkTest:
    """One encoder and the set on which it is measured."""

    folder: Path  # the set, as published
    kind: str  # "cufs", "cufsf" or "fs2k"
    preset: str = "tiny"
    weights: Path | None = None  # an encoder's file; None: the preset's own
    generator: Path | None = None  # the generator it was trained with; None: the preset's own
    gallery: Path | None = None  # a folder of further people's photos
    photos: Path | None = None  # the set's photos, where they are published separately
    split: str = "test"  # "test", "train" or "all"
    limit: int | None = None  # use only the first pairs
    batch: int = 16
    seed: int = 0  # of the shuffled control

    @property
    def device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class FurtherPhotos:
    """Photos that make a gallery larger. photos (N, 3, H, W) uint8; skipped: reason → number of files left out."""

    photos: list[np.ndarray]
    skipped: Counter[str]

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, i: int) -> dict:
        return {"photo": as_float(self.photos[i])}


def report_benchmark(
    test: BenchmarkTest,
    out: Path | None = None,  # None: a new runs/<time>
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[Table, Path]:
    """The table of one encoder, and the folder to which it writes benchmark.txt, benchmark.csv and run.json."""
    check_seed(test.seed)
    preset = get_preset(test.preset)
    record = run_record(preset, asdict(test), test.seed)
    if out is not None and out.exists():
        result_folder(out, overwrite, "benchmark.csv")  # refuses before the work
    psp = load_psp(preset, test.weights, test.generator)
    predict = psp_predictor(psp, preset, test.device)
    judge = identity_judge(preset, role="measure").to(test.device)
    dataset = SketchBenchmark(test.kind, test.folder, test.split, preset.size, test.limit, test.photos, progress=True)
    if len(dataset) < 2:
        raise DataError(f"{test.folder} has one usable pair: a line-up needs at least two people.")
    progress(f"{len(dataset)} pairs of {dataset.layout.label}, {len(dataset.left_out)} left out")
    further = None
    if test.gallery is not None:
        own = {_digest(pair.photo) for pair in dataset.pairs if pair.photo is not None}
        further = further_photos(test.gallery, preset.size, own)
        progress(f"{len(further)} further photos in the gallery, {sum(further.skipped.values())} left out")
    folder = result_folder(out, overwrite, "benchmark.csv")
    ranks = measure(predict, dataset, judge, preset, further, test.batch, test.device, test.seed)
    table = _table(ranks, dataset, further, preset, judge.label, test, _unusual(psp, dataset, test.device))
    write_text(folder / "benchmark.txt", table.text, overwrite)
    write_text(folder / "benchmark.csv", table.csv, overwrite)
    results = {"table": table.records, "left_out": dataset.left_out, "framing": dataset.framing, "notes": dataset.notes}
    write_json(folder / "run.json", finish(record, **results), overwrite)
    return table, folder


def measure(
    predict: Predictor,
    dataset,
    judge,
    preset,
    further=None,
    batch: int = 16,
    device: str = "cpu",
    seed: int = 0,
    progress: bool = True,
) -> dict[tuple[str, str], Ranks | Chance]:
    """(gallery, row) → ranks; the galleries are "closed set" and, with ``further`` photos, "extended".

    Rows: "pSp" (the predictor), the sketch itself shown to the judge (baseline), the predictor's faces assigned to
    other people (control), and chance. dataset: items with photo, sketch, identity and name, one person each.
    """
    preset, identities = get_preset(preset), np.asarray(dataset.identities)
    if len(set(identities)) < 2:
        raise DataError("a line-up needs at least two people: use a larger split or limit.")
    photos = embed_photos(dataset, judge, preset, batch, device, progress)
    probes: dict[str, list[np.ndarray]] = {"pSp": [], "sketch against photo (baseline)": []}
    with torch.inference_mode():
        for items in batches(dataset, batch, progress, "sketches"):
            sketches = torch.stack([item["sketch"] for item in items]).to(device)
            shown = (predict(sketches), sketches.expand(-1, 3, -1, -1) * 2 - 1)
            for parts, picture in zip(probes.values(), shown, strict=True):
                parts.append(_embed(judge, picture.to(device), preset.eval_size))
    embeddings = {name: np.concatenate(parts) for name, parts in probes.items()}
    embeddings["shuffled (control)"] = embeddings["pSp"][derangement(identities, np.random.default_rng(seed))]
    galleries = {"closed set": (photos, identities)}
    if further is not None:
        more = embed_photos(further, judge, preset, batch, device, progress)
        strangers = identities.max() + 1 + np.arange(len(more))
        galleries["extended"] = np.concatenate([photos, more]), np.concatenate([identities, strangers])
    found: dict[tuple[str, str], Ranks | Chance] = {}
    for gallery, (shown, people) in galleries.items():
        for name, embedding in embeddings.items():
            found[gallery, name] = rank_probes(embedding, identities, shown, people)
        found[gallery, "chance"] = Chance(len(set(people)))
    return found


def further_photos(folder: Path, size: int, own: Iterable[str] = ()) -> FurtherPhotos:
    """Every photo in a folder and its subfolders that shows one face, framed like the training photos.

    own: SHA-256 of files that are in the gallery already; they are left out, as are pictures that cannot be read, show
    no face or several. DataError when nothing is left.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: choose a folder of further people's photos for the gallery.")
    seen, photos, skipped = set(own), [], Counter[str]()
    for path in _pictures(folder):
        digest = _digest(path)
        try:
            array = load_image(path)
            faces = find_faces(array)
        except S2FError:
            skipped["unreadable"] += 1
            continue
        if digest in seen:
            skipped["in the gallery already"] += 1
        elif len(faces) != 1:
            skipped["no face" if not faces else "several faces"] += 1
        else:
            seen.add(digest)
            photos.append(straighten(array, Frame(faces[0].landmarks, SYNTHFACES_LANDMARKS), size))
    if not photos:
        reasons = ", ".join(f"{n} {why}" for why, n in skipped.items()) or "it contains no pictures"
        raise DataError(f"{folder} has no photo to add to the gallery ({reasons}): choose a folder of portraits.")
    return FurtherPhotos(photos, skipped)


def _pictures(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _embed(judge, pictures: Tensor, size: int) -> np.ndarray:
    return judge.embed(pool(pictures.float(), size)).float().cpu().numpy()


def _unusual(psp, dataset, device: str) -> int | None:
    """How many sketches are unlike the drawings that the encoder was trained on; None: it does not measure this."""
    distances = [psp.input_distance(item["sketch"][None].to(device)) for item in dataset]
    return None if any(d is None for d in distances) else sum(float(d) > FAR for d in distances)


def _table(ranks, dataset, further, preset, judge: str, test: BenchmarkTest, unusual: int | None) -> Table:
    cells, records = [], []
    for (gallery, name), found in ranks.items():
        row, record = [name if gallery == "closed set" else f"{name}, extended"], {"gallery": gallery, "method": name}
        for k in KS:
            value = found.rate(k) if k < found.gallery else None  # rank-50 of 40 people says nothing
            row.append(_cell(value))
            record |= {f"rank{k}": "", f"rank{k}_low": "", f"rank{k}_high": ""}
            if value is not None:
                record |= {f"rank{k}": value.value}
                known = {} if np.isnan(value.low) else {f"rank{k}_low": value.low, f"rank{k}_high": value.high}
                record |= known
        records.append(
            record
            | {
                "people": found.gallery,
                "n": len(dataset),
                "set": test.kind,
                "split": test.split,
                "left_out": len(dataset.left_out),
                "preset": preset.name,
                "identity_net": judge,
            }
        )
        cells.append(tuple(row))
    sizes = {gallery: found.gallery for (gallery, _), found in ranks.items()}
    parts = [
        f"{dataset.layout.label}, {test.split}: {len(dataset)} sketches, drawn from the photos, against "
        + " and ".join(f"{size} people ({gallery})" for gallery, size in sizes.items()),
        f"{len(dataset.left_out)} pairs left out; split: {dataset.layout.split}",
        "; ".join(f"{n} {way}" for way, n in sorted(dataset.framing.items())),
        *dataset.notes,
    ]
    if further is not None and further.skipped:
        parts.append("not added: " + ", ".join(f"{n} photos {why}" for why, n in sorted(further.skipped.items())))
    if unusual is not None:
        parts.append(f"{unusual} of {len(dataset)} sketches are unlike those that the encoder was trained on")
    parts.append(
        f"similarity: {judge}; [95 % bootstrap interval over people]; photo against photo: impossible with one photo "
        "of each person"
    )
    footer = ". ".join([preset.label, *(part[0].upper() + part[1:] for part in parts)]) + "."
    rules = tuple(i for i, record in enumerate(records) if record["method"] == "chance")
    return Table(("Probe", *(f"rank-{k} ↑" for k in KS)), tuple(cells), tuple(records), footer, rules)


def _cell(value: Interval | None) -> str:
    if value is None:
        return ""
    bounds = "" if np.isnan(value.low) else f" [{100 * value.low:.1f}, {100 * value.high:.1f}]"
    return f"{100 * value.value:.1f} %{bounds}"
