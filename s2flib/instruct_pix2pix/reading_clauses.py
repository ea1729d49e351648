"""A sentence cut into clauses, and words that make one unreadable (for :mod:`s2flib.instruct_pix2pix.reading`)."""

from __future__ import annotations

import re

from s2flib.errors import S2FError
from s2flib.instruct_pix2pix.reading_words import DATA, DOUBTFUL, FOREIGN, KNOWN, NOT, REFUSED, Mention, mentions

WISH = frozenset("add give put draw paint remove replace".split())
LONE = frozenset("no nope nah yes".split())
SUBJECTS = frozenset("he she they it there".split())
ARTICLES = frozenset("a an the his her their my some this that".split())
EXAMPLE = "'make the hair blond'"
SUPPORTED = (
    "hair colour and style, eye colour, glasses, beards, make-up, expression, age, skin tone, hats and the background"
)


def check_language(text: str, sentence: str) -> None:
    """S2FError if more than half of the words, and at least three, are unknown."""
    words = text.split()
    if FOREIGN & set(words):
        raise S2FError(_not_understood([w for w in words if w in FOREIGN or w not in KNOWN and not mentions([w])]))
    taken = {i for m in mentions(words) for i in range(m.start, m.stop)}
    rest = [w for i, w in enumerate(words) if i not in taken and w != ","]
    strange = [w for w in rest if w not in KNOWN | REFUSED | DOUBTFUL]
    if len(strange) >= 3 and len(strange) > 0.5 * len(rest):
        raise S2FError(_not_understood(strange))


def _check_nouns(words: list[str], found: list[Mention], sentence: str) -> None:
    """S2FError for the colour of something unknown, so that after "long hair" "a black bag" is no hair."""
    for m in found:
        if m.kind == "colour" and not m.hair and m.start and words[m.start - 1] in ARTICLES:
            follows = [w for w in words[m.stop : m.stop + 1] if w not in KNOWN]
            if follows and not any(m.stop <= o.start < m.stop + 3 for o in found):
                raise S2FError(f"it is not clear what should be {m.value} in {sentence[:60]!r}: try {EXAMPLE}.")


def _not_understood(words: list[str] | tuple[str, ...]) -> str:
    listed = ", ".join(words)
    return f"the words {listed[:80]!r} are not understood: name {SUPPORTED}, in English, such as {EXAMPLE}."


def check_words(words: list[str], found: list[Mention]) -> tuple[str, ...]:
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


def clauses(text: str) -> list[tuple[str, str]]:
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
        _check_nouns(piece.split(), mentions(piece.split()), text)
        if not mentions(piece.split()):
            check_words(piece.split(), [])  # "add a monocle and a hat"
            if out and not carry and _qualifies(piece, out[-1][0]):
                out[-1] = (f"{out[-1][0]} {piece}", out[-1][1])  # "a hat, a woolly one"
                continue
        if NOT & set(carry.split()) and not mentions(carry.split()) and piece:
            if joint == "but":
                carry = ""  # "not bad, but he had glasses"
            elif mentions(piece.split()) and not NOT & set(piece.split()):
                raise S2FError(f"{text[:60]!r} may mean that it was not so: say what there was, such as {EXAMPLE}.")
        piece = f"{carry} {piece}".strip()
        found = mentions(piece.split())
        denies = bool(found) and bool(NOT & set(piece.split()))  # "not blond, she was a redhead"
        complete = denies or any(m.kind not in ("colour", "length") or m.hair for m in found)
        carry, joined = ("", "") if complete else (piece, joint)
        if complete:
            out.append((piece, joint))
    if carry:
        if out and _names_colour(carry) and not NOT & set(out[-1][0].split()):
            out[-1] = (f"{out[-1][0]} {carry}", out[-1][1])  # "the eyes, blue"
        else:
            out.append((carry, joined))
    return out


def _qualifies(piece: str, clause: str) -> bool:
    """Whether a piece that names nothing says of which kind the vague thing at the end of a clause was."""
    last = mentions(clause.split())[-1:]
    words = {w for m in last if m.vague for ws in DATA["qualifiers"].get(m.kind, {}).values() for w in ws.split()}
    return bool(words & set(piece.split())) and not NOT & {*piece.split(), *clause.split()}


def _names_colour(piece: str) -> bool:
    return any(m.kind in ("colour", "length") for m in mentions(piece.split()))


def _without_simile(piece: str) -> str:
    """The piece without "like the princess in my book"; "looked like a redhead" stays, and what names something."""
    words = piece.split()
    for i, word in enumerate(words):
        if any(m.start < i < m.stop for m in mentions(words)):
            continue  # "a face like thunder"
        if word == "like" and not (i and words[i - 1].startswith(("look", "seem"))) and not mentions(words[i:]):
            return " ".join(words[:i])
    return piece
