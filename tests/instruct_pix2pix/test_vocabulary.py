"""The training phrasings: none is held out, and no verb gives the kind away."""

import re

import numpy as np

from s2flib.instruct_pix2pix import vocabulary
from s2flib.synthfaces import phrases
from s2flib.synthfaces.edits import Edit
from s2flib.synthfaces.phrases import KINDS


def split_words(text):
    return tuple(re.findall(r"[a-z{}'-]+", text.lower()))


def test_no_training_phrasing_is_a_held_out_one_or_shares_four_words_with_one():
    held = {split_words(t) for kind in KINDS for t in phrases.templates(kind, held_out=True)}
    runs = {h[i : i + 4] for h in held for i in range(len(h) - 3)}
    for kind in KINDS:
        assert set(vocabulary.MORE[kind]).isdisjoint(phrases.templates(kind) + phrases.templates(kind, held_out=True))
        for template in (*vocabulary.MORE[kind], *crossed(kind)):
            own = split_words(template)
            assert own not in held, template
            assert not any(own[i : i + 4] in runs for i in range(len(own) - 3)), template


def crossed(kind):
    """Templates that begin with one of the verbs of change, with each of the others instead."""
    for template in vocabulary.templates(kind):
        verb, _, rest = template.partition(" ")
        if verb in vocabulary._VERBS:
            yield from (f"{other} {rest}" for other in vocabulary._VERBS if other != verb)


def test_no_verb_of_change_means_one_kind_only():
    firsts = {}
    for kind in KINDS:
        wish = Edit(kind, "", "grey")
        for k in range(400):
            firsts.setdefault(vocabulary.phrase(wish, np.random.default_rng(k)).split()[0], set()).add(kind)
    for verb in vocabulary._VERBS:
        assert {"hair_style", "eye_color", "skin_tone", "background"} <= firsts[verb], verb


def test_sentences_are_reproducible_and_varied():
    wish = (Edit("hair_color", "blond", "blond"), Edit("glasses", "clear", ""))
    made = [vocabulary.sentence(wish, np.random.default_rng(k)) for k in range(200)]
    assert made == [vocabulary.sentence(wish, np.random.default_rng(k)) for k in range(200)]
    assert len(set(made)) > 150 and all("{" not in m for m in made)
    held = {t.format(x="blond") for t in phrases.templates("hair_color", held_out=True)}
    assert not any(h in m for h in held for m in made)
