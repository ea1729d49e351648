"""What the steps of a case accept, refuse and tell."""

import json
import os
import shutil

import pytest
from case_files import change, forge
from PIL import Image

from s2flib import case as cases
from s2flib.case import making
from s2flib.datasets import SynthFaces
from s2flib.errors import ImageError, S2FError
from s2flib.files import data_dir


def test_any_text_and_any_name(case, tmp_path, page):
    """Bytes that are no UTF-8 in names and texts, and escape sequences in a stranger's log."""
    odd = tmp_path / os.fsdecode(b"na\xffme.png")
    shutil.copy(page, odd)
    path = tmp_path / "b.s2fcase"
    cases.new_case(odd, path, n=1, who=os.fsdecode(b"\xfe"))
    done = cases.choose_face(path, 1, "schön " + os.fsdecode(b"\xff"))
    assert cases.verify_case(path).verified and done.entries[1].data["reason"] == "schön ?"
    cases.export_case(path, tmp_path / "out")

    def escape(data, blobs):
        data[2]["source"] = "\x1b[31mred"
        data[0]["drawing_name"] = data[1]["reason"] = "\x1b[2J"

    forge(case, escape)
    text = "".join(cases.verify_case(case, lineups=False).problems) + cases.summary(cases.read_case(case))
    assert "\x1b" not in text and "which is not in the case" in text


def test_new_refuses(case, tmp_path, page):
    for arguments, why in (
        ((page, case), "never overwritten"),
        ((page, tmp_path / "b.zip"), "end in .s2fcase"),
        ((tmp_path / "no.png", tmp_path / "b.s2fcase"), "no.png"),
        ((page, tmp_path / "b.s2fcase", "tiny", 0), "between 1 and 64"),
        ((page, tmp_path / "b.s2fcase", "tiny", 1, -1), "seed"),
        ((page, tmp_path / "b.s2fcase", "huge"), "unknown preset"),
        ((page, tmp_path / "b.s2fcase", "tiny", 1, 0, tmp_path / "no.safetensors"), "no.safetensors"),
    ):
        with pytest.raises(S2FError, match=why):
            cases.new_case(*arguments)
    Image.new("RGB", (200, 200), "white").save(tmp_path / "blank.png")
    with pytest.raises(ImageError, match="no drawing"):
        cases.new_case(tmp_path / "blank.png", tmp_path / "b.s2fcase")
    assert not (tmp_path / "b.s2fcase").exists() and not list(tmp_path.glob(".*"))


def test_steps_refuse(case, page, tmp_path):
    fresh = tmp_path / "fresh.s2fcase"
    cases.new_case(page, fresh, n=1)
    for step in (lambda: cases.edit_face(fresh, "add glasses"), lambda: cases.run_lineup(fresh)):
        with pytest.raises(S2FError, match="no face of .* has been chosen"):
            step()
    before = case.read_bytes()
    for step, why in (
        (lambda: cases.choose_face(case, 4, "x"), "no face 4: choose one from 1 to 3"),
        (lambda: cases.choose_face(case, 0, "x"), "no face 0"),
        (lambda: cases.choose_face(case, 1, "  "), "needs a reason"),
        (lambda: cases.choose_face(case, 1, "x" * 3000), "3,000 characters"),
        (lambda: cases.choose_face(case, 1, "x", {1: "y"}), "both chosen and rejected"),
        (lambda: cases.choose_face(case, 1, "x", {7: "y"}), "no face 7"),
        (lambda: cases.edit_face(case, ""), "empty"),
        (lambda: cases.edit_face(case, "make it so", seed=-1), "seed"),
        (lambda: cases.run_lineup(case, split="exam"), "exam"),
        (lambda: cases.run_lineup(case, tmp_path, "test"), "one gallery"),
        (lambda: cases.run_lineup(case, tmp_path / "no"), "not a folder"),
        (lambda: cases.run_lineup(case, limit=1), "fewer than two people"),
    ):
        with pytest.raises(S2FError, match=why):
            step()
    assert case.read_bytes() == before


def test_lineup_in_a_folder(case_weights, page, tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_WEIGHTS", str(case_weights))
    monkeypatch.setattr(making, "CONTROLS", 3)
    case = tmp_path / "b.s2fcase"
    cases.new_case(page, case, n=1)
    cases.choose_face(case, 1, "the only one")
    test = SynthFaces(data_dir() / "synthfaces", "test", 128)
    folder = tmp_path / "register"
    for person in range(2):  # two people with two photos each, two with one, and a picture without a face
        for shot in range(2):
            (folder / f"person {person}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(test.read(4 * person + shot)[0]).save(folder / f"person {person}" / f"{shot}.png")
    for person in (2, 3):
        Image.fromarray(test.read(4 * person)[0]).save(folder / f"{person}.png")
    Image.new("RGB", (200, 200), "grey").save(folder / "wall.png")
    done = cases.run_lineup(case, folder)
    data = done.entries[-1].data
    assert data["gallery"]["people"] == 4 and list(data["gallery"]["left_out"]) == ["wall.png"]
    assert {hit["photo"] for hit in data["result"]["top"]} == {"person 0/0.png", "person 1/0.png", "2.png", "3.png"}
    assert data["result"]["photo_against_photo"]["n"] == 2 and data["result"]["chance"]["rank1"] == 0.25
    assert str(tmp_path) not in json.dumps(data)
    with pytest.raises(S2FError, match="pass it with --gallery"):
        cases.verify_case(case)
    assert cases.verify_case(case, gallery=folder).verified
    (folder / "3.png").unlink()
    assert "other photos" in cases.verify_case(case, gallery=folder).problems[0]
    assert "photos left out" in cases.summary(done)


def test_summary(case):
    text = cases.summary(cases.read_case(case))
    for words in (
        "by the artist",
        "3 faces of page.png (preset tiny, seed 5)",
        "faces/02.png: the narrow chin",
        "rejected faces/01.png: too old",
        "make the hair blond (seed 1) -> edits/0002_01.png",
        "against 6 people (split test), dlib ResNet",
        "shuffled control",
        "photo against photo: rank-1",
        "never evidence",
        cases.read_case(case).head,
    ):
        assert words in " ".join(text.split()), (words, text)
    change(case, faces_02=None)
    assert "CHANGED: faces/02.png is missing" in cases.summary(cases.read_case(case))
