"""Verifies a case: is it as it was written, and does its record produce its pictures?

Two machines do not sum floats in the same order, so a picture counts as the same when no pixel differs by more than
``MAX_DIFFERENCE`` and all of them by no more than ``MEAN_DIFFERENCE`` grey levels on average (of 255; a changed seed
changes both by far more: see tests/test_case.py). On the machine that made a case the files are equal to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from s2flib.case import making
from s2flib.case.archive import Case, Entry, read_case
from s2flib.case.steps import open_gallery, other_weights
from s2flib.errors import ImageError, S2FError, printable
from s2flib.runs import hardware, versions

MAX_DIFFERENCE, MEAN_DIFFERENCE = 8.0, 0.5  # grey levels
SIMILARITY = 0.01  # by which a line-up's similarities may differ


@dataclass(frozen=True)
class Check:
    """One regenerated picture: largest and mean absolute difference in grey levels; identical: byte for byte."""

    name: str
    largest: float
    mean: float
    identical: bool


@dataclass
class Replay:
    """problems: every difference found, one sentence each; checks: the pictures; notes: what else to know."""

    problems: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lineups: int = 0  # repeated
    allowed: tuple[float, float] = (MAX_DIFFERENCE, MEAN_DIFFERENCE)  # in one pixel, and on average; grey levels

    @property
    def verified(self) -> bool:
        return not self.problems


def verify_case(
    path: str | Path,
    weights: Path | None = None,  # the case's encoder and generator, if they are not the preset's
    generator: Path | None = None,
    gallery: Path | None = None,  # the folder of its line-ups
    lineups: bool = True,  # also repeat the line-ups
    head: str | None = None,  # the last entry's hash, as it was noted elsewhere
    max_difference: float = MAX_DIFFERENCE,
    mean_difference: float = MEAN_DIFFERENCE,
    progress: Callable[[str], None] = lambda line: None,
) -> Replay:
    """Check every hash of a case, make everything again from its recorded inputs, and compare.

    Raises S2FError when the file is no case, or when weights or a gallery that it needs are not given; everything that
    differs from the record is a problem in the result.
    """
    case, found = read_case(path), Replay(allowed=(max_difference, mean_difference))
    found.problems += case.problems()
    if head is not None and head.strip().lower() != case.head:
        found.problems.append(f"the last step's hash is {case.head}, not {head.strip()[:64]}: steps are missing or new")
    record_is_sound = not any(".json" in problem for problem in found.problems)
    drawing = making.field(case.first, "drawing", str)
    if not record_is_sound or drawing not in case.members:
        found.notes.append("nothing was made again, because the record itself was changed")
        return found
    preset = making.preset_of(case.first)
    if making.field(case.first, "own_weights", bool) and weights is None and generator is None:
        raise S2FError(f"{case.path} was made with other weights than the preset's: pass --weights and --generator.")
    model = making.load_model(preset, weights, generator)
    pipe: tuple[Any, dict[str, str]] | None = None
    for entry in case.entries:
        if entry.action == "new":
            if _same_weights(found, entry, model.weights):
                progress("generating the faces again")
                made, _, _ = making.faces(
                    case.members[drawing],
                    making.field(entry.data, "drawing_name", str),
                    model,
                    making.field(entry.data, "n", int),
                    making.field(entry.data, "seed", int),
                )
                _compare(found, case, entry, made)
        elif entry.action == "edit":
            pipe = pipe or making.pipeline(preset)
            source = making.field(entry.data, "source", str)
            if source not in case.members:
                found.problems.append(f"step {entry.index} edits {printable(source, 40)}, which is not in the case")
            elif _same_weights(found, entry, {"pipeline": pipe[1]}):
                progress(f"editing {source} again")
                words, options = making.field(entry.data, "instruction", str), _options(entry)
                try:
                    made, _, _ = making.edits(
                        case.members[source], source, words, options, preset, pipe[0], entry.index
                    )
                except ImageError as error:  # somebody replaced the picture
                    found.problems.append(f"step {entry.index}: {error}")
                    continue
                _compare(found, case, entry, made)
        elif entry.action == "lineup" and lineups:
            if _same_weights(found, entry, model.weights | {"judge": making.judge_record(preset)}):
                progress(f"repeating the line-up of step {entry.index}")
                _repeat_lineup(found, case, entry, model, gallery)
        _say_machine(found, entry)
    skipped = sum(entry.action == "lineup" for entry in case.entries) - found.lineups
    if skipped:
        found.notes.append(f"{skipped} line-up{'s were' if skipped > 1 else ' was'} not repeated")
    return found


def _options(entry: Entry) -> dict[str, Any]:
    """An edit's recorded options, checked: seed, guidance, image_guidance, steps."""
    options = making.field(entry.data, "options", dict)
    number = (int, float, type(None))
    return {
        "seed": making.field(options, "seed", int),
        "guidance": making.field(options, "guidance", number),
        "image_guidance": making.field(options, "image_guidance", number),
        "steps": making.field(options, "steps", (int, type(None))),
    }


def _same_weights(found: Replay, entry: Entry, weights: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether an entry was made with these weights; each other file is a problem."""
    other = other_weights(entry.data, weights)
    recorded = entry.data["weights"]
    for kind in other:
        was = recorded.get(kind)
        digest = printable(was.get("sha256", was.get("unet")))[:12] if isinstance(was, dict) else "nothing"
        now = weights[kind].get("sha256", weights[kind].get("unet", ""))[:12]
        found.problems.append(
            f"step {entry.index} was made with another {kind} (recorded {digest}…, here {now}…), so it was not repeated"
        )
    return not other


def _compare(found: Replay, case: Case, entry: Entry, made: dict[str, bytes]) -> None:
    """Compare the pictures of one step with those in the case."""
    expected = {name for name in entry.members if not name.startswith("drawing")}
    for name in sorted(expected | set(made)):
        if name not in made or name not in expected:
            there, here = ("in the case", "made again") if name in expected else ("made again", "in the case")
            found.problems.append(f"{name} is {there}, but not {here}")
            continue
        if name not in case.members:
            continue  # its absence is a problem already
        try:
            a, b = (making.picture(blob, name).astype(float) for blob in (case.members[name], made[name]))
        except ImageError as error:
            found.problems.append(str(error))
            continue
        if a.shape != b.shape:
            found.problems.append(
                f"{name} is {a.shape[1]}×{a.shape[0]} px, but its record makes {b.shape[1]}×{b.shape[0]}"
            )
            continue
        difference = np.abs(a - b)
        check = Check(name, float(difference.max()), float(difference.mean()), case.members[name] == made[name])
        found.checks.append(check)
        largest, mean = found.allowed
        if check.largest > largest or check.mean > mean:
            found.problems.append(
                f"{name} is not what its record makes (largest difference {check.largest:.0f}, mean {check.mean:.2f} "
                f"grey levels; {largest:g} and {mean:g} are allowed)"
            )


def _repeat_lineup(found: Replay, case: Case, entry: Entry, model: making.Model, folder: Path | None) -> None:
    """Run a line-up again: the same gallery, the same order of the first photos, similarities within SIMILARITY."""
    record = making.field(entry.data, "gallery", dict)
    probe = making.field(entry.data, "probe", str)
    if record.get("kind") == "folder" and folder is None:
        people = making.field(record, "people", int)
        raise S2FError(
            f"step {entry.index} of {case.path} compared with a folder of {people} people's photos: pass it with "
            "--gallery, or leave line-ups out with --no-lineups."
        )
    if probe not in case.members:
        found.problems.append(f"step {entry.index} compares {printable(probe, 40)}, which is not in the case")
        return
    gallery = open_gallery(record, folder, model.preset)
    found.lineups += 1
    if gallery.record["sha256"] != record.get("sha256"):
        found.problems.append(f"step {entry.index} was run on other photos than the gallery given now")
        return
    now = making.lineup(case.members[probe], probe, gallery, model)
    was = making.field(entry.data, "result", dict)
    for what, a, b in (
        ("the similarities", _numbers(was.get("top"), "similarity"), _numbers(now["top"], "similarity")),
        ("the shuffled control", *(_best(result) for result in (was, now))),
    ):
        if a is None or len(a) != len(b or []) or np.abs(np.subtract(a, b or [])).max(initial=0) > SIMILARITY:
            found.problems.append(f"step {entry.index}: {what} of the line-up differ by more than {SIMILARITY:g}")
    first = [result["top"][0].get("photo") if isinstance(result.get("top"), list) else None for result in (was, now)]
    margin = now["top"][0]["similarity"] - now["top"][1]["similarity"]
    if first[0] != first[1] and margin > SIMILARITY:
        found.problems.append(
            f"step {entry.index}: the most similar photo is {first[1]}, not {printable(first[0], 60)}"
        )
    if was.get("photo_against_photo") != now["photo_against_photo"] or was.get("chance") != now["chance"]:
        found.problems.append(f"step {entry.index}: chance or photo against photo differ from the record")


def _numbers(rows: Any, key: str) -> list[float] | None:
    if not isinstance(rows, list) or not all(isinstance(r, dict) and isinstance(r.get(key), float) for r in rows):
        return None
    return [r[key] for r in rows]


def _best(result: Mapping[str, Any]) -> list[float] | None:
    shuffled = result.get("shuffled")
    values = shuffled.get("best_similarities") if isinstance(shuffled, dict) else None
    fine = isinstance(values, list) and all(isinstance(v, float) for v in values)
    return list(values) if fine and isinstance(values, list) else None


def _say_machine(found: Replay, entry: Entry) -> None:
    """A note when a step was made on another machine (also with other threads) or with other versions."""
    here = {"versions": versions(), "hardware": hardware()}
    other = [key for key, now in here.items() if key in entry.data and entry.data[key] != now]
    if other:
        found.notes.append(
            f"step {entry.index} was made with other {' and '.join(other)}: equal bytes are not expected"
        )
