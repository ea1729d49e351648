"""What a witness's sentence asks for: the edits it names, or a refusal.

The tiny text encoder knows a few hundred words and ignores the others, so "do not add glasses" added glasses and "make
the nose bigger" added them, too. This module reads the sentence first, by rules: what is negated, which part is meant,
how many wishes there are. Each wish is then given to the model in a wording that it was trained on.

Witnesses say more than what can be edited ("like the princess in my book"). Such words are ignored, and told, unless
they may turn the meaning round (:data:`DOUBTFUL`: "he lost his glasses"), name a part that no edit changes
(:data:`REFUSED`), or are so many that the sentence is in another language or about something else.

The words and their lists are in :mod:`s2flib.instruct_pix2pix.reading_words` and reading.toml.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from s2flib.errors import S2FError
from s2flib.instruct_pix2pix.reading_clauses import EXAMPLE, SUBJECTS, SUPPORTED, check_language, check_words, clauses
from s2flib.instruct_pix2pix.reading_words import (
    CHANGE,
    DATA,
    FORBID,
    MENTIONS,
    NOT,
    REMOVE,
    VERBS,
    Mention,
    mentions,
    normal,
    plain,
)
from s2flib.instruct_pix2pix.vocabulary import SYNONYMS, templates
from s2flib.synthfaces import phrases
from s2flib.synthfaces.edits import AGE_WORDS, TONE_WORDS, WORDS, Edit

__all__ = ["MENTIONS", "Wish", "read"]
REMOVABLE = {
    "glasses": "no_glasses",
    "sunglasses": "no_glasses",
    "beard": "no_beard",
    "makeup": "no_makeup",
    "hat": "no_hat",
}
ASK = frozenset("did was were is are does do has had have should".split())  # a question mark makes these no wish
CONTRAST = frozenset("only just rather ones".split())  # "not a beard, only a moustache"
PLACE = frozenset(
    "background backdrop behind scenery location setting surroundings place scene elsewhere front".split()
)
WONDER = frozenset("what who whom whose where when why how which".split())
PRONOUNS = (["he"], ["she"], ["they"], ["it"])
PART_OF = {"part": "", "hair_style": "hair", "hair_color": "hair", "eye_color": "eyes", "skin_tone": "skin"}
FORGET = frozenset("shave shaved forget forgot".split())  # "he never shaved"
BARE = {"dark": "dark", "darker": "dark", "lighter": "light", "pale": "light"}  # colours that only qualify another one
PROTECT = frozenset("keep keeping leave stop".split())  # "leave the beard as it is"
WORN = ("glasses", "sunglasses", "hat", "makeup", "beard")  # their colour is no wish of its own
LONE_COLOUR = {"pale": "skin", "hazel": "eyes", "amber": "eyes"}  # what a colour is said of where nothing is named
FINER = {"blue": ("lightblue",), "brown": ("darkbrown", "lightbrown", "auburn"), "blond": ("platinum",),
         "red": ("auburn",),
         "short": ("buzz", "sidepart", "slick"), "long": ("longwavy", "bangs_long", "ponytail"), "curly": ("afro",),
         "smile": ("grin", "smirk")}  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """One edit that a sentence asks for, and the wording that the model gets."""

    edit: Edit
    words: str
    ignored: tuple[str, ...] = ()  # words of the sentence that were not understood


def read(sentence: str) -> list[Wish]:
    """The wishes of a sentence, in its order. S2FError names what is not understood, negated or not supported."""
    known = _known_sentences().get(normal(sentence))
    if known is not None:
        return [Wish(known, sentence)]
    if _asks(sentence):
        raise S2FError(f"{sentence[:60]!r} is a question: say what to change, such as {EXAMPLE}.")
    text = plain(sentence)
    check_language(text, sentence)
    wishes: list[Wish] = []
    denied: list[tuple[str, S2FError]] = []  # kinds of which a clause says only what is not so
    described: set[str] = set()  # removals that only say what there was not
    removing = forbidding = False
    last: set[str] = set()  # kinds of which the last clause says what was not so
    vague: set[str] = set()  # kinds of which only "a hat" or "a beard" is said so far
    named = {m.value for m in mentions(text.split()) if m.kind == "part"}
    part: str | None = None  # that the last clause named: "his eyes were not blue but green"
    for clause, joint in clauses(text):
        words = clause.split()
        found = mentions(words)
        about = part or (next(iter(named)) if len(named) == 1 and NOT & set(words) else None)  # "not black, his hair"
        whose = [m for m in found if m.kind == "length" or m.kind == "colour" and not m.hair]
        if about and whose and not any(m.kind == "part" for m in found):
            found = [Mention("part", about, -1, 0), *found]
        part = next((m.value if m.kind == "part" else PART_OF[m.kind] for m in found if m.kind in PART_OF), part)
        # "without expression" names something; its "without" does not negate
        outside = [w for i, w in enumerate(words) if not any(m.start <= i < m.stop for m in found)]
        said = set(outside)
        if all(m.kind == "part" for m in found):  # it names nothing that could be edited
            check_words(words, found)
            undone = NOT & said or REMOVE & said and {"it", "them", "em"} & said  # "a hat, but he took it off"
            if undone and any(w.edit.kind not in REMOVABLE.values() for w in wishes):
                raise S2FError(f"{sentence[:60]!r} may mean that it was not so: say what there was, such as {EXAMPLE}.")
            continue
        if NOT - {"without"} & said and (REMOVE - FORGET) & said and not _forbids(words):
            raise S2FError(f"{sentence[:60]!r} negates twice: say what there was, such as {EXAMPLE}.")  # never took off
        if (NOT | REMOVE | FORBID | CHANGE | VERBS) & said:
            removing, forbidding = bool((NOT | REMOVE) & said), bool(NOT & said) and _forbids(words)
        elif removing and not forbidding and (joint == "but" or CONTRAST & said):
            removing = False
        elif removing and joint == "," and last and {m.kind for m in found if m.kind != "part"} <= last:
            removing = forbidding = False  # "not brown hair, black hair"
        elif removing and joint == "," and words[0] in SUBJECTS and len(words) > 2:
            removing = forbidding = False  # a statement of its own: "no smile, she kept a straight face"
        elif removing and joint not in ("and", "or", "nor"):
            raise S2FError(
                f"{sentence[:60]!r} may mean two things after its {joint!r}: write one wish after the other."
            )
        last = set()
        # otherwise the clause goes on with the last one's verb: "no glasses or hat"
        try:
            new = _read_clause(words, found, outside, removing, forbidding, sentence)
            # "not a beard, only a moustache", "it was not a cap, it was a beanie"
            instead = {REMOVABLE.get(w.edit.kind) for w in new} & described
            wishes = [w for w in wishes if w.edit.kind not in instead]
            wishes = _specified(wishes, new, vague, {m.kind for m in found if m.vague}, joint)
            vague |= {m.kind for m in found if m.vague}
            described |= {w.edit.kind for w in new if removing and not REMOVE & said}
        except _Denied as e:
            denied += [(kind, S2FError(str(e))) for kind in e.kinds]
            if said & {"not", "wasnt", "isnt", "werent", "arent"} and not forbidding:  # what it was may follow
                last = {m.kind for m in found if m.kind not in ("part", *REMOVABLE)}
    for kind, error in denied:  # "it was not blond, it was red" says what it was
        if kind not in {k for w in wishes for k in (w.edit.kind, REMOVABLE.get(w.edit.kind))}:
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


def _asks(sentence: str) -> bool:
    """Whether the sentence asks what there was, instead of for a change."""
    words = normal(sentence).split()
    if not words:
        return False
    mark = sentence.strip().endswith("?")
    wonders = words[0] in WONDER and not {"about", "if", "not"} & set(words[1:2])
    wonders = wonders or words[0].removesuffix("nt") in ASK and words[1:2] in PRONOUNS  # "wasn't he bald?"
    return mark and (words[0] in ASK or wonders) or words[0] in ASK - {"have", "should"} and words[1:2] in PRONOUNS


def _specified(wishes: list[Wish], new: list[Wish], vague: set[str], loose: set[str], joint: str) -> list[Wish]:
    """The wishes with the new ones. After a comma "a goatee" says which beard "a beard" was, and the other way round;
    a beard and a moustache are a full beard. vague, loose: kinds that were, and are now, named only vaguely."""
    for wish in new:
        kind, value = wish.edit.kind, wish.edit.value
        same = "glasses" if kind == "sunglasses" else kind
        earlier = [w for w in wishes if w.edit.kind in (kind, same)]
        whole = kind == "beard" and "mustache" in {value, *(w.edit.value for w in earlier)}
        if earlier and kind in loose and (joint in (",", "and") if whole else joint == ","):
            if not whole:
                continue  # "a goatee, a little beard"
            wishes = [w for w in wishes if w not in earlier]
        elif earlier and same in vague and whole and joint in (",", "and"):
            continue
        elif joint == "," and any(w.edit.value in FINER.get(value, ()) for w in earlier):
            continue  # "pale blue, I think, anyway blue"
        elif joint == "," and any(value in FINER.get(w.edit.value, ()) for w in earlier):
            wishes = [w for w in wishes if w not in earlier]  # "blue, I would say pale blue"
        elif earlier and same in vague and joint == ",":
            wishes = [w for w in wishes if w not in earlier]
        wishes = [*wishes, wish]
    return wishes


class _Denied(S2FError):
    """A clause that says of these kinds only what is not so."""

    def __init__(self, message: str, kinds: set[str]):
        super().__init__(message)
        self.kinds = kinds


def _consistent(wishes: list[Wish], text: str, sentence: str) -> list[Wish]:
    """The wishes, if they do not contradict each other. Of "from blond to brown" the last counts."""
    changes = bool((CHANGE | {"from"}) & set(text.split()))
    for i, wish in enumerate(wishes):
        for later in wishes[i + 1 :]:
            if later.edit.kind == REMOVABLE.get(wish.edit.kind) or later.edit.kind == wish.edit.kind and not changes:
                raise S2FError(f"{sentence[:60]!r} asks for {wish.words!r} and for {later.words!r}: write one of them.")
    return list({w.edit.kind: w for w in wishes}.values())


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
                    out.setdefault(normal(template.format(x=form)), Edit(kind, value, words))
    return out


def _forbids(words: list[str]) -> bool:
    """Whether the clause forbids a change ("do not add", "never change") instead of describing the person."""
    first = next(i for i, w in enumerate(words) if w in NOT)
    return words[0] not in ("he", "she", "they", "i") and any(w in FORBID for w in words[first + 1 : first + 3])


def _read_clause(
    words: list[str], found: list[Mention], outside: list[str], removing: bool, forbidding: bool, sentence: str
) -> list[Wish]:
    said = set(outside)
    if PROTECT & said:
        raise S2FError(f"{sentence[:60]!r} asks to keep something: everything that is not named stays as it is.")
    strange = check_words(words, found)
    things = _joined([m for m in found if m.kind != "instead"], sentence)
    instead = next((m.start for m in found if m.kind == "instead"), None)
    if instead is not None:  # "a cap instead of the beanie": what comes after it goes
        things = [t for t in things if t.start < instead] or things[-1:]
    if removing:
        specific = bool(NOT & said) and not REMOVE & said  # "no goatee" does not say: no beard at all
        # "not clean-shaven" names no kind of beard, "shave him" takes one off
        able = {*REMOVABLE, *(REMOVABLE.values() if not NOT & said else ())}
        wrong = [t for t in things if t.kind not in able or specific and _is_special(t)]
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


def _rejects(words: list[str], things: list[Mention]) -> bool:
    """Whether the clause only rejects one kind of thing: "not a cap" may mean another hat."""
    return any(words[t.start - 2 : t.start] in (["not", "a"], ["not", "an"], ["not", "the"]) for t in things)


def _is_special(m: Mention) -> bool:
    """A kind of beard: "no goatee" does not say that there was no beard at all."""
    return m.kind == "beard" and m.value not in ("full", "")


def _joined(found: list[Mention], sentence: str) -> list[Mention]:
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
    if {"long", "bangs"} <= {t.value for t in styles}:
        styles = [replace(styles[0], value="bangs_long")]
        things = [t for t in things if t.kind != "hair_style"] + styles
    things = [t for t in things if t not in styles[:-1]]  # "a chin-length bob" is a bob
    others = [PART_OF[t.kind] for t in things if t.kind in PART_OF]  # "curly, red"
    colours: list[tuple[str, str, Mention]] = []  # part, colour, mention
    for colour in (m for m in found if m.kind == "colour"):
        if any(t.start == colour.stop and t.kind in WORN for t in things):
            continue  # "black sunglasses", "red lipstick"
        # hair or eyes: the nearest, and of two equally near ones the later ("blue eyes")
        near = sorted(parts, key=lambda p: (min(abs(p.start - colour.stop), abs(colour.start - p.stop)), -p.start))
        lone = LONE_COLOUR.get(colour.value, "hair" if colour.hair else "")
        part = near[0].value if near else others[0] if others else lone
        if not part:
            raise S2FError(f"it is not clear what should be {colour.value} in {sentence[:60]!r}: try {EXAMPLE}.")
        colours.append((part, colour.value, colour))
    for part, value, colour in colours:
        named = [v for p, v, _ in colours if p == part and v not in BARE]
        if value in BARE and named and part != "skin":
            continue  # "so dark, a deep brown"
        if any(DATA["colours"][part].get(v) in FINER.get(DATA["colours"][part].get(value, ""), ()) for v in named):
            continue  # "brown, like chocolate"
        degrees = {BARE[v] for p, v, _ in colours if p == part and v in BARE}
        value = next((f"{d} {value}" for d in degrees if f"{d} {value}" in DATA["colours"][part]), value)
        kind = {"hair": "hair_color", "eyes": "eye_color", "skin": "skin_tone"}[part]
        if value not in DATA["colours"][part]:
            possible = ", ".join(v for v in DATA["colours"][part] if v not in BARE)
            message = f"{part} cannot be made {value}: choose one of {possible}."
            raise _Denied(message, {kind}) if value in BARE and not things else S2FError(message)
        things.append(replace(colour, kind=kind, value=DATA["colours"][part][value]))
    if not things and parts:
        raise S2FError(
            f"{sentence[:60]!r} does not say how the {parts[0].value} should be: write, for example, {EXAMPLE}."
        )
    return sorted(things, key=lambda m: m.start)


def _wish(m: Mention, ignored: tuple[str, ...]) -> Wish:
    """The mention as an edit, in a training wording."""
    if m.kind in WORDS:
        words = WORDS[m.kind][m.value]
    else:
        words = m.value
    template = phrases.templates(m.kind)[0]
    return Wish(Edit(m.kind, m.value, words), template.format(x=words), ignored)
