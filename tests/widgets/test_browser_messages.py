"""What the browser sends is checked and bounded before memory is taken for it."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("anywidget")

from widget_stand_in import level_sliders  # noqa: E402

from s2flib.errors import ImageError, S2FError  # noqa: E402
from s2flib.widgets import base  # noqa: E402
from s2flib.widgets import pad as pad_module
from s2flib.widgets.base import MAX_PNG, MAX_STATUS, png_bytes  # noqa: E402
from s2flib.widgets.compare import Compare
from s2flib.widgets.pad import MAX_POINTS, MAX_STROKES, SketchPad, check_strokes  # noqa: E402

GREY = np.full((8, 8, 3), 128, np.uint8)
GOOD = {"w": 4, "ink": 1, "erase": False, "p": [1, 2, 1]}


def listen(widget) -> list[dict]:
    """The messages that the widget sends to the browser from now on."""
    sent = []
    widget._send = lambda msg, buffers=None: sent.append(msg)
    return sent


def resent(sent: list[dict]) -> set[str]:
    """The names of the values in these messages, binary ones included."""
    updates = [msg for msg in sent if msg["method"] == "update"]
    return {name for msg in updates for name in [*msg["state"], *(path[0] for path in msg["buffer_paths"])]}


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


def test_refused_images_are_image_errors_and_trait_errors():
    pad = SketchPad(128)
    with pytest.raises(ImageError, match="not an image"), pad.hold_trait_notifications():
        pad.background = b"nothing"
    assert pad.background == b""
