"""What the browser sends is checked and bounded; every callback ends in a status, and the newest work's stays."""

import io
import threading
import tracemalloc

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("anywidget")

from s2flib.errors import ImageError, S2FError  # noqa: E402
from s2flib.widgets import base  # noqa: E402
from s2flib.widgets import pad as pad_module
from s2flib.widgets.base import MAX_PNG, MAX_STATUS, one_line, png_bytes, sentence  # noqa: E402
from s2flib.widgets.compare import Compare
from s2flib.widgets.pad import MAX_POINTS, MAX_STROKES, SketchPad, check_strokes  # noqa: E402
from s2flib.widgets.sliders import Control, Sliders

GREY = np.full((8, 8, 3), 128, np.uint8)
GOOD = {"w": 4, "ink": 1, "erase": False, "p": [1, 2, 1]}


def flat(level) -> np.ndarray:
    return np.full((8, 8, 3), level, np.uint8)


def level_sliders(render=flat) -> Sliders:
    return Sliders(render, [Control("level", "Level", 0, 200, 1, 5)])


def listen(widget) -> list[dict]:
    """The messages that the widget sends to the browser from now on."""
    sent = []
    widget._send = lambda msg, buffers=None: sent.append(msg)
    return sent


def resent(sent: list[dict]) -> set[str]:
    """The names of the values in these messages, binary ones included."""
    updates = [msg for msg in sent if msg["method"] == "update"]
    return {name for msg in updates for name in [*msg["state"], *(path[0] for path in msg["buffer_paths"])]}


# --- what the browser sends -------------------------------------------------------------------------------------

HUGE = 10**400  # a whole number that JSON allows and a float cannot hold
BAD_STROKES = {
    "no list": "x",
    "a dict": {"p": [1, 2, 1]},
    "no stroke": [1],
    "text for numbers": [{**GOOD, "p": "121"}],
    "numbers as text": [{**GOOD, "p": ["1", "2", "1"]}],
    "truth for a number": [{**GOOD, "w": True}],
    "text for truth": [{**GOOD, "erase": "false"}],
    "nested": [{**GOOD, "p": [[1, 2, 1]]}],
    "a dict of points": [{**GOOD, "p": {"0": 1, "1": 2, "2": 1}}],
    "huge width": [{**GOOD, "w": HUGE}],
    "huge point": [{**GOOD, "p": [HUGE, 2, 1]}],
    "NaN": [{**GOOD, "p": [1, float("nan"), 1]}],
    "infinite": [{**GOOD, "p": [1, float("-inf"), 1]}],
    "NaN width": [{**GOOD, "w": float("nan")}],
    "negative": [{**GOOD, "p": [-1, 2, 1]}],
    "no points": [{**GOOD, "p": []}],
    "null": [{**GOOD, "p": None}],
    "too many strokes": [GOOD] * (MAX_STROKES + 1),
    "too many points": [{**GOOD, "p": [1, 2, 1] * MAX_POINTS}, GOOD],
}


@pytest.mark.parametrize("strokes", BAD_STROKES.values(), ids=BAD_STROKES)
def test_refused_strokes_leave_the_drawing_and_the_browser_gets_it_back(strokes):
    pad, heard = SketchPad(128), []
    pad.add_stroke([(10, 10)])
    pad.on_draw(lambda p: heard.append(p.strokes))
    before, sent = pad.strokes, listen(pad)
    pad.set_state({"strokes": strokes, "background": memoryview(png_bytes(GREY))})
    assert pad.strokes == before and pad.background == b"" and heard == []
    assert pad.message and not pad.message_ok and "\n" not in pad.message and len(pad.message) <= MAX_STATUS
    assert resent(sent) >= {"strokes", "background", "message"}
    pad.set_state({"strokes": [GOOD]})  # the next good one is taken, and the message goes
    assert len(pad.strokes) == 1 and (pad.message, pad.message_ok) == ("", True) and len(heard) == 1


def test_points_are_counted_before_any_is_copied():
    strokes = [{**GOOD, "p": [1] * 3_000_000}]
    tracemalloc.start()
    with pytest.raises(S2FError, match="more than 60000 points"):
        check_strokes(strokes, 128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "background",
    [
        10**9,
        [255] * 100,
        "iVBORw0KGgo=",
        {"a": 1},
        True,
        memoryview(b"GIF89a"),
        memoryview(bytes(MAX_PNG + 1)),
        memoryview(png_bytes(np.zeros((1, 1), np.uint8))[:40]),
    ],
    ids=["number", "list", "base64", "dict", "truth", "no picture", "too many bytes", "truncated"],
)
def test_a_refused_background_takes_no_memory(background):
    pad = SketchPad(128)
    pad.add_stroke([(10, 10)])
    sent = listen(pad)
    tracemalloc.start()
    pad.set_state({"background": background})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000, f"{peak:,} bytes"
    assert pad.background == b"" and pad.message and not pad.message_ok and "background" in resent(sent)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("where", ["background", "upload"])
def test_pixels_are_counted_before_they_are_decoded(where, monkeypatch):
    """11,000 × 11,000 px are 15 kB as a file and 363 MB as an array."""
    out = io.BytesIO()
    Image.new("1", (11_000, 11_000)).save(out, "PNG")
    monkeypatch.setattr(base, "load_image", lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr(pad_module, "as_array", lambda *_: pytest.fail("decoded"))
    pad = SketchPad(128)
    if where == "background":
        pad.set_state({"background": memoryview(out.getvalue())})
    else:
        assert pad.receive_upload("huge.png", out.getvalue()) is False
    assert "million pixels" in pad.message and not pad.message_ok and pad.empty


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: SketchPad(128), {"size": 10**6}),
        (lambda: SketchPad(128), {"size": -5}),
        (lambda: SketchPad(128), {"max_points": 10**9}),
        (lambda: SketchPad(128), {"width_px": "wide"}),
        (lambda: SketchPad(128), {"pen_width": float("nan")}),
        (lambda: SketchPad(128), {"_esm": "alert(1)"}),
        (lambda: level_sliders(), {"values": {"level": 1e9, "nobody": 1}}),
        (lambda: level_sliders(), {"controls": []}),
        (lambda: level_sliders(), {"image": memoryview(b"junk")}),
        (lambda: level_sliders(), {"answered": 99}),
        (lambda: Compare(GREY, GREY), {"before": memoryview(b"junk")}),
        (lambda: Compare(GREY, GREY), {"position": None}),
        (lambda: Compare(GREY, GREY), {"position": "left"}),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_the_browser_changes_only_what_is_its_own(make, change):
    widget = make()
    (name,) = change
    before, sent = getattr(widget, name), listen(widget)
    widget.set_state(change)
    assert getattr(widget, name) == before and name in resent(sent)
    assert widget.message and not widget.message_ok
    assert widget.static().startswith(b"\x89PNG")


def test_a_value_sent_back_unchanged_is_no_change():
    pad = SketchPad(128)
    pad.set_state({"size": 128, "strokes": [GOOD]})
    assert len(pad.strokes) == 1 and pad.message == ""


def test_a_pad_keeps_its_size():
    pad = SketchPad(128)
    with pytest.raises(S2FError, match="new pad"):
        pad.size = 256
    with pytest.raises(S2FError, match="64 to 1024"):
        SketchPad(10**6)
    assert pad.size == 128


@pytest.mark.parametrize(
    ("content", "buffers"),
    [
        ({"kind": "upload", "name": "a.png"}, []),
        ({"kind": "upload", "name": {"a": 1}}, [memoryview(b"x")]),
        ({"kind": "upload", "name": "\ud800\n\0.png", "serial": HUGE}, [memoryview(b"x")]),
        ({"kind": "upload", "serial": True}, ["text"]),
        ({"kind": "upload", "serial": -3}, [None]),
    ],
)
def test_every_upload_is_answered(content, buffers):
    pad = SketchPad(128)
    pad._handle_custom_msg(content, buffers)
    assert pad.answered == 1 and pad.message and not pad.message_ok
    pad.message.encode("utf-8")
    assert "\n" not in pad.message
    said = pad.said
    pad._handle_custom_msg(content, buffers)
    assert pad.said > said, "the same sentence again is a new message"


@pytest.mark.parametrize("content", [None, "upload", 3, {"kind": "other"}, {}])
def test_other_messages_change_nothing(content):
    pad = SketchPad(128)
    pad._handle_custom_msg(content, [])
    assert (pad.answered, pad.said) == (0, 0)


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
        control.clean(HUGE)


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


def test_refused_images_are_image_errors_and_trait_errors():
    pad = SketchPad(128)
    with pytest.raises(ImageError, match="not an image"), pad.hold_trait_notifications():
        pad.background = b"nothing"
    assert pad.background == b""
