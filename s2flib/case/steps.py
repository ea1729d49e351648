"""The steps of a case, each one entry: new, choose, edit, lineup. A step is written whole, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import s2flib
from s2flib.case import making
from s2flib.case.archive import FORMAT, MAX_MEMBER, SUFFIX, VERSION, Case, add, load_case, locked
from s2flib.case.statement import statement
from s2flib.errors import S2FError
from s2flib.images import SUFFIXES
from s2flib.presets import Preset, get_preset
from s2flib.runs import check_seed

MAX_TEXT = 2000  # characters of a reason, an instruction or a name
Say = Callable[[str], None]


def new_case(
    drawing: str | Path,  # an image file
    out: str | Path,  # FILE.s2fcase, which must not exist
    preset: str | Preset = "tiny",
    n: int = 4,  # faces
    seed: int = 0,
    weights: Path | None = None,  # another encoder for this preset
    generator: Path | None = None,  # the generator it was trained with, if not the preset's
    who: str | None = None,  # who works on the case, free text
    progress: Say = lambda line: None,
) -> Case:
    """Generate ``n`` faces for a drawing and store drawing and faces in a new case; S2FError."""
    drawing, out, preset = Path(drawing), Path(out), get_preset(preset)
    if out.suffix != SUFFIX:
        raise S2FError(f"{out} is no name for a case: let it end in {SUFFIX}.")
    check_seed(seed)
    making.check_count(n)
    who = _text(who, "the name") if who else None
    name = _text(drawing.name, "the drawing's name")
    making.prepared(blob := _read(drawing), str(drawing), preset)  # an unusable one is an error before all else
    with locked(out, new=True):
        model = making.load_model(preset, weights, generator)
        progress(f"generating {n} face{'s' * (n > 1)}")
        pictures, notes, distance = making.faces(blob, name, model, n, seed)
        suffix = drawing.suffix.lower() if drawing.suffix.lower() in SUFFIXES else ".img"
        data = {
            "format": FORMAT,
            "version": VERSION,
            "software": f"s2flib {s2flib.__version__}",
            "preset": preset.name,
            "label": preset.label,
            "n": n,
            "seed": seed,
            "drawing": f"drawing{suffix}",
            "drawing_name": name,
            "drawing_sha256": hashlib.sha256(blob).hexdigest(),
            "own_weights": weights is not None or generator is not None,
            "weights": model.weights,
            "notes": notes,
            "input_distance": distance,
            "statement": statement(preset),
            **making.made_with(),
        }
        return add(out, None, "new", data, {f"drawing{suffix}": blob, **pictures}, who)


def choose_face(
    path: str | Path,
    face: int,  # its number, from 1
    reason: str,
    rejected: Mapping[int, str] | None = None,  # number → why; every other face is rejected without a reason
    who: str | None = None,
) -> Case:
    """Record which face was chosen, which were rejected, and why. The choice may be made again: each is recorded."""
    path = Path(path)
    who = _text(who, "the name") if who else None
    if not reason.strip():
        raise S2FError("a choice needs a reason: say why this face and no other, such as --reason 'the narrow chin'.")
    reason = _text(reason, "the reason")
    with locked(path):
        case = load_case(path)
        count = len(faces_of(case))
        why = dict(rejected or {})
        for number in (face, *why):
            if not 1 <= number <= count:
                raise S2FError(f"{path} has no face {number}: choose one from 1 to {count}.")
        if face in why:
            raise S2FError(f"face {face} cannot be both chosen and rejected: name it once.")
        others = {
            name: _text(why.get(i, ""), "a reason") for i, name in enumerate(faces_of(case), start=1) if i != face
        }
        data = {"face": f"faces/{face:02d}.png", "reason": reason, "rejected": others}
        return add(path, case, "choose", data, {}, who)


def edit_face(
    path: str | Path,
    words: str,
    seed: int = 0,
    guidance: float | None = None,  # None, here and below: the preset's
    image_guidance: float | None = None,
    steps: int | None = None,
    who: str | None = None,
    progress: Say = lambda line: None,
) -> Case:
    """Edit the case's current face by text; it is the last edit's result, or else the face chosen last."""
    path = Path(path)
    check_seed(seed)
    who = _text(who, "the name") if who else None
    words = _text(words, "the instruction")
    with locked(path):
        case = load_case(path)
        source, preset = current(case), making.preset_of(case.first)
        pipe, record = making.pipeline(preset)
        progress(f"editing {source}")
        options = {"seed": seed, "guidance": guidance, "image_guidance": image_guidance, "steps": steps}
        step = len(case.entries)
        pictures, wishes, notes = making.edits(case.members[source], source, words, options, preset, pipe, step)
        data = {"source": source, "instruction": words, "wishes": wishes, "options": options, "notes": notes}
        data |= {
            "settings": making.edit_settings(options, preset),
            "weights": {"pipeline": record},
            **making.made_with(),
        }
        return add(path, case, "edit", data, pictures, who)


def run_lineup(
    path: str | Path,
    gallery: Path | None = None,  # a folder of photos
    split: str | None = None,  # or a split of the preset's data set; neither: test
    limit: int | None = None,  # only the first photos of the split
    weights: Path | None = None,  # the case's encoder and generator, if they are not the preset's
    generator: Path | None = None,
    who: str | None = None,
    progress: Say = lambda line: None,
) -> Case:
    """Compare the case's current face with a gallery, with the controls of :func:`making.lineup`."""
    path = Path(path)
    who = _text(who, "the name") if who else None
    if gallery is not None and (split is not None or limit is not None):
        raise S2FError("a line-up has one gallery: give either a folder of photos, or a split (and its limit).")
    with locked(path):
        case = load_case(path)
        probe, preset = current(case), making.preset_of(case.first)
        model = case_model(case, weights, generator)
        progress("reading the gallery")
        people = open_gallery({"kind": "folder" if gallery else "split", "name": split or "test", "limit": limit},
                              gallery, preset)  # fmt: skip
        progress(f"comparing {probe} with {len(people.photos)} people")
        data = {
            "probe": probe,
            "gallery": people.record,
            "result": making.lineup(case.members[probe], probe, people, model),
        }
        data |= {"weights": {**model.weights, "judge": making.judge_record(preset)}, **making.made_with()}
        return add(path, case, "lineup", data, {}, who)


def open_gallery(record: Mapping[str, Any], folder: Path | None, preset: Preset) -> making.Gallery:
    """The gallery of a line-up's record; folder: where its photos are, for one of the kind "folder"."""
    if making.field(record, "kind", str) == "folder":
        assert folder is not None
        return making.folder_gallery(folder, preset)
    return making.split_gallery(
        making.field(record, "name", str), making.field(record, "limit", (int, type(None))), preset
    )


def case_model(case: Case, weights: Path | None, generator: Path | None) -> making.Model:
    """The model that a case was made with; S2FError when these weights are others."""
    model = making.load_model(making.preset_of(case.first), weights, generator)
    other = other_weights(case.first, model.weights)
    if other:
        raise S2FError(
            f"{case.path} was made with another {other[0]}: pass --weights and --generator as for s2f case new."
        )
    return model


def other_weights(data: Mapping[str, Any], found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The kinds of weights (encoder, generator, judge, pipeline) in which an entry's record differs from ``found``."""
    recorded = making.field(data, "weights", dict)
    return [kind for kind, weights in found.items() if recorded.get(kind) != dict(weights)]


def faces_of(case: Case) -> list[str]:
    """The variants' members, in order."""
    return sorted(name for name in case.entries[0].members if name.startswith("faces/"))


def current(case: Case) -> str:
    """The member that the next step works on; S2FError when no face has been chosen yet."""
    for entry in reversed(case.entries):
        if entry.action == "edit" and entry.members:
            return sorted(entry.members)[-1]
        if entry.action == "choose":
            face = making.field(entry.data, "face", str)
            if face in case.members:
                return face
    raise S2FError(f"no face of {case.path} has been chosen yet: run s2f case choose {case.path.name} I --reason TEXT.")


def _read(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_MEMBER:
            raise S2FError(
                f"{path} has {size:,} bytes, more than the {MAX_MEMBER >> 20} MB of a case: save it smaller."
            )
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise S2FError(f"{path}: {reason}: choose an image file of a drawing.") from None


def _text(text: str, what: str) -> str:
    """A text as it is stored, of at most MAX_TEXT characters; bytes that are no UTF-8 (of a file name) become ?."""
    if len(text) > MAX_TEXT:
        raise S2FError(f"{what} has {len(text):,} characters: use at most {MAX_TEXT:,}.")
    return text.encode("utf-8", "replace").decode("utf-8")
