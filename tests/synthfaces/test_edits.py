"""Edits change what they say and nothing else; phrasings are split."""

from dataclasses import replace

import numpy as np
import pytest

from s2flib.errors import S2FError
from s2flib.synthfaces import phrases
from s2flib.synthfaces.edits import Edit, apply_edit, possible_edits, render_edit, sample_edit_pair, words_of
from s2flib.synthfaces.person import Person
from s2flib.synthfaces.streams import stream


def test_templates_are_many_and_split():
    for kind in phrases.KINDS:
        texts = phrases.templates(kind) + phrases.templates(kind, held_out=True)
        assert len(set(texts)) == len(texts) >= 12, kind
        train, held_out = phrases.templates(kind), phrases.templates(kind, held_out=True)
        assert len(held_out) >= 3 and not set(train) & set(held_out)
        with_value = sum("{x}" in t for t in texts)
        assert with_value in (0, len(texts)), kind
        assert "{" not in phrases.instruction(kind, "blond", 5)


@pytest.mark.parametrize("index, male", [(0, False), (1, True)])
def test_every_edit_changes_only_what_its_mask_allows(scene, index, male):
    s = scene(index, male=male)
    look = replace(s.look, glasses=None, hat=None, style="short" if male else "long")
    s = replace(s, look=replace(look, beard="short" if male else "none", makeup=0.0 if male else 0.8))
    person = Person(s.identity, s.look)
    seen = set()
    for edit in possible_edits(s, stream(9, index)):
        pair = render_edit(s, (edit,), size=64, person=person)
        change = np.abs(pair.before.rgb.astype(int) - pair.after.rgb).max(-1)
        assert change[~pair.mask].max(initial=0) <= 2, edit
        assert (change > 6).any(), edit
        assert pair.mask.mean() < 0.97
        seen.add(edit.kind)
    assert seen >= {
        "hair_color",
        "hair_style",
        "eye_color",
        "glasses",
        "sunglasses",
        "expression",
        "age",
        "skin_tone",
        "hat",
        "background",
        "beard" if male else "no_makeup",
    }


def test_taking_off_undoes_putting_on(scene):
    s = scene(3)
    s = replace(s, look=replace(s.look, glasses=None, hat=None))
    worn = apply_edit(apply_edit(s, Edit("glasses", "clear", "")), Edit("hat", "cap", "a baseball cap"))
    assert worn.look.glasses is not None and worn.look.hat.kind == "cap" and worn.identity == s.identity
    assert apply_edit(apply_edit(worn, Edit("no_glasses", "", "")), Edit("no_hat", "", "")) == s
    kinds = {e.kind for e in possible_edits(worn, stream(0))}
    assert {"no_glasses", "no_hat"} <= kinds and not {"glasses", "hat"} & kinds
    with pytest.raises(S2FError, match="unknown edit"):
        apply_edit(s, Edit("nose_ring", "", ""))
    with pytest.raises(S2FError, match="unknown expression"):
        apply_edit(s, Edit("expression", "whistle", "whistle"))


def test_sampled_pairs_repeat_and_speak():
    a, b = (sample_edit_pair(4, 17, size=32) for _ in range(2))
    assert a.instruction == b.instruction and (a.after.rgb == b.after.rgb).all() and a.edits == b.edits
    held = sample_edit_pair(4, 17, size=32, held_out=True)
    assert held.edits == a.edits and held.instruction != a.instruction
    assert (held.after.rgb == a.after.rgb).all()


def test_values_are_put_into_words():
    assert words_of("hair_color", "darkbrown", {}) == "dark brown"
    assert words_of("age", "52.0", {"age": 40.0}) == "a little older"
    assert words_of("skin_tone", "3.0", {"skin_tone": 1.2}) == "darker"
    assert words_of("no_hat", "", {}) == ""
