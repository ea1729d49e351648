"""A chain of edits: undo, redo, and what an error leaves."""

import json

import pytest
from editing_stand_in import close, face_fixture, tiny_pipe_fixture, tiny_pipeline_folder_fixture  # noqa: F401  (fixtures)
from PIL import Image

from s2flib.errors import S2FError
from s2flib.images import read_metadata, save_image
from s2flib.instruct_pix2pix import Cancelled, EditSession

FAST = dict(steps=2)
WORDS = "make the hair blond"


def test_session_chains_undoes_and_redoes(face, tiny_pipe, tmp_path):
    session = EditSession(face, pipe=tiny_pipe, **FAST)
    assert (session.image == face).all()
    first = session.apply("brown hair")
    second = session.apply("blue eyes", seed=4)
    assert (second.before == first.image).all() and session.instructions == ["brown hair", "blue eyes"]
    assert (session.undo() == first.image).all() and (session.redo() == second.image).all()
    assert json.loads(Image.open(session.save(tmp_path / "out.png")).text["history"]) == ["brown hair", "blue eyes"]
    session.undo()
    session.apply("add glasses")
    assert session.instructions == ["brown hair", "add glasses"]
    with pytest.raises(S2FError, match="redo"):
        session.redo()
    session.undo(), session.undo()
    assert (session.image == face).all()
    with pytest.raises(S2FError, match="undo"):
        session.undo()
    with pytest.raises(S2FError, match="edited yet"):
        session.save(tmp_path / "none.png")


def test_an_edit_says_what_its_source_said(face, tiny_pipe, tmp_path):
    source = save_image(tmp_path / "face.png", face, {"sketch": "drawing.png", "seed": 3})
    session = EditSession(source, pipe=tiny_pipe, **FAST)
    session.apply("brown hair")
    saved = read_metadata(session.save(tmp_path / "edited.png"))
    assert saved["synthetic"] == "true" and "drawing.png" in saved["source_metadata"]
    session = EditSession(face, pipe=tiny_pipe, **FAST)
    session.apply("brown hair")
    assert "source_metadata" not in read_metadata(session.save(tmp_path / "array.png"))


def test_a_failed_edit_leaves_the_session_as_it_was(face, tiny_pipe):
    session = EditSession(face, pipe=tiny_pipe, **FAST)
    with pytest.raises(S2FError):
        session.chain(["brown hair", ""])  # all instructions are read before the first edit
    assert session.instructions == []
    session.chain(["brown hair"])
    with pytest.raises(Cancelled):
        session.apply("blue eyes", cancel=lambda: True)
    assert session.instructions == ["brown hair"]
