"""Edit pairs: the same person, shot, light and streams before and after one or two changes, with the instruction and
the mask of what may change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation

from s2flib.errors import S2FError
from s2flib.files import read_toml
from s2flib.synthfaces import phrases
from s2flib.synthfaces.colours import HAIR, IRIS, linear
from s2flib.synthfaces.identity import Identity, hair_rgb, sample_identity
from s2flib.synthfaces.labels import LABEL
from s2flib.synthfaces.look import Look, sample_glasses, sample_hat, sample_look
from s2flib.synthfaces.mesh import smoothstep
from s2flib.synthfaces.person import Person
from s2flib.synthfaces.portrait import Portrait, photograph
from s2flib.synthfaces.shot import EXPRESSIONS, Shot, sample_action, sample_shot
from s2flib.synthfaces.streams import stream

_FACE = ("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
_BARE_HEAD = (*_FACE, "l_ear", "r_ear", "ear_r", "hair", "hat", "neck", "neck_l")
_HEAD = (*_FACE, "l_ear", "r_ear", "ear_r", "hair", "hat", "neck", "neck_l", "cloth")
# labels, before or after, in which an edit may change pixels (shadows included)
_MAY_CHANGE = {
    "hair_color": ("hair",),
    "hair_style": _HEAD,
    "eye_color": ("l_eye", "r_eye", "eye_g"),
    "glasses": _BARE_HEAD,
    "no_glasses": _BARE_HEAD,
    "sunglasses": _BARE_HEAD,
    "beard": (*_FACE, "neck", "neck_l", "cloth"),
    "no_beard": (*_FACE, "neck", "neck_l", "cloth"),
    "makeup": _FACE,
    "no_makeup": _FACE,
    "expression": _HEAD,
    "age": _HEAD,
    "skin_tone": (*_FACE, "l_ear", "r_ear", "neck", "neck_l", "hair"),
    "hat": _HEAD,
    "no_hat": _HEAD,
    "background": ("background",),
}
AGE_WORDS = {-20: "twenty years younger", -12: "younger", 12: "a little older", 20: "older", 30: "thirty years older"}
TONE_WORDS = {-1.8: "lighter", 1.8: "darker", 0.9: "a little darker", -0.9: "a little lighter"}
WORDS: dict[str, dict[str, str]] = read_toml(Path(__file__).parent / "assets" / "edit_words.toml")
# relative probability of the kinds where they are possible: few people wear a hat that could be removed, and eye colour
# and hair style have the most values to learn
ODDS = {
    "no_hat": 12.0,
    "no_beard": 5.0,
    "no_makeup": 4.0,
    "makeup": 3.0,
    "no_glasses": 3.0,
    "beard": 2.0,
    "eye_color": 2.0,
    "hair_style": 1.5,
}


@dataclass(frozen=True)
class Edit:
    """One change to a face. The renderer, the edit pairs and the evaluation of edits all use this type."""

    kind: str  # one of phrases.KINDS
    value: str  # the new value; "" if the kind determines it
    words: str = ""  # the value in an instruction: "dark brown", "older"; "" if the kind determines it


def words_of(kind: str, value: str, before: dict) -> str:
    """The value in an instruction: "darkbrown" → "dark brown", an age of 60 → "older".

    before: the attributes (render.attributes) of the face to edit.
    """
    if kind in WORDS:
        return WORDS[kind][value]
    if kind == "age":
        return AGE_WORDS[min(AGE_WORDS, key=lambda years: abs(years - (float(value) - before["age"])))]
    if kind == "skin_tone":
        return TONE_WORDS[min(TONE_WORDS, key=lambda tone: abs(tone - (float(value) - before["skin_tone"])))]
    return ""


def all_words() -> set[str]:
    """Every value in words."""
    return {word for table in (*WORDS.values(), AGE_WORDS, TONE_WORDS) for word in table.values()}


@dataclass(frozen=True)
class Scene:
    """One photo before it is taken."""

    identity: Identity
    look: Look
    shot: Shot


@dataclass(frozen=True)
class EditPair:
    """mask (H, W) bool: True where the edit may change pixels."""

    before: Portrait
    after: Portrait
    mask: np.ndarray
    edits: tuple[Edit, ...]
    instruction: str


def possible_edits(scene: Scene, rng: np.random.Generator) -> list[Edit]:
    """One edit of each kind that is possible and visible in the scene."""
    identity, look = scene.identity, scene.look
    male, bald = identity.gender == "male", look.style == "bald"
    out = []

    def another(words: dict[str, str], now: str, among=None) -> tuple[str, str]:
        options = [k for k in words if k != now and (among is None or k in among)]
        value = options[rng.integers(len(options))]
        return value, words[value]

    if not bald:
        out.append(Edit("hair_color", *another(WORDS["hair_color"], look.dye or identity.hair_color)))
    men, women = (
        ("buzz", "short", "sidepart", "curly", "bald", "bangs", "medium"),
        ("curly", "medium", "bob", "long", "longwavy", "bangs_long", "ponytail", "short"),
    )
    if look.hat is None:
        out.append(Edit("hair_style", *another(WORDS["hair_style"], look.style, men if male else women)))
    sun = look.glasses is not None and look.glasses.sun
    if not sun:
        out.append(Edit("eye_color", *another(WORDS["eye_color"], identity.eye_color)))
        out.append(Edit("sunglasses", "sun", ""))
    out.append(Edit("glasses", "clear", "") if look.glasses is None else Edit("no_glasses", "", ""))
    if male:
        out.append(Edit("beard", *another(WORDS["beard"], look.beard)))
        if look.beard not in ("none", "stubble"):
            out.append(Edit("no_beard", "none", ""))
    elif look.makeup > 0.4:
        out.append(Edit("no_makeup", "0", ""))
    elif look.makeup == 0:
        out.append(Edit("makeup", "0.9", ""))
    out.append(Edit("expression", *another(WORDS["expression"], scene.shot.expression)))
    years = [y for y in AGE_WORDS.items() if 18 <= identity.age + y[0] <= 80]
    if years:
        change, words = years[rng.integers(len(years))]
        out.append(Edit("age", f"{identity.age + change:.1f}", words))
    tones = [t for t in TONE_WORDS.items() if 0 <= identity.tone + t[0] <= 6.8]
    change, words = tones[rng.integers(len(tones))]
    out.append(Edit("skin_tone", f"{identity.tone + change:.2f}", words))
    out.append(Edit("hat", *another(WORDS["hat"], "")) if look.hat is None else Edit("no_hat", "", ""))
    out.append(Edit("background", str(int(rng.integers(1 << 30))), ""))
    return out


def apply_edit(scene: Scene, edit: Edit, seed: int = 0) -> Scene:
    """The scene after an edit; everything else stays the same, including the streams."""
    identity, look, shot = scene.identity, scene.look, scene.shot
    rng = stream(seed, "edit", edit.kind, edit.value)
    kind, value = edit.kind, edit.value
    if kind == "hair_color":
        look = replace(look, dye=value)
    elif kind == "hair_style":
        look = replace(look, style=value)
    elif kind == "eye_color":
        rgb = tuple(float(x) for x in linear(IRIS[value]))
        identity = replace(identity, eye_color=value, iris_rgb=rgb)
    elif kind in ("glasses", "sunglasses"):
        look = replace(look, glasses=sample_glasses(rng, sun=kind == "sunglasses"))
    elif kind == "no_glasses":
        look = replace(look, glasses=None)
    elif kind in ("beard", "no_beard"):
        look = replace(look, beard=value)
    elif kind in ("makeup", "no_makeup"):
        look = replace(look, makeup=float(value))
    elif kind == "expression":
        if value not in EXPRESSIONS:
            raise S2FError(f"unknown expression {value!r}: choose one of {', '.join(EXPRESSIONS)}.")
        blinks = {k: v for k, v in shot.action.items() if k.startswith("eyeBlink")}
        shot = replace(shot, expression=value, action=sample_action(value, rng) | blinks)
    elif kind == "age":
        identity = replace(identity, age=float(value), **_hair_at(identity, float(value)))
    elif kind == "skin_tone":
        identity = replace(identity, tone=float(value))
    elif kind == "hat":
        look = replace(look, hat=sample_hat(rng, value))
    elif kind == "no_hat":
        look = replace(look, hat=None)
    elif kind == "background":
        shot = replace(shot, background=int(value))
    else:
        raise S2FError(f"unknown edit {kind!r}: choose one of {', '.join(phrases.KINDS)}.")
    return Scene(identity, look, shot)


def _hair_at(identity: Identity, age: float) -> dict:
    """Hair colour at another age: hair turns grey between 45 and 75, and grey hair regains its colour below 45."""
    grey = identity.hair_color in ("grey", "white")
    if grey and age < 45 and age < identity.age:
        name = "darkbrown" if identity.tone > 3.2 else "brown"
        return dict(hair_color=name, hair_rgb=hair_rgb(name))
    before, after = (float(smoothstep(45.0, 75.0, np.float64(a))) for a in (identity.age, age))
    if grey or after <= before:
        return {}
    share = (after - before) / (1 - before) * 0.95
    rgb = np.array(identity.hair_rgb) * (1 - share) + linear(HAIR["grey"]) * share
    return dict(hair_color="grey" if share > 0.5 else identity.hair_color, hair_rgb=tuple(float(x) for x in rgb))


def render_edit(
    scene: Scene,
    edits: tuple[Edit, ...],
    instruction: str = "",
    size: int = 128,
    seed: int = 0,
    person: Person | None = None,
) -> EditPair:
    """Photograph a scene before and after the edits, with the same camera."""
    person = person or Person(scene.identity, scene.look)
    camera = person.camera(scene.shot, size)
    before = photograph(person, scene.shot, size, camera=camera)
    changed = scene
    for edit in edits:
        changed = apply_edit(changed, edit, seed)
    after_person = Person(changed.identity, changed.look, like=person)
    after = photograph(after_person, changed.shot, size, camera=camera)
    return EditPair(before, after, edit_mask(before, after, edits), edits, instruction)


def edit_mask(before: Portrait, after: Portrait, edits: tuple[Edit, ...]) -> np.ndarray:
    """(H, W) bool: where these edits may change pixels, dilated for the soft edges of hair and lenses."""
    size = len(before.labels)
    mask = np.zeros((size, size), bool)
    for edit in edits:
        ids = [LABEL[name] for name in _MAY_CHANGE[edit.kind]]
        mask |= np.isin(before.labels, ids) | np.isin(after.labels, ids)
        if edit.kind == "background":
            mask |= (before.cover < 0.995) | (after.cover < 0.995)
        elif "hair" in _MAY_CHANGE[edit.kind]:
            soft = (np.abs(before.cover - after.cover) > 0) | ((before.cover > 0) & (before.cover < 1))
            mask |= soft | ((after.cover > 0) & (after.cover < 1))
    # the soft edge of a fringe on the forehead is a little wider
    wider = any("hair" in _MAY_CHANGE[edit.kind] for edit in edits)
    return binary_dilation(mask, iterations=max(3, round(size * 0.03)) + wider)


def sample_edit_pair(seed: int, number: int, size: int = 128, held_out: bool = False) -> EditPair:
    """Edit pair ``number`` of a seed: one change, sometimes two, of kinds sampled by ``ODDS``. ``held_out``: use
    held-out phrasings."""
    identity = sample_identity(seed, number)
    scene = Scene(identity, sample_look(identity, seed, number), sample_shot(identity, seed, number))
    rng = stream(seed, number, "edits")
    options = possible_edits(scene, rng)
    odds = np.array([ODDS.get(option.kind, 1.0) for option in options])
    first, second = rng.choice(len(options), 2, replace=False, p=odds / odds.sum())
    chosen = [options[first]]
    # two edits must not concern the same thing, or something that the other one hides
    if rng.random() < 0.2 and not {
        "glasses",
        "no_glasses",
        "sunglasses",
        "eye_color",
        "hair_style",
        "hat",
        "beard",
        "no_beard",
    } & {options[first].kind, options[second].kind}:
        chosen.append(options[second])
    words = " and ".join(phrases.instruction(e.kind, e.words, int(rng.integers(1 << 20)), held_out) for e in chosen)
    return render_edit(scene, tuple(chosen), words, size, seed)
