"""The line-up: can a face generated from a sketch identify its person among others?

For each test sketch (the probe) the output is compared, by the measuring identity network, with a gallery of one photo
of every test person. The right person's photo is a *different shot* than the sketch's source photo, with other light,
pose and expression, so that copying the photo's pixels does not help. rank-k is the share of probes whose person is
among the k most similar (closed-set identification, as in Klare et al., "Matching Forensic Sketches to Mug Shot
Photos", IEEE TPAMI 33(3), 2011). It is always reported with the photo itself as a probe (ceiling), the outputs assigned
to the wrong people (shuffled control) and chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from s2flib.errors import DataError
from s2flib.evaluation.evaluate import Predictor, batches, embed_photos, pool
from s2flib.evaluation.intervals import Interval, bootstrap_mean
from s2flib.evaluation.scores import Comparison, Scores, compare_values
from s2flib.judges.load import identity_judge
from s2flib.presets import Preset, get_preset

KS = (1, 5, 10)


@dataclass(frozen=True)
class Ranks:
    """rank (N,): the right person's 1-based rank for each probe; identity (N,); gallery: the number of people."""

    rank: np.ndarray
    identity: np.ndarray
    gallery: int

    def rate(self, k: int) -> Interval:
        """rank-k, with its 95 % bootstrap interval over people."""
        return bootstrap_mean(self.rank <= k, self.identity)

    def rates(self) -> dict[int, Interval]:
        return {k: self.rate(k) for k in KS}


def compare_ranks(a: Sequence[Ranks], b: Sequence[Ranks], k: int, name: str = "b") -> Comparison:
    """Does b's rank-k differ from a's? Both are one Ranks per seed, of the same probes; see scores.compare_paired."""
    if len(a) != len(b) or not a or any((x.identity != a[0].identity).any() for x in (*a, *b)):
        raise DataError("ranks are compared seed by seed on the same probes: use the same seeds and people.")
    delta = np.stack([(y.rank <= k) * 1.0 - (x.rank <= k) for x, y in zip(a, b, strict=True)])  # (S,P)
    return compare_values(delta, a[0].identity, f"rank{k}", f"rank-{k}", name)


@dataclass(frozen=True)
class Chance:
    """Guessing: rank-k is k / gallery exactly, so it has no interval (NaN)."""

    gallery: int

    def rate(self, k: int) -> Interval:
        return Interval(min(k / self.gallery, 1.0), np.nan, np.nan, 0, 0)

    def rates(self) -> dict[int, Interval]:
        return {k: self.rate(k) for k in KS}


def rank_probes(probe: np.ndarray, probe_ids: np.ndarray, gallery: np.ndarray, gallery_ids: np.ndarray) -> Ranks:
    """Rank of the right person by cosine. probe (N,d), gallery (G,d); a person's most similar photo counts.

    Ties count against the probe, so that an output that resembles nobody in particular gets no credit. DataError when a
    probe's person is not in the gallery.
    """
    probe, gallery = (_unit(x) for x in (probe, gallery))
    people, column = np.unique(np.asarray(gallery_ids), return_inverse=True)
    probe_ids = np.asarray(probe_ids)
    missing = np.setdiff1d(probe_ids, people)
    if len(missing):
        raise DataError(f"identity {missing[0]} is not in the gallery: add a photo of every probe's person.")
    order = np.argsort(column, kind="stable")
    starts = np.searchsorted(column[order], np.arange(len(people)))
    truth = np.searchsorted(people, probe_ids)
    rank = np.empty(len(probe), np.int64)
    for s in range(0, len(probe), 1024):  # (1024,G) at a time
        similarity = (probe[s : s + 1024] @ gallery.T)[:, order]
        similarity = np.maximum.reduceat(similarity, starts, axis=1)  # (1024,people)
        own = similarity[np.arange(len(similarity)), truth[s : s + 1024]][:, None]
        rank[s : s + 1024] = (similarity >= own).sum(axis=1)  # itself included: the best is rank 1
    return Ranks(rank, probe_ids, len(people))


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise DataError("embeddings must be an (N, d) array of finite numbers: check whether the network diverged.")
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Lineup:
    """Ranks of the output, of the photo itself (ceiling), of others' output (shuffled), and chance.

    probes (P,): indices into the data set; sketches of a person without a second shot are not probes and are counted in
    ``skipped``. gallery_of (P,G): the gallery's data set indices, most similar first.
    """

    output: Ranks
    ceiling: Ranks
    shuffled: Ranks
    chance: Chance
    probes: np.ndarray
    gallery_of: np.ndarray
    skipped: int
    same_shot: bool

    def rows(self, name: str = "output") -> dict[str, Ranks | Chance]:
        """For table1(ranks=…): the output's row and the three reference rows."""
        return {
            name: self.output,
            "photo against photo (ceiling)": self.ceiling,
            "shuffled people (control)": self.shuffled,
            "chance": self.chance,
        }

    def text(self) -> str:
        lines = [
            f"line-up of {self.output.gallery} people, {len(self.probes)} probes, "
            f"{'the same' if self.same_shot else 'a different'} shot in the gallery"
        ]
        for name, ranks in self.rows().items():
            cells = []
            for k, r in ranks.rates().items():
                interval = "" if np.isnan(r.low) else f" [{100 * r.low:.1f}, {100 * r.high:.1f}]"
                cells.append(f"rank-{k} {100 * r.value:5.1f} %{interval}")
            lines.append(f"  {name:30s} " + "   ".join(cells))
        return "\n".join(lines)


def lineup(
    predict: Predictor | Scores,
    dataset,
    preset: str | Preset,
    judge=None,
    same_shot: bool = False,
    photo_embeddings: np.ndarray | None = None,
    batch: int = 16,
    device: str = "cpu",
    seed: int = 0,
    progress: bool = False,
) -> Lineup:
    """Run the line-up over a whole data set (one split).

    predict: a Predictor, or Scores of the same data set, whose embeddings are reused. same_shot: the gallery contains
    the sketch's source photo (easier; shows how much information the pixels leak). photo_embeddings (N,d):
    :func:`evaluation.embed_photos`. seed: of the shuffled control, which assigns every probe another person's output.
    """
    preset = get_preset(preset)
    identities, names = np.asarray(dataset.identities), np.asarray(dataset.names)
    if judge is None and (photo_embeddings is None or not isinstance(predict, Scores)):
        judge = identity_judge(preset, role="measure").to(device)
    photos = (
        embed_photos(dataset, judge, preset, batch, device, progress)
        if photo_embeddings is None
        else np.asarray(photo_embeddings)
    )
    if isinstance(predict, Scores):
        if list(predict.name) != list(names) or len(predict.embedding) != len(names):
            raise DataError("these scores are not of this data set or lack embeddings: evaluate again.")
        outputs = predict.embedding
    else:
        outputs = _embed_outputs(predict, dataset, judge, preset, batch, device, progress)
    galleries, probes = gallery_indices(identities, names, same_shot)  # shot → (G,) ; (P,)
    shot = shots(identities, names)
    wrong = derangement(identities[probes], np.random.default_rng(seed))
    order_of, ranks = np.empty((len(probes), len(set(identities))), np.int64), {}
    for kind, embedding in (
        ("output", outputs[probes]),
        ("ceiling", photos[probes]),
        ("shuffled", outputs[probes][wrong]),
    ):
        rank = np.empty(len(probes), np.int64)
        for s in np.unique(shot[probes]):
            who, gallery = np.flatnonzero(shot[probes] == s), galleries[s]
            rank[who] = rank_probes(embedding[who], identities[probes][who], photos[gallery], identities[gallery]).rank
            if kind == "output":
                similar = _unit(embedding[who]) @ _unit(photos[gallery]).T
                order_of[who] = gallery[np.argsort(-similar, axis=1, kind="stable")]
        ranks[kind] = Ranks(rank, identities[probes], order_of.shape[1])
    return Lineup(
        ranks["output"],
        ranks["ceiling"],
        ranks["shuffled"],
        Chance(order_of.shape[1]),
        probes,
        order_of,
        len(names) - len(probes),
        same_shot,
    )


def shots(identities: np.ndarray, names: np.ndarray) -> np.ndarray:
    """(N,) the number 0, 1, 2 … of each photo among its person's photos, in the order of their names."""
    out = np.empty(len(names), np.int64)
    for person in np.unique(identities):
        own = np.flatnonzero(identities == person)
        out[own[np.argsort(np.asarray(names)[own], kind="stable")]] = np.arange(len(own))
    return out


def gallery_indices(
    identities: np.ndarray, names: np.ndarray, same_shot: bool = False
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """({probe's shot: (G,) one photo of every person}, (P,) probes), as indices into the data set.

    A probe of shot s is compared with every person's shot s + 1 (modulo that person's number of shots), chosen the same
    way for right and wrong people. People with one photo are in the gallery but cannot be probes.
    """
    identities = np.asarray(identities)
    shot = shots(identities, names)
    people = [np.flatnonzero(identities == p) for p in np.unique(identities)]
    people = [own[np.argsort(shot[own])] for own in people]
    step = 0 if same_shot else 1
    galleries = {int(s): np.array([own[(s + step) % len(own)] for own in people]) for s in np.unique(shot)}
    counts = {int(identities[own[0]]): len(own) for own in people}
    probes = np.flatnonzero([same_shot or counts[int(i)] > 1 for i in identities])
    if len(people) < 2 or len(probes) == 0:
        raise DataError(
            "a line-up needs at least two people with two photos each: use a larger split, or same_shot=True."
        )
    return galleries, probes


def derangement(identities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(P,) for every probe, the index of a random probe of another person."""
    return np.array([rng.choice(np.flatnonzero(identities != who)) for who in identities])


def _outputs(predict: Predictor, items: list[dict], device: str = "cpu") -> torch.Tensor:
    keys = ("sketch", "photo") if getattr(predict, "needs_photo", False) else ("sketch",)
    return predict(*(torch.stack([item[k] for item in items]).to(device) for k in keys))


def _embed_outputs(predict, dataset, judge, preset: Preset, batch: int, device: str, progress: bool) -> np.ndarray:
    parts = []
    with torch.inference_mode():
        for items in batches(dataset, batch, progress, "line-up"):
            output = pool(_outputs(predict, items, device).to(device).float(), preset.eval_size)
            parts.append(judge.embed(output).float().cpu().numpy())
    return np.concatenate(parts)


def lineup_examples(result: Lineup, predict: Predictor, dataset, probes: Sequence[int], k: int = 5) -> list[dict]:
    """For plotting.lineup_figure: sketch, output and the k most similar photos of some probes (indices into
    ``result.probes``)."""
    examples = []
    for p in probes:
        item = dataset[int(result.probes[p])]
        with torch.inference_mode():
            output = _outputs(predict, [item])[0]
        shown = [dataset[int(i)] for i in result.gallery_of[p, :k]]
        correct = [j for j, other in enumerate(shown) if other["identity"] == item["identity"]]
        examples.append(
            {
                "sketch": item["sketch"],
                "output": output,
                "gallery": [s["photo"] for s in shown],
                "correct": correct[0] if correct else None,
                "rank": int(result.output.rank[p]),
            }
        )
    return examples
