"""Every callback ends in a status, no error leaves a control dead, and the newest work's message stays."""

import threading

import numpy as np
import pytest

pytest.importorskip("anywidget")

from widget_stand_in import flat, level_sliders  # noqa: E402

from s2flib.errors import S2FError  # noqa: E402
from s2flib.widgets import pad as pad_module
from s2flib.widgets.base import MAX_STATUS, one_line, png_bytes, sentence  # noqa: E402
from s2flib.widgets.compare import Compare
from s2flib.widgets.pad import SketchPad  # noqa: E402
from s2flib.widgets.sliders import Control, Sliders

GREY = np.full((8, 8, 3), 128, np.uint8)


# --- callbacks that fail ----------------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (S2FError("do this."), "do this."),
        (S2FError(""), "drawing failed (S2FError)."),
        (ValueError("a\nb"), "drawing failed (ValueError: a b)."),
        (MemoryError(), "drawing failed (MemoryError)."),
        (Mute(), "drawing failed (Mute)."),
        (KeyboardInterrupt(), "drawing was interrupted: try again."),
        (SystemExit(2), "drawing was interrupted: try again."),
        (OSError("a\udc80b"), "drawing failed (OSError: a?b)."),
    ],
)
def test_an_error_is_one_sentence(error, expected):
    assert sentence(error, "drawing") == expected


def test_a_status_is_one_bounded_line():
    assert one_line("  a\r\n b\t") == "a b"
    assert len(one_line("word " * 10**6)) == MAX_STATUS and one_line("word " * 999).endswith(" …")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError, Mute, MemoryError])
def test_a_failed_rendering_leaves_the_sliders_alive(error):
    """The front end waits for ``answered``: without it no slider would ever move again."""

    def render(level):
        if level == 13:
            raise error
        return flat(level)

    sliders = level_sliders(render)
    sliders.set_state({"request": {"serial": 1, "values": {"level": 13}}})
    assert sliders.answered == 1 and sliders.message and not sliders.message_ok
    assert sliders.values == {"level": 5} and sliders.to_array()[0, 0, 0] == 5
    sliders.set_state({"request": {"serial": 2, "values": {"level": 14}}})
    assert sliders.answered == 2 and sliders.values == {"level": 14}
    assert (sliders.message, sliders.message_ok) == ("", True)


def test_an_interrupted_cell_stops_but_its_status_is_shown():
    """Called from a cell, an interruption goes on to the cell; from the browser, nothing is there to be stopped."""
    pad = SketchPad(128)

    def interrupted(_):
        raise KeyboardInterrupt

    pad.on_draw(interrupted)
    with pytest.raises(KeyboardInterrupt):
        pad.add_stroke([(10, 10)])
    assert "interrupted" in pad.message and not pad.message_ok
    pad.set_state({"strokes": []})
    assert pad.strokes == [] and "interrupted" in pad.message


def test_the_message_and_its_success_belong_together():
    """The second callback succeeds: the first one's error is still an error."""
    pad, heard = SketchPad(128), []
    fails = [True]

    def first(_):
        if fails[0]:
            raise ValueError("first")

    pad.on_draw(first)
    pad.on_draw(lambda p: heard.append(1))
    pad.add_stroke([(10, 10)])
    assert heard == [1] and "first" in pad.message and not pad.message_ok
    fails[0] = False
    pad.add_stroke([(20, 20)])
    assert (pad.message, pad.message_ok) == ("", True)


def test_an_upload_whose_callback_fails_says_both():
    pad = SketchPad(128)
    pad.on_draw(lambda p: 1 / 0)
    drawing = np.full((64, 64), 255, np.uint8)
    drawing[20:40, 20:40] = 0
    assert pad.receive_upload("a.png", png_bytes(drawing)) is True
    assert pad.message.startswith("a.png loaded") and "ZeroDivisionError" in pad.message and not pad.message_ok


@pytest.mark.parametrize("make", [level_sliders, lambda: SketchPad(128), lambda: Compare(GREY, GREY)])
def test_a_widget_appears_even_if_its_picture_cannot_be_made(make, monkeypatch):
    widget = make()
    monkeypatch.setattr(type(widget), "static", lambda self: 1 / 0)
    data, _ = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and "image/png" not in data


def test_sliders_whose_first_rendering_fails_work_later():
    broken = [True]

    def render(level):
        if broken[0]:
            raise ValueError("not yet")
        return flat(level)

    sliders = Sliders(render, [Control("level", "Level", 0, 200, 1, 5)])
    assert "not yet" in sliders.message and sliders.values == {"level": 5}
    with pytest.raises(S2FError, match="not yet"):
        sliders.to_array()
    assert "image/png" not in sliders._repr_mimebundle_()[0]
    broken[0] = False
    assert sliders.set() and sliders.to_array()[0, 0, 0] == 5 and sliders.message == ""


@pytest.mark.parametrize("wrong", [dict(step=0), dict(step=-1), dict(low=9, high=1), dict(high=float("inf"))])
def test_controls_are_checked(wrong):
    with pytest.raises(S2FError, match="low < high and step > 0"):
        Control(**{"name": "a", "label": "A", "low": 0, "high": 1, "step": 0.1, "value": 0.5} | wrong)


def test_no_step_leads_out_of_the_range():
    control = Control("a", "A", 0, 1, 0.6, 0)
    assert [control.clean(v) for v in (0.2, 0.9, 1, 1e300)] == [0, 0.6, 0.6, 0.6]
    with pytest.raises(S2FError, match="must be a number"):
        control.clean(10**400)


# --- works that overlap -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("old_fails", [False, True])
def test_the_later_of_two_renderings_stays(old_fails):
    """The first one ends last, well or badly: image, values and message are the second one's, with both settings."""
    begun, go_on = threading.Event(), threading.Event()

    def render(a, b):
        if (a, b) == (1, 0):
            begun.set()
            assert go_on.wait(30)
            if old_fails:
                raise ValueError("old news")
        return flat(10 * a + b)

    sliders = Sliders(render, [Control("a", "A", 0, 9, 1, 0), Control("b", "B", 0, 9, 1, 0)])
    old = threading.Thread(target=lambda: sliders.set(a=1))
    old.start()
    assert begun.wait(30)
    assert sliders.set(b=2)
    assert sliders.values == {"a": 1, "b": 2}
    go_on.set()
    old.join(30)
    assert sliders.values == {"a": 1, "b": 2} and sliders.to_array()[0, 0, 0] == 12
    assert (sliders.message, sliders.message_ok) == ("", True)


@pytest.mark.parametrize("new_is_good", [True, False])
def test_a_file_that_takes_long_to_read_does_not_replace_a_later_one(new_is_good, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    real = pad_module.prepare_drawing

    def prepare(array, size):
        if threading.current_thread().name == "old":
            begun.set()
            assert go_on.wait(30)
        return real(array, size)

    monkeypatch.setattr(pad_module, "prepare_drawing", prepare)
    drawing = np.full((64, 64), 255, np.uint8)
    drawing[20:40, 20:40] = 0
    pad = SketchPad(128)
    other = np.where(np.arange(64) % 16 < 8, drawing, 255).astype(np.uint8)  # a square, and two bars
    old = threading.Thread(target=lambda: pad.receive_upload("old.png", png_bytes(other)), name="old")
    old.start()
    assert begun.wait(30)
    assert pad.receive_upload("new.png", png_bytes(drawing) if new_is_good else b"") is new_is_good
    shown, said = pad.to_array(), pad.message
    go_on.set()
    old.join(30)
    assert (pad.to_array() == shown).all() and pad.message == said and said.startswith("new.png")
    assert pad.message_ok == new_is_good


def test_errors_of_the_callbacks_of_two_threads_do_not_mix():
    pad, begun, go_on = SketchPad(128), threading.Event(), threading.Event()

    def slow(_):
        if threading.current_thread().name == "old":
            begun.set()
            assert go_on.wait(30)
            raise ValueError("old")

    pad.on_draw(slow)
    old = threading.Thread(target=lambda: pad.add_stroke([(10, 10)]), name="old")
    old.start()
    assert begun.wait(30)
    pad.clear()
    go_on.set()
    old.join(30)
    assert (pad.message, pad.message_ok) == ("", True)
