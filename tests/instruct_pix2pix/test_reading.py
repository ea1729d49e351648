"""Witnesses' sentences: read right or refused, and never the opposite of what was said."""

import csv
from pathlib import Path

import pytest

from s2flib.errors import S2FError
from s2flib.instruct_pix2pix import reading_words
from s2flib.instruct_pix2pix.reading import MENTIONS, read
from s2flib.instruct_pix2pix.vocabulary import templates
from s2flib.synthfaces import phrases
from s2flib.synthfaces.edits import WORDS

HERE = Path(__file__).parent
# All were written without having seen the word lists. The first set was used to write the rules. The second was read in
# three parts of 240, 60 and 40, each once before its errors were looked at: 211, 48 and 37 right, 25, 9 and 2 refused,
# 4, 3 and 1 wrong, of which 0, 2 and 1 the opposite. The rules were then changed, so it is no measure of them any more.
SENTENCES, HELD_OUT = (
    list(csv.DictReader(open(HERE / name, encoding="utf-8", newline="")))
    for name in ("sentences.csv", "sentences_held_out.csv")
)
OPPOSITES = [("glasses", "no_glasses"), ("sunglasses", "no_glasses"), ("beard", "no_beard"), ("makeup", "no_makeup"),
             ("hat", "no_hat"), ("age=older", "age=younger"), ("skin_tone=lighter", "skin_tone=darker")]  # fmt: skip


def found(sentence: str) -> list[str]:
    try:
        return [f"{w.edit.kind}={w.edit.value}" if w.edit.value else w.edit.kind for w in read(sentence)]
    except S2FError:
        return ["refuse"]


def right(row: dict) -> bool:
    wanted = [part.replace("background=any", "background").split("|") for part in row["expected"].split(";")]
    got = found(row["sentence"])
    return len(got) == len(wanted) and all(g in w for g, w in zip(got, wanted, strict=True))


def opposite(row: dict) -> bool:
    """Something was done that was forbidden, or whose contrary was asked for."""
    got, wanted = found(row["sentence"]), row["expected"]
    if row["kind_of_sentence"] in ("negation", "outside") and wanted == "refuse":
        return got != ["refuse"]
    for a, b in OPPOSITES:
        for one, other in ((a, b), (b, a)):
            if any(g.startswith(one) for g in got) and any(
                w.startswith(other) for w in wanted.replace("|", ";").split(";")
            ):
                return True
    return False


def test_no_word_is_on_two_lists():
    """A filler that is also doubtful would silently be allowed."""
    words = [w for key in ("refused", "doubtful", "fillers") for line in reading_words.DATA[key] for w in line.split()]
    assert not {w for w in words if words.count(w) > 1}
    assert not reading_words.KNOWN & (reading_words.REFUSED | reading_words.DOUBTFUL)
    expressions = [e for of in MENTIONS.values() for es in of.values() for e in es]
    assert not {e for e in expressions if expressions.count(e) > 1}


def test_at_least_95_percent_are_right():
    wrong = [row["sentence"] for row in SENTENCES if not right(row)]
    assert len(SENTENCES) >= 200 and len(wrong) <= 0.05 * len(SENTENCES), wrong


def test_none_is_done_the_opposite_way():
    assert not [row["sentence"] for row in SENTENCES + HELD_OUT if opposite(row)]


def test_held_out_sentences_are_right_or_refused():
    """323 of 340 right, 14 refused, three wrong, after the rules were changed (before: 296, 36 and 8)."""
    wrong = [row["sentence"] for row in HELD_OUT if not right(row)]
    assert len(HELD_OUT) >= 200 and len(wrong) <= 0.05 * len(HELD_OUT), wrong
    assert sum(found(sentence) != ["refuse"] for sentence in wrong) <= 0.01 * len(HELD_OUT)


# sentences that name a thing and mean that it is not there, or say nothing about the picture
NOT_THERE = """
he had lost his glasses; the hat was gone; the glasses are gone; his glasses were missing; she left her glasses at
home; his glasses had fallen off; he used to have a beard; she stopped wearing glasses; a beard? definitely not;
glasses? no; I doubt he had a beard; it is wrong that he had a beard; the beard is wrong; the beard is too long; too
much makeup; undo the glasses; a hat would be wrong; he refused to smile; she looked anything but happy; far from
happy; un-smiling; the opposite of a smile; avoid glasses; skip the beard; everything but glasses; except the
glasses; he lacks a beard; an absent beard; lacking glasses; nor a hat; he aint bald; make the glasses disappear;
hide the glasses; shorten the beard; the missing hat; aint got no beard; she isn't older; never blond; he was no
redhead; no blue eyes; everything but a hat; a hat? no; no smile, no hat? no
"""
NOT_THERE = " ".join(NOT_THERE.split()).split("; ")


@pytest.mark.parametrize(
    "sentence, words",
    [
        ("his eyes aren't blue but green", ["make the eyes green"]),
        ("The eyes weren't brown, they were green.", ["make the eyes green"]),
        ("not older but younger", ["make them younger"]),
        ("Not blonde, no, she was a redhead.", ["make the hair red"]),
        ("Her hair wasn't short, it was long.", ["give this person long straight hair"]),
        ("It wasn't a beard, only a moustache.", ["add a moustache"]),
        ("he was not bald, he had a ponytail", ["give this person a ponytail"]),
        ("nothing but glasses", ["add glasses"]),
        ("no hat but glasses", ["remove the hat", "add glasses"]),
    ],
)
def test_what_was_not_so_gives_way_to_what_was(sentence, words):
    assert [w.words for w in read(sentence)] == words


@pytest.mark.parametrize(
    "sentence, words, ignored",
    [
        ("hair like the princess in my book, golden", "make the hair blond", ()),
        ("she looked like a redhead", "make the hair red", ()),
        ("He wore zingy sunglasses while it was snowing", "add sunglasses", ("zingy", "while", "snowing")),
        ("red lipstick", "add make-up", ()),
    ],
)
def test_what_a_witness_says_beside_it_is_ignored_and_told(sentence, words, ignored):
    (wish,) = read(sentence)
    assert (wish.words, wish.ignored) == (words, ignored)


@pytest.mark.parametrize(
    "sentence",
    ["did he have a beard?", "add a monocle", "add a unicorn horn and glasses", "il avait une grosse moustache noire",
     "completely bald with long wavy hair", "not black", "do not add a hat, only glasses", "an un-bearded man"],
)  # fmt: skip
def test_refused(sentence):
    with pytest.raises(S2FError):
        read(sentence)


@pytest.mark.parametrize("sentence", NOT_THERE)
def test_what_is_said_not_to_be_there_is_never_added(sentence):
    assert set(found(sentence)) <= {"refuse", "no_glasses", "no_beard", "no_hat"}


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("change her from blond to brown hair", ["hair_color=brown"]),
        ("from a beanie to a cap", ["hat=cap"]),
        ("a cap instead of the beanie", ["hat=cap"]),
        ("without glasses but with a beard", ["no_glasses", "beard=full"]),
        ("no glasses or hat", ["no_glasses", "no_hat"]),
        ("no glasses, sunglasses", ["refuse"]),  # a list of absent things, or a correction?
        ("sunglasses, not glasses", ["refuse"]),
        ("add glasses and remove the glasses", ["refuse"]),
        ("he had a beard before, now he is clean-shaven", ["refuse"]),
        ("a goatee and a full beard", ["refuse"]),
        ("shave the head", ["hair_style=bald"]),
    ],
)
def test_several_things_in_one_sentence(sentence, wanted):
    assert found(sentence) == wanted


@pytest.mark.parametrize("kind", phrases.KINDS)
def test_every_phrasing_of_the_model_is_read_as_its_kind(kind):
    """Training and held-out phrasings reach the model unchanged."""
    values = WORDS.get(
        kind, {"older": "older"} if kind == "age" else {"darker": "darker"} if kind == "skin_tone" else {"": ""}
    )
    for template in (*templates(kind), *phrases.templates(kind, held_out=True)):
        for value, words in values.items():
            text = template.format(x=words)
            (wish,) = read(text)
            assert wish.words == text
            # some wordings fit two kinds ("make the face darker", "wearing a beanie")
            assert wish.edit.kind == kind or "{x}" in template, text
            assert not wish.edit.value or wish.edit.value == value or wish.edit.kind != kind


@pytest.mark.parametrize("kind", sorted(set(MENTIONS) - {"instead", "part", "colour", "length"}))
def test_every_expression_means_one_edit_in_a_known_wording(kind):
    for value, expressions in MENTIONS[kind].items():
        assert value == "" or value in WORDS.get(kind, {}) or kind in ("age", "skin_tone"), (kind, value)
        for expression in expressions:
            assert expression == expression.lower() and "'" not in expression
            wishes = read(f"I think it was {expression}")
            assert [w.edit.kind for w in wishes] == [kind], expression
            assert wishes[0].edit.value == value or value == "", expression
            (again,) = read(wishes[0].words)
            assert again.edit.kind == kind


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("add a scar", "scar"),
        ("give him a monocle", "monocle"),
        ("make the nose bigger", "nose"),
        ("do not add glasses", "not wanted"),
        ("not blond hair", "not wanted"),
        ("make it green", "not clear what should be green"),
        ("make the hair green", "hair cannot be made green"),
        ("change the hair", "does not say how the hair"),
        ("please", "asks for nothing"),
        ("leave the beard as it is", "asks to keep"),
        ("Mach die Haare blond", "mach, die, haare"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_is_possible(sentence, words):
    with pytest.raises(S2FError) as error:
        read(sentence)
    message = str(error.value)
    assert words in message and message.endswith(".") and "\n" not in message


def test_asides_are_ignored_and_told():
    (wish,) = read("he had this massive afro")
    assert (wish.edit.kind, wish.edit.value, wish.ignored) == ("hair_style", "afro", ("massive",))
    assert found("not a massive afro") == ["refuse"], "beside a negation nothing is ignored"


def test_case_and_punctuation_do_not_matter():
    for text in ("Blue eyes!", "blue   eyes", "BLUE EYES.", "“blue eyes”", "blue-eyed?"):
        assert found(text) == ["eye_color=blue"]
    for text in ("", "...", "?!", "   "):
        assert found(text) == ["refuse"]


# each principle of the reading: sentences that it makes readable, and others like them that must still be refused
PRINCIPLES = {
    "a place on the body says where": [
        ("a bob that stops at the chin", ["hair_style=bob"]),
        ("hair down to the collar", ["hair_style=medium"]),
        ("take the glasses off his nose", ["no_glasses"]),
        ("he smiled with one corner of his mouth", ["expression=smile"]),
        ("brown eyes, mouth hanging open", ["refuse"]),
        ("a scar on his chin and a beard", ["refuse"]),
        ("a smaller mouth and a smile", ["refuse"]),
        ("he had no hair on his face", ["no_beard"]),
    ],
    "comparisons": [
        ("blonder than that", ["hair_color=blond"]),
        ("a lighter shade of blue than these eyes", ["refuse"]),
        ("Her eyes were a lighter shade of blue than these.", ["eye_color=lightblue"]),
        ("older than him and with a hat", ["age=older", "hat=brim"]),
        ("her hair was darker than that", ["refuse"]),
        ("he wasn't blonder than this", ["refuse"]),
        ("no older than that", ["refuse"]),
    ],
    "too much asks for less": [
        ("this one is too young", ["age=older"]),
        ("You've made his skin too dark.", ["skin_tone=lighter"]),
        ("too pale, I think", ["skin_tone=darker"]),
        ("her skin isn't dark enough", ["skin_tone=darker"]),
        ("he was too young", ["refuse"]),
        ("he was too young to shave", ["refuse"]),
        ("not too old", ["refuse"]),
        ("The picture is too dark.", ["refuse"]),
        ("her hair is too dark", ["refuse"]),
        ("the glasses are too dark", ["refuse"]),
        ("with a beard too", ["beard=full"]),
    ],
    "hedges": [
        ("I'd be grateful if you could add glasses", ["glasses"]),
        ("three days' stubble at the very least", ["beard=stubble"]),
        ("he had a beard, didn't he?", ["beard=full"]),
        ("no hat or anything like that", ["no_hat"]),
        ("if you can see a beard, remove it", ["refuse"]),
        ("Glasses? I don't know.", ["refuse"]),
        ("wasn't he bald?", ["refuse"]),
        ("it's not true, he had glasses", ["refuse"]),
        ("not bad, but he had glasses", ["glasses"]),
        ("nah no hat, mate", ["no_hat"]),
    ],
    "misspelled words": [
        ("brwon hair", ["hair_color=brown"]),
        ("remvoe the beard", ["no_beard"]),
        ("withuot glasses", ["no_glasses"]),
        ("I heard him smile", ["expression=smile"]),
        ("he was beardles", ["refuse"]),
        ("hatles", ["refuse"]),
        ("beachy waves", ["hair_style=longwavy"]),
    ],
    "negating twice": [
        ("he never took his glasses off", ["refuse"]),
        ("he was never without his hat", ["refuse"]),
        ("nobody could miss his beard", ["refuse"]),
        ("he wasn't clean-shaven", ["refuse"]),
        ("he no longer had a beard", ["no_beard"]),
        ("no longer bald", ["refuse"]),
        ("he was not clean-shaven; he wore a goatee", ["beard=goatee"]),
        ("it was not black, his hair, it was brown", ["hair_color=brown"]),
        ("not brown hair, black hair", ["hair_color=black"]),
        ("no smile, she kept a straight face", ["expression=neutral"]),
        ("no beard, a goatee", ["refuse"]),
    ],
    "a vague name and a finer one": [
        ("a little beard, a goatee", ["beard=goatee"]),
        ("a beard and a moustache", ["beard=full"]),
        ("a hat, a big woolly one", ["hat=beanie"]),
        ("the eyes were blue, I would say pale blue", ["eye_color=lightblue"]),
        ("the beard was short", ["beard=short"]),
        ("a full beard, a goatee", ["refuse"]),
        ("a hat, not a woolly one", ["refuse"]),
    ],
    "verbs of removal that remove nothing": [
        ("he looked startled when the alarm went off", ["expression=surprise"]),
        ("chuck some sunnies on him", ["sunglasses"]),
        ("chuck the sunnies", ["no_glasses"]),
        ("her eyes were a very clear blue", ["eye_color=blue"]),
        ("clear his face of the beard", ["no_beard"]),
        ("he took off his hat", ["no_hat"]),
        ("take of his hat", ["no_hat"]),
        ("he wore a hat but took it off", ["refuse"]),
    ],
    "the colour of something else": [
        ("he had long hair and a black bag", ["refuse"]),
        ("he had a black bag and long hair", ["refuse"]),
        ("a ginger fella", ["hair_color=red"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("sentence, wanted", [case for cases in PRINCIPLES.values() for case in cases])
def test_principles(sentence, wanted):
    assert found(sentence) == wanted
