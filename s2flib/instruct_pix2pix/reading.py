"""What a witness's sentence asks for: the edits it names, or a refusal.

The tiny text encoder knows a few hundred words and ignores the others, so "do not add glasses" added glasses and "make
the nose bigger" added them, too. This module reads the sentence first, by rules: what is negated, which part is meant,
how many wishes there are. Each wish is then given to the model in a wording that it was trained on.

Witnesses say more than what can be edited ("like the princess in my book"). Such words are ignored, and told, unless
they may turn the meaning round (:data:`DOUBTFUL`: "he lost his glasses"), name a part that no edit changes
(:data:`REFUSED`), or are so many that the sentence is in another language or about something else.

Lists of words, in reading.toml: :data:`MENTIONS` (what can be asked for), :data:`FILLERS` (words that change nothing).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path

from s2flib.errors import S2FError
from s2flib.files import read_toml
from s2flib.instruct_pix2pix.vocabulary import SYNONYMS, templates
from s2flib.synthfaces import phrases
from s2flib.synthfaces.edits import AGE_WORDS, TONE_WORDS, WORDS, Edit

_DATA = read_toml(Path(__file__).parent / "reading.toml")
MENTIONS: dict[str, dict[str, list[str]]] = _DATA["mentions"]  # kind → value → expressions
VERBS = frozenset(_DATA["verbs"])
REFUSED = frozenset(" ".join(_DATA["refused"]).split())
DOUBTFUL = frozenset(" ".join(_DATA["doubtful"]).split())
FILLERS: frozenset[str] = frozenset(" ".join(_DATA["fillers"]).split())
REMOVABLE = {
    "glasses": "no_glasses",
    "sunglasses": "no_glasses",
    "beard": "no_beard",
    "makeup": "no_makeup",
    "hat": "no_hat",
}
NOT = frozenset(
    "not no never without neither nor none nothing cannot dont didnt doesnt wasnt werent isnt arent wont hadnt hasnt "
    "havent wouldnt cant couldnt shouldnt mustnt nobody hardly barely aint".split()
)
REMOVE = frozenset(
    "remove removed removing off away delete erase lose drop rid shave shaved strip wipe wash forget forgot without "
    "minus clear ditch dump scrap chuck bin nix toss shed".split()
)
# after a negation: the sentence forbids a change ("do not add") instead of describing the person
FORBID = REMOVE - {"shaved", "forgot"} | frozenset(
    "add give put change changing make touch alter let turn use draw paint set do edit move take leave".split()
)
ASK = frozenset("did was were is are does do has had have should".split())  # a question mark makes these no wish
WISH = frozenset("add give put draw paint remove replace".split())
CONTRAST = frozenset("only just rather ones".split())  # "not a beard, only a moustache"
PLACE = frozenset(
    "background backdrop behind scenery location setting surroundings place scene elsewhere front".split()
)
LONE = frozenset("no nope nah yes".split())
PROTECT = frozenset("keep keeping leave stop".split())  # "leave the beard as it is"
CHANGE = frozenset("change turn replace swap switch trade trim transform convert".split())
WORN = ("glasses", "sunglasses", "hat", "makeup")  # their colour is no wish of its own
HAIR_ONLY = ("blond", "platinum", "auburn")  # colours that are said of people and mean their hair
EXAMPLE = "'make the hair blond'"
SUPPORTED = (
    "hair colour and style, eye colour, glasses, beards, make-up, expression, age, skin tone, hats and the background"
)


@dataclass(frozen=True)
class Wish:
    """One edit that a sentence asks for, and the wording that the model gets."""

    edit: Edit
    words: str
    ignored: tuple[str, ...] = ()  # words of the sentence that were not understood


@dataclass(frozen=True)
class _Mention:
    """A thing at words start … stop of a clause: kind "colour" is a colour whose thing is still to be found."""

    kind: str
    value: str
    start: int
    stop: int


def read(sentence: str) -> list[Wish]:
    """The wishes of a sentence, in its order. S2FError names what is not understood, negated or not supported."""
    known = _known_sentences().get(_normal(sentence))
    if known is not None:
        return [Wish(known, sentence)]
    if sentence.strip().endswith("?") and _normal(sentence).split()[:1] and _normal(sentence).split()[0] in ASK:
        raise S2FError(f"{sentence[:60]!r} is a question: say what to change, such as {EXAMPLE}.")
    text = _normal(sentence)
    for pattern, reading in _DATA["rewrites"]:
        text = re.sub(rf"(?<![\w-])(?:{pattern})(?![\w-])", reading, text)
    _check_language(text, sentence)
    wishes: list[Wish] = []
    denied: list[tuple[str, S2FError]] = []  # kinds of which a clause says only what is not so
    described: set[str] = set()  # removals that only say what there was not
    removing = forbidding = False
    part: str | None = None  # that the last clause named: "his eyes were not blue but green"
    for clause, joint in _clauses(text):
        words = clause.split()
        found = _mentions(words)
        if part and any(m.kind in ("colour", "length") for m in found) and not any(m.kind == "part" for m in found):
            found = [_Mention("part", part, -1, 0), *found]
        part = next((m.value for m in found if m.kind == "part"), part)
        # "without expression" names something; its "without" does not negate
        outside = [w for i, w in enumerate(words) if not any(m.start <= i < m.stop for m in found)]
        said = set(outside)
        if all(m.kind == "part" for m in found):  # it names nothing that could be edited
            _check_words(words, found)
            if NOT & said and any(w.edit.kind not in REMOVABLE.values() for w in wishes):
                raise S2FError(f"{sentence[:60]!r} may mean that it was not so: say what there was, such as {EXAMPLE}.")
            continue
        if (NOT | REMOVE | FORBID | CHANGE | VERBS) & said:
            removing, forbidding = bool((NOT | REMOVE) & said), bool(NOT & said) and _forbids(words)
        elif removing and not forbidding and (joint == "but" or CONTRAST & said):
            removing = False
        elif removing and joint not in ("and", "or", "nor"):
            raise S2FError(
                f"{sentence[:60]!r} may mean two things after its {joint!r}: write one wish after the other."
            )
        # otherwise the clause goes on with the last one's verb: "no glasses or hat"
        try:
            new = _read_clause(words, found, outside, removing, forbidding, sentence)
            # "not a beard, only a moustache", "it was not a cap, it was a beanie"
            instead = {REMOVABLE.get(w.edit.kind) for w in new} & described
            wishes = [w for w in wishes if w.edit.kind not in instead] + new
            described |= {w.edit.kind for w in new if removing and not REMOVE & said}
        except _Denied as e:
            denied += [(kind, S2FError(str(e))) for kind in e.kinds]
    for kind, error in denied:  # "it was not blond, it was red" says what it was
        if kind not in {w.edit.kind for w in wishes}:
            raise error
    places = [w for w in wishes if w.edit.kind == "background"]
    if len(places) < len(wishes) and not PLACE & set(text.split()):  # "black hair, under the street lamp"
        wishes = [w for w in wishes if w not in places]
    wishes = _consistent(list({w.edit: w for w in wishes}.values()), text, sentence)
    if not wishes and part:
        raise S2FError(f"{sentence[:60]!r} does not say how the {part} should be: write, for example, {EXAMPLE}.")
    if not wishes:
        raise S2FError(f"{sentence[:60]!r} asks for nothing that can be edited: name {SUPPORTED}, such as {EXAMPLE}.")
    return wishes


class _Denied(S2FError):
    """A clause that says of these kinds only what is not so."""

    def __init__(self, message: str, kinds: set[str]):
        super().__init__(message)
        self.kinds = kinds


KNOWN = FILLERS | NOT | REMOVE | CHANGE | FORBID | VERBS | {","}


def _check_language(text: str, sentence: str) -> None:
    """S2FError if more than half of the words, and at least three, are unknown."""
    words = text.split()
    taken = {i for m in _mentions(words) for i in range(m.start, m.stop)}
    rest = [w for i, w in enumerate(words) if i not in taken and w != ","]
    strange = [w for w in rest if w not in KNOWN | REFUSED | DOUBTFUL]
    if len(strange) >= 3 and len(strange) > 0.5 * len(rest):
        raise S2FError(_not_understood(strange))


def _not_understood(words: list[str] | tuple[str, ...]) -> str:
    listed = ", ".join(words)
    return f"the words {listed[:80]!r} are not understood: name {SUPPORTED}, in English, such as {EXAMPLE}."


def _check_words(words: list[str], found: list[_Mention]) -> tuple[str, ...]:
    """The words of a clause that are ignored. S2FError if one of them may change the meaning."""
    outside = [w for i, w in enumerate(words) if not any(m.start <= i < m.stop for m in found)]
    strange = tuple(dict.fromkeys(w for w in outside if w not in KNOWN))
    bad = [
        w for w in strange if w in REFUSED | DOUBTFUL or re.match(r"(?:un|non|anti|dis|de)-|un\w+ing$|\w{3,}less$", w)
    ]
    # "add a monocle": a wish for something unknown
    asks = [w for i, w in enumerate(words) if w in WISH and not found and i + 1 < len(words)]
    if bad or asks and strange:
        raise S2FError(_not_understood(bad or strange))
    return strange


def _consistent(wishes: list[Wish], text: str, sentence: str) -> list[Wish]:
    """The wishes, if they do not contradict each other. Of "from blond to brown" the last counts."""
    changes = bool((CHANGE | {"from"}) & set(text.split()))
    for i, wish in enumerate(wishes):
        for later in wishes[i + 1 :]:
            if later.edit.kind == REMOVABLE.get(wish.edit.kind) or later.edit.kind == wish.edit.kind and not changes:
                raise S2FError(f"{sentence[:60]!r} asks for {wish.words!r} and for {later.words!r}: write one of them.")
    return list({w.edit.kind: w for w in wishes}.values())


def _normal(sentence: str) -> str:
    """Lower case, with commas, and without other punctuation and apostrophes."""
    text = sentence.lower().replace("n’t", "nt").replace("n't", "nt").replace("'", "").replace("’", "")
    text = re.sub(r"[;:.!?()\"–—]+", " , ", text)
    text = re.sub(r"[^\w\s,-]", " ", text).replace(",", " , ")
    return " ".join(text.split()).strip(" ,")


@functools.cache
def _known_sentences() -> dict[str, Edit]:
    """Every training and held-out phrasing, as the model was trained and measured on it."""
    out: dict[str, Edit] = {}
    for kind in phrases.KINDS:
        values: dict[str, str] = {v: k for k, v in WORDS[kind].items()} if kind in WORDS else {"": ""}
        if kind == "age":
            values = {v: "younger" if years < 0 else "older" for years, v in AGE_WORDS.items()}
        if kind == "skin_tone":
            values = {v: "lighter" if "light" in v else "darker" for v in TONE_WORDS.values()}
        for template in (*templates(kind), *phrases.templates(kind, held_out=True)):
            for words, value in values.items():
                for form in (words, *SYNONYMS.get(words, ())):
                    out.setdefault(_normal(template.format(x=form)), Edit(kind, value, words))
    return out


def _clauses(text: str) -> list[tuple[str, str]]:
    """The sentence cut at commas and conjunctions, each clause with what joins it to the last one. A part that names
    nothing by itself ("black and curly hair", "very short, dark hair") stays with the next one."""
    text = re.sub(r"^nor\b", "no", text)
    pieces = re.split(r"( , |(?<![\w-])(?:and|but|then|plus|or|nor|also)(?![\w-]))", text)
    out: list[tuple[str, str]] = []
    carry, joined = "", ""  # a piece that waits for the next one, and what joined it
    for piece, joint in zip(pieces[::2], ["", *(j.strip() for j in pieces[1::2])], strict=True):
        if not piece.strip() or piece.strip() in LONE and (not out or NOT & set(out[-1][0].split())):
            continue  # "no, he was older"; "not blond, no, she was a redhead"
        piece = _without_simile(piece.strip())
        if not _mentions(piece.split()):
            _check_words(piece.split(), [])  # "add a monocle and a hat"
        piece = f"{carry} {piece}".strip()
        found = _mentions(piece.split())
        denies = bool(found) and bool(NOT & set(piece.split()))  # "not blond, she was a redhead"
        complete = denies or any(m.kind not in ("colour", "length") or m.value in HAIR_ONLY for m in found)
        carry, joined = ("", "") if complete else (piece, joint)
        if complete:
            out.append((piece, joint))
    if carry:
        if out and _names_colour(carry) and not NOT & set(out[-1][0].split()):
            out[-1] = (f"{out[-1][0]} {carry}", out[-1][1])  # "the eyes, blue"
        else:
            out.append((carry, joined))
    return out


def _names_colour(piece: str) -> bool:
    return any(m.kind in ("colour", "length") for m in _mentions(piece.split()))


def _without_simile(piece: str) -> str:
    """The piece without "like the princess in my book"; "looked like a redhead" stays, and what names something."""
    words = piece.split()
    for i, word in enumerate(words):
        if word == "like" and not (i and words[i - 1].startswith(("look", "seem"))) and not _mentions(words[i:]):
            return " ".join(words[:i])
    return piece


@functools.cache
def _expressions() -> list[tuple[list[str], str, str]]:
    """(words, kind, value), the longest first."""
    out = [(e.split(), kind, value) for kind, of in MENTIONS.items() for value, es in of.items() for e in es]
    return sorted(out, key=lambda item: -len(item[0]))


def _same(words: list[str], expression: list[str]) -> bool:
    """Equal, or the plural: "woolly hats"."""
    return words[:-1] == expression[:-1] and words[-1] in (expression[-1], expression[-1] + "s")


def _mentions(words: list[str]) -> list[_Mention]:
    """What a clause names, from left to right; of overlapping expressions the longest."""
    found: list[_Mention] = []
    taken = [False] * len(words)
    for expression, kind, value in _expressions():
        n = len(expression)
        for i in range(len(words) - n + 1):
            if _same(words[i : i + n], expression) and not any(taken[i : i + n]):
                taken[i : i + n] = [True] * n
                found.append(_Mention(kind, value, i, i + n))
    return sorted(found, key=lambda m: m.start)


def _forbids(words: list[str]) -> bool:
    """Whether the clause forbids a change ("do not add", "never change") instead of describing the person."""
    first = next(i for i, w in enumerate(words) if w in NOT)
    return words[0] not in ("he", "she", "they", "i") and any(w in FORBID for w in words[first + 1 : first + 3])


def _read_clause(
    words: list[str], found: list[_Mention], outside: list[str], removing: bool, forbidding: bool, sentence: str
) -> list[Wish]:
    said = set(outside)
    if PROTECT & said:
        raise S2FError(f"{sentence[:60]!r} asks to keep something: everything that is not named stays as it is.")
    strange = _check_words(words, found)
    things = _joined([m for m in found if m.kind != "instead"], sentence)
    instead = next((m.start for m in found if m.kind == "instead"), None)
    if instead is not None:  # "a cap instead of the beanie": what comes after it goes
        things = [t for t in things if t.start < instead] or things[-1:]
    if removing:
        specific = bool(NOT & said) and not REMOVE & said  # "no goatee" does not say: no beard at all
        wrong = [t for t in things if t.kind not in (*REMOVABLE, *REMOVABLE.values()) or specific and _is_special(t)]
        if (
            things
            and REMOVE & said
            and not NOT & said
            and {t.kind for t in things} == {"expression"}
            and things[0].value != "neutral"
        ):
            return [_wish(replace(things[0], value="neutral"), strange)]  # without a smile
        if forbidding or wrong or not things or _rejects(words, things):
            raise _Denied(
                f"{sentence[:60]!r} says what is not wanted: say what to change it to, such as {EXAMPLE}. Glasses, "
                "beard, make-up and hat can be removed.",
                {t.kind for t in things} if things and not forbidding else {""},
            )
        things = [replace(t, kind=REMOVABLE.get(t.kind, t.kind), value="") for t in things]
    elif CHANGE & said and {t.kind for t in things} - {"hair_color", "hair_style"}:
        things = things[-1:]  # "replace the glasses with sunglasses"
    return [_wish(t, strange) for t in things]


def _rejects(words: list[str], things: list[_Mention]) -> bool:
    """Whether the clause only rejects one kind of thing: "not a cap" may mean another hat."""
    return any(words[t.start - 2 : t.start] in (["not", "a"], ["not", "an"], ["not", "the"]) for t in things)


def _is_special(m: _Mention) -> bool:
    """A kind of beard: "no goatee" does not say that there was no beard at all."""
    return m.kind == "beard" and m.value not in ("full", "")


def _joined(found: list[_Mention], sentence: str) -> list[_Mention]:
    """The mentions with every colour joined to its hair, eyes or skin, and every length to its hair; the bare parts
    themselves are dropped, and so are lengths of beards and colours of backgrounds."""
    parts = [m for m in found if m.kind == "part"]
    things = [m for m in found if m.kind not in ("part", "colour", "length")]
    if any(t.kind == "background" for t in things) and not parts:
        return [t for t in things if t.kind == "background"][:1]
    if any(p.value == "hair" for p in parts) and not any(t.kind == "hair_style" for t in things):
        things += [replace(m, kind="hair_style") for m in found if m.kind == "length"][-1:]
    styles = [t for t in things if t.kind == "hair_style"]
    if len({t.value == "bald" for t in styles}) > 1:
        raise S2FError(f"{sentence[:60]!r} asks for a bald head and for hair: write one of them.")
    things = [t for t in things if t not in styles[:-1]]  # "a chin-length bob" is a bob
    hair = bool(styles)
    for colour in (m for m in found if m.kind == "colour"):
        if any(t.start == colour.stop and t.kind in WORN for t in things):
            continue  # "black sunglasses", "red lipstick"
        # hair or eyes: the nearest, and of two equally near ones the later ("blue eyes")
        near = sorted(parts, key=lambda p: (min(abs(p.start - colour.stop), abs(colour.start - p.stop)), -p.start))
        part = near[0].value if near else "hair" if hair or colour.value in HAIR_ONLY else ""
        kind = {"hair": "hair_color", "eyes": "eye_color", "skin": "skin_tone"}.get(part)
        if kind is None:
            raise S2FError(f"it is not clear what should be {colour.value} in {sentence[:60]!r}: try {EXAMPLE}.")
        if colour.value not in _DATA["colours"][part]:
            possible = ", ".join(_DATA["colours"][part])
            raise S2FError(f"{part} cannot be made {colour.value}: choose one of {possible}.")
        things.append(replace(colour, kind=kind, value=_DATA["colours"][part][colour.value]))
    if not things and parts:
        raise S2FError(
            f"{sentence[:60]!r} does not say how the {parts[0].value} should be: write, for example, {EXAMPLE}."
        )
    return sorted(things, key=lambda m: m.start)


def _wish(m: _Mention, ignored: tuple[str, ...]) -> Wish:
    """The mention as an edit, in a training wording."""
    if m.kind in WORDS:
        words = WORDS[m.kind][m.value]
    else:
        words = m.value
    template = phrases.templates(m.kind)[0]
    return Wish(Edit(m.kind, m.value, words), template.format(x=words), ignored)
