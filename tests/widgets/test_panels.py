"""The line-up panel and the drawing board, without a browser."""

import io
import json

import numpy as np
import pytest
import torch

from s2flib.errors import S2FError
from s2flib.images import read_metadata
from s2flib.widgets import DrawingBoard, LineupPanel, Round


def photos(n: int) -> list[np.ndarray]:
    return [np.full((32, 32, 3), 20 * i + 10, np.uint8) for i in range(n)]


def panel() -> LineupPanel:
    first, *others = photos(5)
    return LineupPanel([Round([first], others, 2, machine=1), Round([first], others, None)])


def buttons(p: LineupPanel) -> list:
    return [box.children[1] for box in p.gallery.children]


def everything(widget) -> str:
    """All state that a browser gets of a widget and its children."""
    states = [str({k: v for k, v in widget.get_state().items() if k not in ("children", "layout", "style")})]
    return " ".join(states + [everything(child) for child in getattr(widget, "children", ())])


def test_the_answer_appears_only_after_a_choice():
    p = panel()
    before = everything(p)
    assert all(word not in before for word in ("right", "wrong", "success", "judge"))
    assert len({str(b.button_style) for b in buttons(p)}) == 1 and p.following.disabled
    buttons(p)[0].click()
    assert p.status.value == "wrong: it is photo 3; the judge's first is photo 2; 0 of 1 right"
    assert [b.button_style for b in buttons(p)] == ["danger", "", "success", ""] and not p.following.disabled


def test_a_second_choice_changes_nothing_and_rounds_are_counted():
    p = panel()
    p.next()
    assert p.status.value == "choose first" and p.place == 0
    p.choose(2)
    p.choose(1)
    assert (p.right, p.answered, p.chosen) == (1, 1, 2) and "already" in p.status.value
    p.following.click()
    assert p.place == 1 and [b.button_style for b in buttons(p)] == [""] * 4
    p.absent.click()
    assert p.status.value == "right: the person is not there; 2 of 2 right" and p.following.disabled


def test_bad_rounds_and_choices_are_refused_in_a_sentence():
    first, *others = photos(4)
    for rounds in ([], [Round([], others, 0)], [Round([first], others[:1], 0)], [Round([first], others, 3)]):
        with pytest.raises(S2FError, match="needs"):
            LineupPanel(rounds)
    p = panel()
    p.choose(9)
    assert "no photo 9" in p.status.value and not p.revealed


def test_the_static_panel_does_not_tell_either():
    p = panel()
    before = p.static()
    p.choose(2)
    assert p.static() == before and read_metadata(io.BytesIO(before))["synthetic"] == "true"
    assert p._repr_mimebundle_()["image/png"] == before


class Fake:
    """A PSP whose variants differ by their number where the drawing is dark."""

    class encoder:  # noqa: N801
        size = 32

    latent_avg = torch.zeros(1)

    def multimodal(self, drawing, n, seed):
        self.seen = drawing
        return torch.stack([(1 - drawing[0]) * (k / n) * 2 - 1 for k in range(n)])[:, None].expand(-1, 3, -1, -1)


def test_every_stroke_makes_the_faces_again():
    board = DrawingBoard(Fake(), n=4)
    assert board.face.value == b"" and read_metadata(io.BytesIO(board.static())).get("synthetic") != "true"
    board.pad.add_stroke([(0, 256), (512, 256)], width=60, ink=1)
    first = board.face.value, board.leaves_open.value
    assert all(first) and "4 faces fit" in board.status.value and board.psp.seen.shape == (1, 32, 32)
    board.pad.add_stroke([(256, 0), (256, 512)], width=60, ink=1)
    assert board.leaves_open.value != first[1]
    for data in (board.face.value, board.leaves_open.value, board.static()):
        assert read_metadata(io.BytesIO(data))["synthetic"] == "true"
    board.pad.clear()
    assert board.face.value == b"" == board.leaves_open.value
    assert json.dumps(board.status.value) == '""'


def test_an_error_becomes_a_sentence():
    broken = Fake()
    broken.multimodal = lambda *a: 1 / 0
    board = DrawingBoard(broken)
    board.pad.add_stroke([(0, 0), (9, 9)])
    assert "making the face failed (ZeroDivisionError" in board.status.value
    with pytest.raises(S2FError, match="at least two"):
        DrawingBoard(Fake(), n=1)
