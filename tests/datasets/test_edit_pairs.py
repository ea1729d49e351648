"""Edit pairs from disk, the words that ask for them, and the text encoder's pretraining."""

import json

import pytest
from editing_stand_in import pairs_folder_fixture, write_pairs  # noqa: F401  (fixtures)

from s2flib.datasets.edit_pairs import EditPairs, PairRow, attributes_of, both_ways
from s2flib.errors import DataError
from s2flib.synthfaces.edits import Edit

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
    assert back("sunglasses", "sun", glasses="round") is None  # others were under them
    assert back("makeup", "0.9") == ("no_makeup", "0", "")
    assert back("hat", "cap") == ("no_hat", "", "")
    assert back("beard", "full") == ("no_beard", "none", "")
    assert (
        back("beard", "full", beard="goatee")
        == back("no_beard", "none", beard="goatee")
        == ("beard", "goatee", "a goatee")
    )
    assert back("hair_style", "afro") == ("hair_style", "bob", "a bob")
    assert back("hair_style", "afro", hair_style="mohawk") is None  # no words for that
    assert back("skin_tone", "3.8") == ("skin_tone", "2.0", "lighter")
    assert back("age", "42.0") == ("age", "30.0", "younger")
    assert back("age", "60.0") is None  # no "thirty years younger"
    assert back("age", "46.0", age=34.0) is None  # hair greys from 45 on
    for kind, value in (
        ("hair_color", "blond"),
        ("eye_color", "blue"),
        ("expression", "grin"),
        ("no_hat", ""),
        ("no_glasses", ""),
        ("no_makeup", "0"),
        ("background", "7"),
    ):
        assert back(kind, value) is None  # what was there was the person's own


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
