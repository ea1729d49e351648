"""The words of witnesses' sentences: what they name, how they are spelled, and what is said beside the matter.

Used by :mod:`s2flib.instruct_pix2pix.reading`. All lists are in reading.toml; :data:`MENTIONS` says what can be asked
for, :data:`FILLERS` are words that change nothing. A sentence is prepared in four steps (:func:`plain`):

1. Misspelled words become the only known word that is one letter away. Removals and negations are corrected like all
   others, since "remvoe the beard" would otherwise add one; a word that may be two different things is refused.
2. Hedges ("if you could", "or so", "wasn't it?") are left out.
3. Idioms are read as what they mean ("not a single hair on his head": bald), comparisons lose what they compare with
   ("older than that"), and a place on the body that only says where something is ("on his chin") is left out.
4. "Too old" asks for the opposite where that is clear (:func:`_too`).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from s2flib.errors import S2FError
from s2flib.files import read_toml

DATA = read_toml(Path(__file__).parent / "reading.toml")
MENTIONS: dict[str, dict[str, list[str]]] = DATA["mentions"]  # kind → value → expressions
VERBS = frozenset(DATA["verbs"])
REFUSED = frozenset(" ".join(DATA["refused"]).split())
DOUBTFUL = frozenset(" ".join(DATA["doubtful"]).split())
FILLERS: frozenset[str] = frozenset(" ".join(DATA["fillers"]).split())
FOREIGN = frozenset(" ".join(DATA["foreign"]).split())
VAGUE = frozenset(DATA["vague"])
HAIR_WORDS = frozenset(DATA["hair_words"])
HAIR_VALUES = ("blond", "platinum", "auburn")
NOT = frozenset(
    "not no never without neither nor none nothing cannot dont didnt doesnt wasnt werent isnt arent wont hadnt hasnt "
    "havent wouldnt cant couldnt shouldnt mustnt nobody hardly barely aint nto nno noo nott didn wasn dnt dosent "
    "wasent".split()
)
REMOVE = frozenset(
    "remove removed removes removing off away delete deleted deletes erase erased erases lose drop rid shave shaved "
    "strip stripped wipe wiped wash washed forget forgot without minus clear cleared ditch ditched dump dumped scrap "
    "scrapped chuck chucked bin binned nix toss tossed shed".split()
)
# after a negation: the sentence forbids a change ("do not add") instead of describing the person
FORBID = REMOVE - {"shaved", "forgot"} | frozenset(
    "add give put change changing make touch alter let turn use draw paint set do edit move take leave".split()
)
CHANGE = frozenset("change turn replace swap switch trade trim transform convert".split())
KNOWN = FILLERS | NOT | REMOVE | CHANGE | FORBID | VERBS | {","}
HERE = frozenset("here this these picture photo image drawing sketch version screen youve made drawn got".split())
YOUNGER, OLDER, LIGHTER, DARKER = "younger", "older", "lighter skin", "darker skin"
# what is too much or not enough of it, and what that asks for
TOO_MUCH = {
    "old": YOUNGER, "elderly": YOUNGER, "aged": YOUNGER, "young": OLDER, "youthful": OLDER, "boyish": OLDER,
    "pale": DARKER, "pasty": DARKER, "fair": DARKER, "light": DARKER, "white": DARKER,
    "dark": LIGHTER, "tanned": LIGHTER, "brown": LIGHTER, "black": LIGHTER,
    "long": "shorter hair", "short": "longer hair",
}  # fmt: skip
OPPOSITE = {YOUNGER: OLDER, OLDER: YOUNGER, LIGHTER: DARKER, DARKER: LIGHTER}


@dataclass(frozen=True)
class Mention:
    """A thing at words start … stop of a clause: kind "colour" is a colour whose thing is still to be found."""

    kind: str
    value: str
    start: int
    stop: int
    hair: bool = False  # a colour that is said of hair only: "ginger"
    vague: bool = False  # "a hat", "a beard": a later "a woolly one" or "a goatee" says which


def normal(sentence: str) -> str:
    """Lower case, with commas, and without other punctuation and apostrophes."""
    text = sentence.lower().replace("n’t", "nt").replace("n't", "nt").replace("'", "").replace("’", "")
    text = re.sub(r"(?<!\w)w/o(?!\w)", "without", text)
    text = re.sub(r"(?<!\w)w/(?=\s)", "with", text)
    text = re.sub(r"[;:.!?()\"–—]+", " , ", text)
    text = re.sub(r"[^\w\s,-]", " ", text).replace(",", " , ")
    return " ".join(text.split()).strip(" ,")


def plain(sentence: str) -> str:
    """The sentence as reading understands it. S2FError for a word that may be two known words."""
    text = " ".join(_spelled(word, sentence) for word in normal(sentence).split())
    for pattern in DATA["hedges"]:
        text = _replaced(pattern, "", text)
    text = _too(text)
    for pattern, reading in DATA["rewrites"]:
        text = _replaced(pattern, reading, text)
    if any(m.kind == "expression" for m in mentions(text.split())):
        for pattern in DATA["postures"]:
            text = _replaced(pattern, "", text)
    return text


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])")


def _replaced(pattern: str, reading: str, text: str) -> str:
    new = _compiled(pattern).sub(reading, text)
    return text if new == text else " ".join(new.replace(",", " , ").split()).strip(" ,")


def _too(text: str) -> str:
    """The text with "too old" as "younger", "not tanned enough" as "darker skin" and so on.

    Only where it speaks of the picture and of a person's age or skin, or of the length of the hair: "he was too young
    to shave" and "too young for a policeman" describe somebody, "too much make-up" does not say how much there was.
    What is not replaced contains "too" or "enough" and is refused.
    """
    text = re.sub(r" too(?= ,|$| and )", "", text)  # "with glasses, too"
    parts = {m.value for m in mentions(text.split()) if m.kind == "part"}
    person = re.search(r"\b(?:he|him|hes|she|shes|they|them|theyre|man|woman|person|face)\b", text)
    out = []
    for clause in text.split(" , "):
        match = re.search(
            r"(?:\b(?:far|way|much|rather|slightly|somewhat|really|just|a bit|a little|a touch) )*\b"
            r"(?:too (?:much )?(\w+)|^to (\w+)$|"
            r"(?:isnt|not)(?: quite| nearly)? (\w+) enough)(?! (?:to|for|much|many)\b)",
            clause,
        )
        word = match and (match[1] or match[2] or match[3])  # "to pale" is a misspelled "too pale"
        asked = TOO_MUCH.get(word) if word else None
        if match is None or asked is None:
            out.append(clause)
            continue
        rest = f"{clause[: match.start()]} {clause[match.end() :]}".split()
        if match[3]:
            asked = OPPOSITE.get(asked)
        past = {"was", "were", "looked", "seemed", "appeared"} & set(rest) and not HERE & set(text.split())
        others = [m for m in mentions(rest) if m.kind != "part"]
        if asked in (LIGHTER, DARKER):
            sure = parts <= {"skin"} and (parts or word in ("pale", "pasty") or person)
            sure = sure and (parts or not {"picture", "photo", "image", "background"} & set(rest))
        else:
            sure = parts == {"hair"} if asked and asked.endswith("hair") else not parts - {"skin"}
        if not asked or past or others or not sure or NOT & set(rest):
            out.append(clause)
        else:
            out.append(f"{clause[: match.start()]}{asked}{clause[match.end() :]}")
    return " , ".join(out)


@functools.cache
def _targets() -> dict[str, tuple[str, str]]:
    """Words that a misspelled one may be, with their meaning."""
    single = {
        e: ("hair_style" if k == "length" else k, v)
        for k, of in MENTIONS.items()
        for v, es in of.items()
        for e in es
        if e.isalpha() and len(e) > 4
    }
    turning = {w: ("word", w) for w in NOT | REMOVE | DOUBTFUL if len(w) > 4 or w in ("dont", "cant", "isnt")}
    return turning | single


@functools.cache
def _proper_words() -> frozenset[str]:
    """Words that are spelled right: those of all lists, of the rewrites, and English ones that look like a typo."""
    patterns = " ".join([*DATA["hedges"], *DATA["postures"], *(p for p, _ in DATA["rewrites"])])
    said = " ".join(e for of in MENTIONS.values() for es in of.values() for e in es)
    qualifiers = " ".join(w for of in DATA["qualifiers"].values() for w in of.values())
    words = re.findall(r"[a-z]{3,}", f"{patterns} {said} {qualifiers} {' '.join(DATA['real_words'])}")
    return KNOWN | REFUSED | DOUBTFUL | FOREIGN | HERE | frozenset(TOO_MUCH) | frozenset(words)


@functools.cache
def _spelled(word: str, sentence: str) -> str:
    """The word, or the known one that it misspells: the same first letter and one letter more, less, changed or
    swapped. Never one that says the contrary by its form ("unshaven", "hatless")."""
    if len(word) < 4 or not word.isalpha() or word in _proper_words() or word.removesuffix("s") in _proper_words():
        return word
    found = [t for t in _targets() if t[0] == word[0] and _misspells(word, t) and not _inflects(word, t)]
    # a letter too many, too few or swapped is likelier than another one
    found = [t for t in found if len(t) != len(word) or sorted(t) == sorted(word)] or found
    found.sort(key=lambda t: (len(t), t))
    if not found:
        return word
    meanings = {_targets()[t] for t in found}
    turned = re.compile(r"(?:un|non|dis)\w+|\w{3,}less")
    if any(bool(turned.fullmatch(t)) != bool(turned.fullmatch(word)) for t in found) or len(meanings) > 1:
        raise S2FError(f"{word!r} in {sentence[:60]!r} may mean {' or '.join(found[:3])}: write it again.")
    return found[0]


def _inflects(word: str, target: str) -> bool:
    """Whether the word only ends on a letter more, as "beachy" does."""
    return word[:-1] == target and word[-1] != target[-1]


def _misspells(a: str, b: str) -> bool:
    """Whether one letter was inserted, left out, changed or swapped with its neighbour."""
    i = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    swapped = a[i : i + 2] == b[i : i + 2][::-1] and a[i + 2 :] == b[i + 2 :]
    return swapped or a[i + 1 :] == b[i + 1 :] or a[i + 1 :] == b[i:] or a[i:] == b[i + 1 :]


@functools.cache
def _expressions() -> dict[str, list[tuple[list[str], str, str, bool]]]:
    """First word → (words, kind, value, vague) of the expressions that begin with it."""
    out: dict[str, list[tuple[list[str], str, str, bool]]] = {}
    for kind, of in MENTIONS.items():
        for value, expressions in of.items():
            for e in expressions:
                for words in (e.split(), f"{e}s".split()):  # also the plural: "woolly hats"
                    out.setdefault(words[0], []).append((words, kind, value, e in VAGUE))
    return out


def mentions(words: list[str]) -> list[Mention]:
    """What a clause names, from left to right; of overlapping expressions the longest. A vague one takes the value of
    what is said of it ("a hat, a thick woolly one")."""
    fits = [
        Mention(kind, value, i, i + len(expression), value in HAIR_VALUES or " ".join(expression) in HAIR_WORDS, vague)
        for i, word in enumerate(words)
        for expression, kind, value, vague in _expressions().get(word, ())
        if words[i : i + len(expression)] == expression
    ]
    found: list[Mention] = []
    taken = [False] * len(words)
    for m in sorted(fits, key=lambda m: m.start - m.stop):
        if not any(taken[m.start : m.stop]):
            taken[m.start : m.stop] = [True] * (m.stop - m.start)
            found.append(m)
    beside = {w for w, done in zip(words, taken, strict=True) if not done}
    lengths = {m.value for m in found if m.kind == "length"} if not any(m.kind == "part" for m in found) else set()
    return sorted((_qualified(m, beside | lengths) for m in found), key=lambda m: m.start)


def _qualified(m: Mention, beside: set[str]) -> Mention:
    fits = [
        value for value, words in DATA["qualifiers"].get(m.kind, {}).items() if m.vague and beside & set(words.split())
    ]
    if not fits:
        return m
    return Mention(*(("sunglasses", "") if m.kind == "glasses" else (m.kind, fits[-1])), m.start, m.stop)
