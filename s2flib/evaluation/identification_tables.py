"""The tables of the forensic evaluation (identification.py): rows of plain values, one CSV each.

Scores come as {(method, kind): (n, R, G)} for val and for test people. Thresholds, calibrations and candidate sets are
fitted on val people and measured on test people. Every row has a value, its 95 % interval over people (low, high; empty
where there is none), n drawings and people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from s2flib.evaluation import candidates, cmc, fairness, open_set
from s2flib.evaluation.intervals import Interval
from s2flib.evaluation.lineup import KS
from s2flib.evaluation.probes import PENCIL, PERFECT, Probes

FACE, MATCHER, BOTH, PHOTO = "face", "matcher", "both", "photo"
SPLITS = ("val", "test")
CURVE = tuple(sorted({*range(1, 21), *np.geomspace(21, 2000, 30).astype(int).tolist()}))  # the k of cmc.csv
FPIR = 0.1  # the operating point of outcomes and of fairness
PERMUTATIONS = 10_000
Rows = list[dict[str, Any]]
Tables = dict[str, Rows]
Scores = dict[tuple[str, str], np.ndarray]  # (method, kind) → (n, R, G)


def measure(
    scores: Mapping[str, Scores], probes: Mapping[str, Probes], seed: int = 0
) -> tuple[Tables, dict[str, np.ndarray]]:
    """All tables from the scores and probes of both splits, and arrays of single searches: ``test/METHOD/KIND/rank``,
    ``mate`` and ``top`` (see open_set.Searches), ``val/METHOD/KIND/top`` and each person's ``group/ATTRIBUTE``."""
    ranks = {key: cmc.ranks(x) for key, x in scores["test"].items()}
    tables: Tables = {}
    tables["ranks"], tables["cmc"] = _closed(scores["test"], ranks, seed)
    tables["paired"] = _paired(ranks)
    tables["fusion"] = _fusion(probes["test"])
    searches = {split: {key: open_set.searches(x) for key, x in scores[split].items()} for split in SPLITS}
    tables["calibration"] = _calibration(scores)
    llr = {(row["method"], row["kind"]): (float(row["slope"]), float(row["offset"])) for row in tables["calibration"]}
    tables["open_set"], tables["det"] = _open(searches, llr)
    tables["candidates"], tables["candidate_sets"] = _candidates(scores["val"], probes)
    tables["fairness"], tables["gaps"] = _fairness(probes["test"], ranks, searches, tables["candidate_sets"], seed)
    per_probe: dict[str, np.ndarray] = {}
    for method, kind in ranks:
        if method != BOTH:
            stem, s = f"test/{method}/{kind}", searches["test"][method, kind]
            per_probe[f"{stem}/rank"] = s.rank.astype(np.uint16)
            per_probe |= {f"{stem}/{k}": getattr(s, k).astype(np.float32) for k in ("mate", "top")}
            per_probe[f"val/{method}/{kind}/top"] = searches["val"][method, kind].top.astype(np.float32)
    per_probe |= {f"group/{k}": v for k, v in fairness.groups(probes["test"].attributes).items()}
    return tables, per_probe


def _cells(value: Interval, scale: float = 1.0) -> dict[str, Any]:
    """value, low, high, n and people of an interval as a row's cells; no bounds: empty."""

    def cell(x: float) -> str:
        return "" if not np.isfinite(x) else f"{scale * x:.5g}"

    return {"value": cell(value.value), "low": cell(value.low), "high": cell(value.high), "n": value.n,
            "people": value.n_identities}  # fmt: skip


_ROW = ("value", "low", "high", "n", "people")


def _or_empty(rows: Rows, columns: tuple[str, ...]) -> Rows:
    """The rows; without any, one with empty cells, so that the file still has its header."""
    return rows or [dict.fromkeys(columns, "")]


def _closed(scores: Scores, ranks: Mapping, seed: int) -> tuple[Rows, Rows]:
    """rank-1/5/10 and CMC curves of every method and kind, the shuffled control of each face, and chance."""
    gallery = next(iter(scores.values())).shape[2]
    curves = {key: cmc.cmc(rank, gallery) for key, rank in ranks.items()}
    for (method, kind), x in scores.items():
        if method != PHOTO:
            curves[f"{method}, shuffled", kind] = cmc.cmc(cmc.shuffled_ranks(x, seed), gallery)
    guess = cmc.chance(gallery)
    curves["chance", "chance"] = cmc.Cmc(guess, guess * np.nan, guess * np.nan, 0, 0)
    short = [k for k in KS if k <= gallery]
    table = [{"method": m, "kind": k, "rank": n, **_cells(c.at(n))} for (m, k), c in curves.items() for n in short]
    shown = sorted({k for k in CURVE if k < gallery} | {gallery})
    lines = [{"method": m, "kind": k, "k": n, **_cells(c.at(n))} for (m, k), c in curves.items() for n in shown
             if m in (FACE, MATCHER, PHOTO, "chance") or (m, k) == (f"{FACE}, shuffled", PENCIL)]  # fmt: skip
    return table, lines


def _paired(ranks: Mapping) -> Rows:
    """Paired differences: the matcher and both against the face; every kind against the first one, by the face."""
    kinds = [k for m, k in ranks if m == FACE]
    pairs = [((FACE, k), (other, k)) for k in kinds for other in (MATCHER, BOTH)]
    pairs += [((MATCHER, k), (BOTH, k)) for k in kinds]
    for first, others in ((PENCIL, "line"), (PERFECT, "recall")):
        if first in kinds:
            pairs += [((FACE, first), (FACE, k)) for k in kinds if k.startswith(others) and k != first]
    rows = []
    for one, other in pairs:
        people = min(len(ranks[one]), len(ranks[other]))
        for k in KS:
            d = cmc.paired(ranks[one][:people], ranks[other][:people], k)
            said = cmc.verdict(f"{other[0]} of {other[1]}", f"{one[0]} of {one[1]}", k, d)
            rows.append({"one": ", ".join(one), "other": ", ".join(other), "rank": k, **_cells(d), "verdict": said})
    return rows


def _fusion(probes: Probes) -> Rows:
    """Several drawings of a person fused, against one of them chosen at random."""
    several: dict[str, np.ndarray] = {}
    hands = [kind.embedding for name, kind in probes.kinds.items() if name.startswith("line")]
    if len(hands) > 1:
        several[f"{len(hands)} composites: line drawings by each hand"] = np.concatenate(hands, axis=1)
    for name, kind in probes.kinds.items():
        number = kind.embedding.shape[1]
        what = "composites: pencil sketches of other photos" if name == PENCIL else f"witnesses: {name}"
        if number > 1:
            several[f"{number} {what}"] = kind.embedding
    rows = []
    for what, embedding in several.items():
        one = cmc.ranks(cmc.cosines(embedding, probes.gallery))
        scores = cmc.fused(embedding, probes.gallery)
        found: dict[str, np.ndarray] = {"one alone": one} | {name: cmc.ranks(x) for name, x in scores.items()}
        for name, rank in found.items():
            curve = cmc.cmc(rank, len(probes.gallery))
            for k in (k for k in KS if k <= len(probes.gallery)):
                d = cmc.paired(one, rank, k)
                apart = {"difference": d.value, "difference_low": d.low, "difference_high": d.high}
                row = {"what": what, "fusion": name, "rank": k, **_cells(curve.at(k))}
                row |= {c: f"{v:.5g}" for c, v in apart.items()} | {"verdict": cmc.verdict(name, "one", k, d)}
                rows.append(row if rank is not one else row | dict.fromkeys((*apart, "verdict"), ""))
    return _or_empty(rows, (*_ROW, "what", "fusion", "rank", "difference", "verdict"))


def _open(searches: Mapping, llr: Mapping[tuple[str, str], tuple[float, float]]) -> tuple[Rows, Rows]:
    """FPIR and FNIR on test at thresholds chosen on val, as scores and as LLRs (llr: slope and offset); outcomes at one
    of them; DET curves of test."""
    table, lines = [], []
    for key, test in searches["test"].items():
        name = {"method": key[0], "kind": key[1]}
        for target in open_set.FPIRS:
            at = searches["val"][key].threshold(target)
            base = name | {"target_fpir": target, "threshold": f"{at:.6g}"}
            base["threshold_llr"] = f"{llr[key][0] * at + llr[key][1]:.4g}"
            table.append(base | {"measure": "FPIR", **_cells(test.fpir(at))})
            table.append(base | {"measure": "FNIR", **_cells(test.fnir(at))})
            if target == FPIR:
                table += [base | {"measure": m, **_cells(v)} for m, v in test.outcomes(at).items()]
        n = test.top.size
        grid = np.unique(np.concatenate([np.geomspace(max(0.003, 1 / n), 1, 30), open_set.FPIRS]))
        curve = open_set.det(test, grid)
        for f, value, low, high in zip(curve.fpir, curve.fnir, curve.low, curve.high, strict=True):
            lines.append(name | {"fpir": f"{f:.5g}", **_cells(Interval(value, low, high, n, len(test.mate)))})
    return table, lines


def _calibration(scores: Mapping[str, Scores]) -> Rows:
    """Calibrations fitted on val, and their Cllr on test; ``least`` is PAV fitted on test itself."""
    rows = []
    for (method, kind), test in scores["test"].items():
        val, pairs = open_set.pair_scores(scores["val"][method, kind]), open_set.pair_scores(test)
        logistic = open_set.fit_logistic(*val)
        fits = {"logistic": logistic, "pav": open_set.fit_pav(*val), "least": open_set.fit_pav(*pairs)}
        row: dict[str, Any] = {"method": method, "kind": kind, "slope": f"{logistic.slope:.6g}"}
        row |= {"offset": f"{logistic.offset:.6g}"}
        row |= {f"cllr_{name}": f"{open_set.cllr(fit(pairs[0]), fit(pairs[1])):.4f}" for name, fit in fits.items()}
        rows.append(row | {"mated": len(pairs[0]), "non_mated": len(pairs[1])})
    return rows


def _slope(val: Scores, kind: str, n: int) -> float:
    """The votes' slope for a kind: of pencil sketches for recall kinds; fitted on val people who do not calibrate the
    sets, if there are 30 of them."""
    base = PENCIL if kind.startswith("recall") and (FACE, PENCIL) in val else kind
    x = val[FACE, base]
    first = n if len(x) - n >= 30 else 0
    return candidates.fit_slope(x[first:], np.arange(first, len(x)))


def _candidates(val: Scores, probes: Mapping[str, Probes]) -> tuple[Rows, Rows]:
    """Candidate sets of every kind: of the variants, of the reconstruction alone, lists of fixed length, and with τ of
    perfect memory; and the variants' set of each person."""
    shares: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    slopes = {name: _slope(val, name, len(k.variants)) for name, k in probes["val"].kinds.items()}
    for split in SPLITS:
        for name, kind in probes[split].kinds.items():
            for how, v in (("variants", kind.variants), ("reconstruction", kind.variants[:, :1])):
                shares.setdefault((how, name), {})[split] = candidates.votes(v, probes[split].gallery, slopes[name])
    rows, members = [], []
    perfect = next((k for k in (PENCIL, PERFECT) if ("variants", k) in shares), None)  # the same drawings
    for (how, name), of in shares.items():
        sets = {how: candidates.calibrated_sets(of["val"], of["test"])}
        if how == "variants":
            sets["fixed list"] = candidates.fixed_lists(of["val"], of["test"])
            if perfect and name not in (PENCIL, PERFECT):
                sets["τ of perfect memory"] = candidates.calibrated_sets(shares[how, perfect]["val"], of["test"])
            found = zip(
                probes["test"].identity, sets[how].size, sets[how].covered, np.diagonal(of["test"]), strict=False
            )
            members += [
                {"kind": name, "identity": int(who), "size": int(size), "covered": int(inside), "votes": f"{own:.4g}"}
                for who, size, inside, own in found
            ]
        for label, s in sets.items():
            base = {"kind": name, "sets": label, "slope": f"{slopes[name]:.5g}"}
            rows += [base | row for row in _set_rows(s)]
    return rows, members


def _set_rows(s: candidates.CandidateSets) -> Rows:
    """Coverage, mean size and the shuffled control of some sets."""
    low, high = s.expected
    more = {
        "expected_low": f"{low:.4g}",
        "expected_high": f"{high:.4g}",
        "median": f"{np.median(s.size):g}",
        "everybody": f"{(s.size == s.gallery).mean():.4g}",
        "threshold": f"{s.threshold:.5g}",
        "calibration": len(s.own[0]),
    }
    values = {"coverage": s.coverage, "mean size": s.mean_size, "shuffled": s.shuffled}
    return [{"measure": measure, **_cells(value), **more} for measure, value in values.items()]


def _fairness(probes: Probes, ranks: Mapping, searches: Mapping, members: Rows, seed: int) -> tuple[Rows, Rows]:
    """Every figure by group, and the widest gaps."""
    figures = []
    for (method, kind), rank in ranks.items():
        if method == BOTH:
            continue
        what = "photo against photo" if method == PHOTO else f"{method} of {kind}"
        figures += [fairness.Figure(f"rank-{k}, {what}", (rank <= k).mean(axis=1)) for k in (1, 10)]
        if method == FACE:
            test, at = searches["test"][method, kind], searches["val"][method, kind].threshold(FPIR)
            missed = (test.found() < at).mean(axis=1)
            mine = [row for row in members if row["kind"] == kind]
            sizes, covered = (np.array([row[k] for row in mine], float) for k in ("size", "covered"))
            figures += [
                fairness.Figure(f"FNIR, {what}", missed, higher=False),
                fairness.Figure(f"FPIR, {what}", (test.top >= at).mean(axis=1), higher=False),
                fairness.Figure(f"similarity, {what}", test.mate.mean(axis=1), percent=False),
                fairness.Figure(f"coverage of the candidate set, {what}", covered),
                fairness.Figure(f"size of the candidate set, {what}", sizes, higher=False, percent=False),
            ]
    labels = fairness.groups(probes.attributes)
    rows = []
    for f in figures:
        everybody = cmc.mean_interval(f.values)
        rows.append({"figure": f.name, "attribute": "everybody", "group": "everybody", **_cells(everybody)})
        for attribute, names in labels.items():
            for group, value in fairness.by_group(f, names[: len(f.values)]).items():
                rows.append({"figure": f.name, "attribute": attribute, "group": group, **_cells(value)})
    gaps = []
    for g in fairness.widest_gaps(figures, labels, PERMUTATIONS, seed):
        row = {"figure": g.figure.name, "attribute": g.attribute, "best": g.best, "worst": g.worst}
        row |= _cells(g.difference) | {"p": f"{g.p:.4g}", "corrected": f"{g.corrected:.4g}", "sentence": g.sentence}
        gaps.append(row)
    return rows, _or_empty(gaps, ("figure", "attribute", "best", "worst", *_ROW, "p", "corrected", "sentence"))
