"""The forensic evaluation in one run: who is drawn? Closed and open set, candidate sets, fairness; ``s2f identify``.

For every kind of drawing (probes.py), four ways to search the same gallery: the generated face by the measuring judge
("face"), the direct matcher ("matcher"), the sum of both ("both"), and the photo that was drawn ("photo", the ceiling).
identification_tables.py computes the tables; :func:`figures` draws them, from the run or from its files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from s2flib.datasets.faces import open_dataset
from s2flib.errors import DataError, S2FError
from s2flib.evaluation import cmc
from s2flib.evaluation.evaluate import psp_predictor
from s2flib.evaluation.identification_tables import (
    BOTH,
    FACE,
    FPIR,
    MATCHER,
    PHOTO,
    SPLITS,
    Rows,
    Scores,
    Tables,
    measure,
)
from s2flib.evaluation.matcher import embed_drawings, embed_gallery, load_matcher
from s2flib.evaluation.probes import KINDS, PENCIL, VARIANTS, Probes, check_kinds, make_probes
from s2flib.files import atomic_path, csv_text, read_csv, write_text
from s2flib.judges.load import identity_judge
from s2flib.plotting.canvas import CourseFigure
from s2flib.plotting.identification import cmc_figure, det_figure, groups_figure, sizes_figure
from s2flib.presets import get_preset
from s2flib.runs import check_seed, finish, result_folder, run_record, write_json
from s2flib.weights.load import fingerprint, load_psp

WARNING = (
    "Rendered people, not photographs: no figure here says how well a real drawing finds a real person. "
    "A hit is a lead for an investigation at most, never evidence."
)
PER_PROBE = "per_probe.npz"
RESULTS = Path(__file__).resolve().parents[2] / "data" / "results" / "identification"  # of the shipped weights
TABLES = ("ranks", "cmc", "paired", "fusion", "open_set", "det", "calibration", "candidates", "candidate_sets",
          "fairness", "gaps")  # fmt: skip


@dataclass(frozen=True)
class IdentificationTest:
    """What ``s2f identify`` measures."""

    preset: str = "tiny"
    weights: Path | None = None  # an encoder's file; None: the preset's own
    generator: Path | None = None  # the generator it was trained with; None: the preset's own
    matcher: Path | None = None  # the direct matcher's file; None: the shipped one
    data: Path | None = None  # a SynthFaces folder; None: the preset's own
    kinds: tuple[str, ...] = KINDS
    people: int = 80  # with recall errors and with variants: of val, and of test
    variants: int = VARIANTS  # faces of each drawing, for candidate sets
    seed: int = 0
    limit: int | None = None  # use only the first photos of each split


def report_identification(
    test: IdentificationTest,
    out: Path | None = None,  # None: a new runs/<time>
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[str, Path]:
    """The whole report as text, and the folder with identification.txt, a CSV for each table, per_probe.npz, run.json,
    and in probes/ the drawings and embeddings, which a further run reads instead of making them."""
    check_seed(test.seed)
    check_kinds(test.kinds)
    if test.people < 2 or test.variants < 1:
        raise S2FError("identification needs at least 2 people and 1 variant of each drawing: use larger numbers.")
    record = run_record(test.preset, asdict(test), test.seed)
    folder = result_folder(out, overwrite, "identification.txt")
    probes, scores = {}, {}
    for split in SPLITS:
        progress(f"drawing and embedding {split} people")
        probes[split], scores[split] = search(test, split, folder / "probes")
    progress("measuring")
    tables, per_probe = measure(scores, probes, test.seed)
    text = report_text(tables, test)
    for name, rows in tables.items():
        write_text(folder / f"{name}.csv", csv_text(rows), overwrite)
    with atomic_path(folder / PER_PROBE) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **per_probe)  # type: ignore[arg-type]
    write_text(folder / "identification.txt", text, overwrite)
    write_json(folder / "run.json", finish(record, rank_1=where(tables["ranks"], method=FACE, rank=1)), overwrite)
    return text, folder


def search(test: IdentificationTest, split: str, cache: Path) -> tuple[Probes, Scores]:
    """A split's probes, and the scores (n, R, G) of all methods against its gallery; cache: see make_probes."""
    preset = get_preset(test.preset)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = open_dataset(preset, split, test.data, test.limit)
    net = load_matcher(test.matcher).to(device)
    predict = psp_predictor(load_psp(preset, test.weights, test.generator), preset, device)
    psp = getattr(predict, "psp")  # noqa: B009  (a Predictor's type has no psp)
    judge = identity_judge(preset, role="measure").to(device)

    def show(steps: Iterable, what: str) -> Iterable:
        from tqdm.auto import tqdm

        return tqdm(steps, desc=f"{split}: {what}", leave=False)

    probes = make_probes(dataset, psp, judge, preset, test.kinds, test.people, test.variants, test.seed, cache,
                         fingerprint(psp), show)  # fmt: skip
    photos = torch.utils.data.Subset(dataset, probes.index.tolist())
    gallery = embed_gallery(net, photos, identity_judge(preset, role="train").to(device), preset.eval_size)
    scores: Scores = {(PHOTO, PHOTO): cmc.cosines(probes.photo, probes.gallery)}
    for name, kind in probes.kinds.items():
        flat = torch.from_numpy(kind.drawings).flatten(0, 1)[:, None].float() / 255
        embedded = embed_drawings(net, flat).reshape(*kind.drawings.shape[:2], -1)
        scores[FACE, name] = cmc.cosines(kind.embedding, probes.gallery)
        scores[MATCHER, name] = cmc.cosines(embedded, gallery)
        scores[BOTH, name] = cmc.standardised(scores[FACE, name]) + cmc.standardised(scores[MATCHER, name])
    return probes, scores


def read_tables(folder: str | Path) -> Tables:
    """The tables of a run's folder, with numbers as floats (empty cells: NaN). DataError names a missing file."""
    tables: Tables = {}
    for name in TABLES:
        path = Path(folder) / f"{name}.csv"
        try:
            tables[name] = read_csv(path)
        except OSError:
            raise DataError(f"{path} is missing: run s2f identify -o {folder} --overwrite.") from None
    return tables


def where(rows: Rows, **values) -> Rows:
    """The rows with these values: ``where(tables["ranks"], method="face", rank=1)``."""
    return [row for row in rows if all(row[k] == v for k, v in values.items())]


def _percent(row: Mapping, digits: int = 1) -> str:
    value, low, high = (float(row[k]) if row[k] != "" else np.nan for k in ("value", "low", "high"))
    bounds = "" if np.isnan(low) else f" [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"
    return f"{100 * value:.{digits}f} %{bounds}"


def report_text(tables: Tables, test: IdentificationTest) -> str:
    """The report to print, with intervals, n and seeds. tables: as :func:`measure` makes them."""
    kinds = list(dict.fromkeys(row["kind"] for row in where(tables["ranks"], method=FACE)))
    gallery = max(int(row["k"]) for row in tables["cmc"])
    lines = [
        f"{get_preset(test.preset).label}. {WARNING}",
        f"Gallery: one photo of each of {gallery} test people, of another day and pose than what was drawn; seed "
        f"{test.seed}; [95 % bootstrap interval over people].",
        "\nCLOSED SET: the person is in the gallery (rank-1, rank-5, rank-10; all k in cmc.csv)",
    ]
    for method, kind in dict.fromkeys((row["method"], row["kind"]) for row in tables["ranks"]):
        found = where(tables["ranks"], method=method, kind=kind)
        if "shuffled" in method and method != f"{FACE}, shuffled":
            continue
        label = kind if method == kind else f"{kind}, {method}"
        n = f"n = {found[0]['n']} of {found[0]['people']} people" if found[0]["n"] else ""
        lines.append(f"  {label:32s} " + "   ".join(f"{_percent(row):22s}" for row in found) + n)
    control = [row for row in tables["ranks"] if "shuffled" in row["method"]]
    inside = sum(float(row["low"]) <= row["rank"] / gallery <= float(row["high"]) for row in control)
    lines.append(
        f"  chance is inside {inside} of the {len(control)} intervals of shuffled people, of which 95 % should hold it"
    )
    lines.append("\nDOES THE FACE HELP? Paired, the same drawings")
    lines += [f"  {row['verdict']}" for row in tables["paired"] if row["rank"] == 1]
    lines.append("\nSEVERAL DRAWINGS OF ONE PERSON")
    for row in tables["fusion"]:
        if row["rank"] in (1, 10):
            said = f". {row['verdict']}" if row["verdict"] else ""
            lines.append(f"  {row['what']}, {row['fusion']}: rank-{row['rank']} {_percent(row)}{said}")
    lines.append("\nOPEN SET: the person may be missing; thresholds chosen on val, rates measured on test")
    lines += [_open_line(tables, method, kind) for kind in kinds for method in (FACE, MATCHER)]
    lines.append(f"  What the face answers at a target FPIR of {100 * FPIR:g} %:")
    for kind in kinds:
        shares = [row for row in where(tables["open_set"], method=FACE, kind=kind) if ":" in row["measure"]]
        lines.append(f"  {kind:28s} " + ", ".join(f"{row['measure']} {_percent(row, 0)}" for row in shares))
    first = tables["candidates"][0]
    lines.append(
        f"\nCANDIDATE SETS that hold the right person in 95 % ({test.variants} variants of each drawing; τ from "
        f"{first['calibration']} val people, tested on {first['n']})"
    )
    lines += [_sets_line(tables, row) for row in where(tables["candidates"], measure="coverage")]
    lines.append("\nFAIRNESS: widest gaps between groups (all in gaps.csv, every figure by group in fairness.csv)")
    lines.append(f"  {fairness_summary(tables['gaps'])}")
    heads = [f"{figure}, {FACE} of {PENCIL}" for figure in ("rank-1", "FPIR", "size of the candidate set")]
    heads.append("rank-1, photo against photo")
    lines += [f"  {row['sentence']}" for row in tables["gaps"] if row["figure"] in heads]
    return "\n".join([*lines, "", WARNING]) + "\n"


def _open_line(tables: Tables, method: str, kind: str) -> str:
    cells = []
    for target in (0.01, FPIR):
        mine = where(tables["open_set"], method=method, kind=kind, target_fpir=target)
        rates = ", ".join(f"{m} {_percent(where(mine, measure=m)[0])}" for m in ("FPIR", "FNIR"))
        cells.append(f"for {100 * target:g} %: {rates}")
    bits = where(tables["calibration"], method=method, kind=kind)[0]
    calibrated = f"Cllr {bits['cllr_logistic']} bits (logistic), {bits['cllr_pav']} (PAV), least {bits['cllr_least']}"
    return f"  {kind + ', ' + method:28s} {'; '.join(cells)}; {calibrated}"


def _sets_line(tables: Tables, row: Mapping) -> str:
    size, control = (
        where(tables["candidates"], kind=row["kind"], sets=row["sets"], measure=m)[0] for m in ("mean size", "shuffled")
    )
    bounds = f"[{float(size['low']):.1f}, {float(size['high']):.1f}]"
    expected = f"{100 * float(row['expected_low']):.0f} to {100 * float(row['expected_high']):.0f} %"
    return (
        f"  {row['kind'] + ', ' + row['sets']:40s} mean size {float(size['value']):6.1f} {bounds}, median "
        f"{size['median']}, everybody {100 * float(size['everybody']):.0f} %; coverage {_percent(row, 0)} (expected "
        f"{expected}); of random people {_percent(control, 0)}"
    )


def fairness_summary(gaps: Rows) -> str:
    """How many gaps were tested, how many are beyond chance, and the widest of those in words."""
    tested = [row for row in gaps if row["figure"]]
    sure = [row for row in tested if float(row["corrected"]) < 0.05]
    naive = sum(float(row["p"]) < 0.05 for row in tested)
    text = f"{len(tested)} gaps were tested; {naive} have p < 0.05, where chance alone gives about "
    text += f"{0.05 * len(tested):.0f}; {len(sure)} remain after Holm's correction."
    shares = [row for row in sure if " %" in row["sentence"]]
    return text + (f" The widest: {max(shares, key=lambda row: float(row['value']))['sentence']}" if shares else "")


def figures(tables: Tables) -> dict[str, CourseFigure]:
    """The report's figures by name, from tables as :func:`read_tables` returns them."""
    kinds = [str(k) for k in dict.fromkeys(row["kind"] for row in tables["candidate_sets"])]
    memory = [k for k in kinds if k.startswith("recall")]
    drawn = [k for k in kinds if k not in memory]

    def curve(table: str, x: str, method: str, kind: str) -> tuple[list, list, list, list]:
        rows = where(tables[table], method=method, kind=kind)
        return tuple([float(row[k]) for row in rows] for k in (x, "value", "low", "high"))  # type: ignore[return-value]

    def several(table: str, x: str, keys: list[tuple[str, str]]) -> dict:
        return {(kind, method): curve(table, x, method, kind) for kind, method in keys}

    references = {("chance", "chance"): curve("cmc", "k", "chance", "chance")}
    photo = {(PHOTO, PHOTO): curve("cmc", "k", PHOTO, PHOTO)}
    out = {}
    panels = {"what is drawn": photo | several("cmc", "k", [(k, FACE) for k in drawn])
              | {("shuffled", "shuffled"): curve("cmc", "k", f"{FACE}, shuffled", PENCIL)} | references}  # fmt: skip
    if memory:
        panels["what is remembered"] = several("cmc", "k", [(k, FACE) for k in memory]) | references
    out["cmc"] = cmc_figure({k: _present(v) for k, v in panels.items()})
    shown = list(dict.fromkeys(drawn[:1] + drawn[-1:])) or kinds[:1]
    pairs = {k: several("cmc", "k", [(k, FACE), (k, MATCHER)]) | references for k in shown}
    out["matcher"] = cmc_figure({f"{k}: face or matcher": v for k, v in pairs.items()})
    det = {"what is drawn": _present({(PHOTO, PHOTO): curve("det", "fpir", PHOTO, PHOTO)}
                                     | several("det", "fpir", [(k, FACE) for k in drawn]))}  # fmt: skip
    if memory:
        det["what is remembered"] = several("det", "fpir", [(k, FACE) for k in memory])
    out["det"] = det_figure(det)
    out["sizes"] = sizes_figure(*_sizes(tables, kinds))
    out["fairness"] = groups_figure(*_groups(tables))
    return out


def _present(curves: dict) -> dict:
    """Only the curves that have points."""
    return {k: v for k, v in curves.items() if len(v[0])}


def _sizes(tables: Tables, kinds: list[str]) -> tuple[dict, int]:
    rows = {}
    for kind in kinds:
        sets = where(tables["candidate_sets"], kind=kind)
        mean, covered = (where(tables["candidates"], kind=kind, sets="variants", measure=m)[0]
                         for m in ("mean size", "coverage"))  # fmt: skip
        note = f"mean {float(mean['value']):.0f}, holds {100 * float(covered['value']):.0f} %"
        rows[kind] = [row["size"] for row in sets], [row["covered"] == 1 for row in sets], note
    return rows, int(max(row["k"] for row in tables["cmc"]))


def _groups(tables: Tables) -> tuple[dict, str, None, dict]:
    """rank-1 by group, of the photo and of the face of the first kind."""
    kind = next(row["kind"] for row in tables["candidate_sets"])
    names = {"photo against photo": "rank-1, photo against photo", f"face of {kind}": f"rank-1, {FACE} of {kind}"}
    panels: dict[str, dict] = {}
    overall = {}
    for title, name in names.items():
        for row in where(tables["fairness"], figure=name):
            value = tuple(100 * float(row[k]) for k in ("value", "low", "high"))
            if row["attribute"] == "everybody":
                overall[title] = value[0]
            else:
                panels.setdefault(title, {}).setdefault(row["attribute"], {})[row["group"]] = value
    return panels, "rank-1, %", None, overall
