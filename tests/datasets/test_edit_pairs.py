"""Edit pairs from disk, the words that ask for them, and the text encoder's pretraining."""

import json
import re

import numpy as np
import pytest
import torch
from editing_stand_in import pairs_folder_fixture, write_pairs  # noqa: F401  (fixtures)

from s2flib.datasets.edit_pairs import EditPairs, PairRow, attributes_of, both_ways
from s2flib.errors import DataError
from s2flib.instruct_pix2pix import pipeline as edit_pipeline
from s2flib.instruct_pix2pix import vocabulary
from s2flib.instruct_pix2pix.networks import TEXT_TOKENS, build_text_encoder
from s2flib.synthfaces import phrases
from s2flib.synthfaces.edits import Edit, words_of
from s2flib.synthfaces.phrases import KINDS
from s2flib.training.edit_text import UNKNOWN, Words, pretrain_text_encoder


@pytest.fixture(scope="module")
def words():
    return Words(edit_pipeline.load_tokenizer())


# --- pairs ------------------------------------------------------------------------------------------------------

def test_pairs_are_split_by_person_and_read_whole(pairs_folder):
    splits = {s: EditPairs(pairs_folder, s, size=64) for s in ("train", "val", "test")}
    people = [{row.identity for row in pairs.rows} for pairs in splits.values()]
    assert [len(p) for p in people] == [24, 3, 3] and not people[0] & people[1] and not people[0] & people[2]
    item = splits["train"][0]
    assert item["before"].shape == (64, 64, 3) and item["mask"].dtype == bool and item["kind"] == "hair_color"
    assert (item["before"] != item["after"])[~item["mask"]].sum() == 0
    arrays = splits["train"].arrays()
    assert (arrays["after"][5].transpose(1, 2, 0) == splits["train"][5]["after"]).all()
    assert EditPairs(pairs_folder, "train", size=128)[0]["before"].shape == (128, 128, 3)


def test_pairs_of_some_kinds_can_be_kept(pairs_folder):
    pairs = EditPairs(pairs_folder, "train", size=64)
    pairs.keep_kinds(["age", "hat"])
    assert len(pairs) == len(pairs.arrays()["before"]) == 8 and {row.kind for row in pairs.rows} == {"age", "hat"}
    with pytest.raises(DataError, match="no kind of edit 'nose'"):
        pairs.keep_kinds(["nose"])
    with pytest.raises(DataError, match="no beard pairs"):
        pairs.keep_kinds(["beard"])


def test_pairs_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(DataError, match="edits.zip is missing"):
        EditPairs(tmp_path, "train")
    folder = write_pairs(tmp_path / "pairs", 10)
    with pytest.raises(DataError, match="no split"):
        EditPairs(folder, "all")
    text = (folder / "edits.csv").read_text()
    (folder / "edits.csv").write_text(text.replace("000001,train", "000001,elsewhere"))
    with pytest.raises(DataError, match="line 3"):
        EditPairs(folder, "train")
    (folder / "edits.csv").write_text(text.replace(",1000001,", ",1000008,"))
    with pytest.raises(DataError, match="two splits"):
        EditPairs(folder, "train")
    (folder / "edits.csv").write_text(text)
    (folder / "render.json").write_text(json.dumps({"seed": 0, "version": -1}))
    with pytest.raises(DataError, match="render the pairs again"):
        EditPairs(folder, "train").both_ways()


def test_the_way_back_is_known_where_words_say_what_was_there():
    was = {"age": 30.0, "skin_tone": 2.0, "hair_style": "bob", "beard": "none", "glasses": "none"}

    def back(kind, value="", words="", **known):
        before = was | known
        row = PairRow("000000", 0, "", (Edit(kind, value),))
        after = before | ({"age": float(value)} if kind == "age" else {})
        there, way = both_ways(row, before, after)
        assert [change.kind for change in there] == [kind]
        return way and (way[0].kind, way[0].value, way[0].words)

    assert back("glasses", "clear") == back("sunglasses", "sun") == ("no_glasses", "", "")
    assert back("sunglasses", "sun", glasses="round") is None           # others were under them
    assert back("makeup", "0.9") == ("no_makeup", "0", "")
    assert back("hat", "cap") == ("no_hat", "", "")
    assert back("beard", "full") == ("no_beard", "none", "")
    assert back("beard", "full", beard="goatee") == back("no_beard", "none", beard="goatee") == (
        "beard", "goatee", "a goatee")
    assert back("hair_style", "afro") == ("hair_style", "bob", "a bob")
    assert back("hair_style", "afro", hair_style="mohawk") is None      # no words for that
    assert back("skin_tone", "3.8") == ("skin_tone", "2.0", "lighter")
    assert back("age", "42.0") == ("age", "30.0", "younger")
    assert back("age", "60.0") is None                                  # no "thirty years younger"
    assert back("age", "46.0", age=34.0) is None                        # hair greys from 45 on
    for kind, value in (("hair_color", "blond"), ("eye_color", "blue"), ("expression", "grin"), ("no_hat", ""),
                        ("no_glasses", ""), ("no_makeup", "0"), ("background", "7")):
        assert back(kind, value) is None                                # what was there was the person's own


def test_a_pair_of_two_changes_goes_back_by_both_or_not_at_all():
    before = {"glasses": "none", "beard": "none", "hair_color": "black"}
    hat, dye = Edit("hat", "cap"), Edit("hair_color", "blond")
    assert both_ways(PairRow("000000", 0, "", (hat, dye)), before, before)[1] is None
    back = both_ways(PairRow("000000", 0, "", (hat, Edit("makeup", "0.9"))), before, before)[1]
    assert [change.kind for change in back] == ["no_hat", "no_makeup"]


def test_renders_are_put_into_wishes(pairs_folder):
    pairs = EditPairs(pairs_folder, "train")
    for row, (there, back) in zip(pairs.rows, pairs.both_ways(), strict=True):
        (change,) = there
        before, after = attributes_of(row, 0)
        assert change.kind == row.kind
        if row.kind == "eye_color":
            assert after[row.kind] == change.value and back is None


def test_values_are_put_into_words():
    assert words_of("hair_color", "darkbrown", {}) == "dark brown"
    assert words_of("age", "52.0", {"age": 40.0}) == "a little older"
    assert words_of("skin_tone", "3.0", {"skin_tone": 1.2}) == "darker"
    assert words_of("no_hat", "", {}) == ""


# --- words ------------------------------------------------------------------------------------------------------

def split_words(text):
    return tuple(re.findall(r"[a-z{}'-]+", text.lower()))


def test_no_training_phrasing_is_a_held_out_one_or_shares_four_words_with_one():
    held = {split_words(t) for kind in KINDS for t in phrases.templates(kind, held_out=True)}
    runs = {h[i:i + 4] for h in held for i in range(len(h) - 3)}
    for kind in KINDS:
        assert set(vocabulary.MORE[kind]).isdisjoint(phrases.templates(kind) + phrases.templates(kind, held_out=True))
        for template in (*vocabulary.MORE[kind], *crossed(kind)):
            own = split_words(template)
            assert own not in held, template
            assert not any(own[i:i + 4] in runs for i in range(len(own) - 3)), template


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


def test_instructions_become_compact_tokens(words):
    ids = words(["make the hair blond", "zyzzyva"])
    assert ids.shape == (2, TEXT_TOKENS) and ids.max() < words.size < 1000
    assert ids[0, 0] == words.size - 2 and ids[0, 5] == words.size - 1
    assert set(ids[1, 1:].tolist()) == {UNKNOWN, words.size - 1}
    known = words([vocabulary.sentence((Edit("hat", "cap", "a baseball cap"),), np.random.default_rng(k))
                   for k in range(60)])
    assert (known != UNKNOWN).all(), "every training sentence is in words that are trained"


def test_exported_text_encoder_says_the_same_with_clips_whole_vocabulary(words):
    torch.manual_seed(0)
    small = build_text_encoder(words.size).eval()
    full = words.full(small)
    text = "give this person glasses and blorb hair"
    ids = edit_pipeline.load_tokenizer()([text], padding="max_length", max_length=TEXT_TOKENS, return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(full(ids.input_ids).last_hidden_state, small(words([text])).last_hidden_state, atol=1e-5)
    again, original = words.compacted(full), small.state_dict()
    assert all(torch.equal(again[k], original[k]) for k in original)


def test_pretraining_teaches_what_is_asked_for(words):
    torch.manual_seed(0)
    wishes = [(Edit("hat", "cap", "a baseball cap"),), (Edit("no_hat", "", ""),), (Edit("no_beard", "none", ""),)]
    found = pretrain_text_encoder(build_text_encoder(words.size), words, wishes, steps=30, seed=0, batch=32)
    assert found["text_accuracy"] > 0.8
