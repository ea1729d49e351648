"""The widgets' front ends in a real browser: drawn on with mouse, pen, finger, keys, and read back in Python.

Each module is loaded in a page with a small stand-in for anywidget's model; Python's side is the real widget.
Screenshots land in pytest's temporary folder (``--basetemp`` keeps them in reach).
"""

from __future__ import annotations

import base64
import http.server
import json
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("anywidget")
pytest.importorskip("websocket")

from devtools import Browser, find_browser  # noqa: E402

from s2flib.widgets.base import STATIC, from_png, png_bytes  # noqa: E402
from s2flib.widgets.compare import Compare
from s2flib.widgets.pad import SketchPad
from s2flib.widgets.sliders import Control, Sliders  # noqa: E402

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    find_browser() is None,
    reason="NO BROWSER: the widgets' front ends are NOT tested here; install chromium or set CHROMIUM",
)


class Handler(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        path = path.split("?")[0]
        return str(STATIC / path[8:]) if path.startswith("/static/") else str(HERE / "page.html")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def show(browser, address):
    """show(widget) opens it in a fresh page; afterwards no exception may have been thrown in there."""
    pages = iter(range(1000))

    def start(widget) -> Browser:
        browser.errors.clear()
        browser.open(f"{address}?{id(widget)}-{next(pages)}")
        browser.wait("window.ready")
        state = {
            k: {"base64": base64.b64encode(v).decode()} if isinstance(v, bytes) else v
            for k, v in widget.get_state().items()
            if not k.startswith("_") and k != "layout"
        }
        name = type(widget).__name__
        file = {"SketchPad": "pad.js", "Compare": "compare.js", "Sliders": "sliders.js"}[name]
        assert browser.run(f"start({json.dumps(file)}, {json.dumps(state)})")
        return browser

    yield start
    browser.run("window.stop && stop()")
    assert browser.errors == []


def read(browser: Browser, name: str):
    value = browser.run(f"read({json.dumps(name)})")
    return base64.b64decode(value["base64"]) if isinstance(value, dict) and "base64" in value else value


def paper(browser: Browser):
    """(left, top, paper pixels per CSS pixel) of the drawing canvas."""
    box = browser.run(
        "(({left, top, width}) => [left, top, width])(document.querySelector('.paper').getBoundingClientRect())"
    )
    return box[0], box[1], browser.run("document.querySelector('.paper').width") / box[2]


def to_page(browser: Browser, points):
    left, top, scale = paper(browser)
    return [(left + p[0] / scale, top + p[1] / scale, *p[2:]) for p in points]


def seen(browser: Browser) -> np.ndarray:
    """What the canvas shows, (H, W) uint8 grey, without a cursor."""
    browser.run("document.activeElement.blur()")
    url = browser.run("document.querySelector('.paper').toDataURL('image/png')")
    return from_png(base64.b64decode(url.split(",")[1]))[..., :3].mean(-1).round().astype(np.uint8)


def press(browser: Browser, text: str) -> None:
    browser.run(f"[...document.querySelectorAll('button')].find((b) => b.textContent === {json.dumps(text)}).click()")


FACE = [(100 + 8 * i, 256 + 90 * np.sin(i / 5)) for i in range(40)]


def test_mouse_strokes_arrive_in_python_as_seen(show):
    """The line drawn in the browser comes back as strokes, and Python draws what the browser shows."""
    pad = SketchPad(512, pen_width=10)
    browser = show(pad)
    browser.drag(to_page(browser, FACE))
    strokes = read(browser, "strokes")
    assert len(strokes) == 1 and browser.run("model.saved.length") == 1
    got = np.array(strokes[0]["p"]).reshape(-1, 3)
    assert len(got) == len(FACE) and np.abs(got[:, :2] - FACE).max() < 1.5 and (got[:, 2] == 1).all()
    pad.strokes = strokes  # as the widget's message would
    mine, theirs = pad.to_array(), seen(browser)
    assert mine.min() < 60 and (mine == 255).mean() > 0.9
    difference = np.abs(mine.astype(int) - theirs)
    assert difference.mean() < 0.25 and np.percentile(difference, 99.5) < 40  # antialiasing of edges only


def test_overlapping_soft_strokes_and_eraser_look_alike(show):
    pad = SketchPad(256, pen_width=24, pen_ink=0.4)
    browser = show(pad)
    browser.drag(to_page(browser, [(40, 128), (210, 128), (128, 60), (128, 200)]))
    browser.drag(to_page(browser, [(40, 200), (210, 90)]))
    press(browser, "Eraser")
    browser.drag(to_page(browser, [(100, 20), (100, 240)]))
    pad.strokes = read(browser, "strokes")
    assert [s["erase"] for s in pad.strokes] == [False, False, True]
    mine, theirs = pad.to_array(), seen(browser)
    assert np.abs(mine.astype(int) - theirs).mean() < 0.6
    assert mine[128, 100] > 250 and theirs[128, 100] > 250  # rubbed out
    assert abs(int(mine[128, 60]) - 153) < 3  # 1 − 0.4, laid down once


def test_pen_pressure_and_touch(show):
    pad = SketchPad(512, pen_width=40)
    browser = show(pad)
    browser.drag(to_page(browser, [(60 + 20 * i, 120, 0.1 + 0.04 * i) for i in range(20)]), pointerType="pen")
    pressure = np.array(read(browser, "strokes")[0]["p"])[2::3]
    assert pressure[0] < 0.2 and pressure[-1] > 0.7 and (np.diff(pressure) >= 0).all()
    pad.strokes = read(browser, "strokes")
    dark = (pad.to_array() < 128).sum(0)
    assert dark[430] > 1.5 * dark[80] > 0  # pressed harder, drawn wider
    browser.run("Date.now = ((now) => () => now() + 60000)(Date.now)")  # the pen was a minute ago
    browser.touch([tuple(p) for p in to_page(browser, [(60, 400), (200, 400), (400, 420)])])
    assert len(read(browser, "strokes")) == 2


def test_undo_redo_clear(show):
    browser = show(SketchPad(256))
    for y in (60, 120, 180):
        browser.drag(to_page(browser, [(40, y), (200, y)]))
    count = "model.get('strokes').length"
    press(browser, "Undo")
    assert browser.run(count) == 2
    press(browser, "Redo")
    assert browser.run(count) == 3
    press(browser, "Clear")
    assert browser.run(count) == 0 and seen(browser).min() == 255
    press(browser, "Undo")  # a slip costs nothing
    assert browser.run(count) == 3 and seen(browser).min() < 100


def test_keyboard_alone_draws(show):
    """Focus, space, arrows, space: a stroke; E, Control Z and Delete work; no key leaves the widget."""
    pad = SketchPad(256)
    browser = show(pad)
    browser.run(
        "window.leaked = []; document.addEventListener('keydown', (e) => leaked.push(e.key));"
        "document.querySelector('.paper').focus()"
    )
    browser.key(" ", "Space")
    for _ in range(6):
        browser.key("ArrowRight")
    for _ in range(4):
        browser.key("ArrowDown", modifiers=8)
    browser.key(" ", "Space")
    strokes = read(browser, "strokes")
    assert strokes[0]["p"][:2] == [128, 128] and strokes[0]["p"][-3:] == [128 + 48, 128 + 4, 1]
    browser.key("e")
    assert browser.run("document.querySelectorAll('[aria-pressed=true]')[0].textContent") == "Eraser"
    browser.key("z", modifiers=2)
    assert read(browser, "strokes") == []
    browser.key("y", modifiers=2)
    browser.key("Delete")
    assert read(browser, "strokes") == [] and browser.run("leaked") == []
    assert browser.run("document.querySelector('.paper').dataset.lmSuppressShortcuts") == "true"


def pick(browser: Browser, name: str, data: bytes) -> None:
    """Chooses a file in the Open dialog."""
    encoded = base64.b64encode(data).decode()
    browser.run(f"""(() => {{ const data = Uint8Array.from(atob("{encoded}"), (c) => c.charCodeAt(0));
        const list = new DataTransfer(); list.items.add(new File([data], "{name}", {{type: "image/png"}}));
        const input = document.querySelector("input[type=file]"); input.files = list.files;
        input.dispatchEvent(new Event("change")); }})()""")


def answer(browser: Browser, pad: SketchPad) -> None:
    """Sends the pad's state to the page."""
    names = ["strokes", "background", "message", "message_ok", "said", "answered"]
    state = {n: getattr(pad, n) for n in names}
    state["background"] = {"base64": base64.b64encode(pad.background).decode()}
    browser.run(f"model.load({json.dumps(state)})")


def test_the_same_bad_file_twice_is_answered_twice_and_the_tools_come_back(show):
    pad = SketchPad(128)
    browser = show(pad)
    for k in (1, 2):
        pick(browser, "bad.png", b"no picture")
        browser.wait(f"model.sent.length === {k}")
        assert browser.run("document.querySelector('.status').textContent").startswith("Reading")
        sent = browser.run(f"model.sent[{k - 1}]")
        pad._handle_custom_msg(sent["content"], [memoryview(base64.b64decode(sent["buffers"][0]["base64"]))])
        answer(browser, pad)
        assert "bad.png is not an image" in browser.run("document.querySelector('.status.bad').textContent")
    browser.drag(to_page(browser, [(10, 64), (120, 64)]))
    assert len(read(browser, "strokes")) == 1


def test_sliders_whose_request_was_never_answered_move_again(show):
    """A page loaded after an interrupted rendering, or a second view, sends a serial that Python has not seen."""
    sliders = Sliders(lambda a: np.full((8, 8), a, np.uint8), [Control("a", "A", 0, 9, 1, 1)])
    sliders.set_trait("request", {"serial": 7, "values": {"a": 2}})
    sliders.answered = 3  # as if the seventh had been lost
    browser = show(sliders)
    move = "(() => { const i = document.querySelector('input'); i.value = %d; i.dispatchEvent(new Event('input')); })()"
    browser.run(move % 2)
    assert read(browser, "request") == {"serial": 8, "values": {"a": 2}}
    sliders.request = read(browser, "request")
    assert sliders.answered == 8
    browser.run(f"model.load({json.dumps({'answered': 8, 'values': sliders.values})})")
    browser.run(move % 5)
    assert read(browser, "request") == {"serial": 9, "values": {"a": 5}}


def test_upload_reaches_python_and_comes_back(show):
    """A picked file goes to Python as bytes; what Python makes of it appears; Undo takes it back."""
    pad = SketchPad(128)
    browser = show(pad)
    browser.drag(to_page(browser, [(10, 64), (120, 64)]))
    pad.strokes = read(browser, "strokes")
    drawing = np.full((200, 200, 3), 255, np.uint8)
    drawing[20:180, 90:110] = 0
    pick(browser, "scan.png", png_bytes(drawing))
    browser.wait("model.sent.length")
    sent = browser.run("model.sent[0]")
    assert sent["content"]["serial"] == 1 and browser.run("document.querySelector('.paper').ariaBusy") == "true"
    browser.drag(to_page(browser, [(10, 20), (120, 20)]))  # nothing can be drawn that the upload would replace
    assert len(read(browser, "strokes")) == 1
    pad._handle_custom_msg(sent["content"], [memoryview(base64.b64decode(sent["buffers"][0]["base64"]))])
    assert pad.message_ok and pad.strokes == [] and pad.background
    answer(browser, pad)
    browser.wait("document.querySelector('.status').textContent.includes('scan.png')")
    browser.wait("document.querySelector('.paper').getContext('2d').getImageData(64, 64, 1, 1).data[0] < 60")
    assert np.abs(seen(browser).astype(int) - pad.to_array()).mean() < 2
    press(browser, "Undo")
    assert len(read(browser, "strokes")) == 1 and read(browser, "background") == b""


def test_too_large_an_upload_is_refused_before_it_is_sent(show):
    browser = show(SketchPad(128))
    browser.run("""(() => { const list = new DataTransfer();
        list.items.add(new File([new Uint8Array(21 * 2 ** 20)], "huge.png", {type: "image/png"}));
        const input = document.querySelector("input[type=file]"); input.files = list.files;
        input.dispatchEvent(new Event("change")); })()""")
    assert "larger than 20 MB" in browser.wait("document.querySelector('.status.bad').textContent")
    assert browser.run("model.sent.length") == 0


def test_full_paper_says_so(show):
    pad = SketchPad(128)
    pad.set_trait("max_points", 30)
    browser = show(pad)
    browser.drag(to_page(browser, [(4 + 3 * i, 40) for i in range(40)]))
    assert len(read(browser, "strokes")[0]["p"]) == 90  # stops at 30 points
    browser.drag(to_page(browser, [(10, 90), (100, 90)]))
    assert len(read(browser, "strokes")) == 1
    assert "full" in browser.run("document.querySelector('.status.bad').textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_both_schemes(show, browser, scheme, tmp_path):
    """The buttons' text has a contrast of at least 7:1 to what lies behind it, and the paper stays white."""
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    show(SketchPad(256))
    browser.drag(to_page(browser, [(60 + 4 * i, 128 + 50 * np.sin(i / 6)) for i in range(36)]))
    browser.screenshot(tmp_path / f"pad-{scheme}.png")
    text, page, sheet = browser.run("""(() => {
        const rgb = (c) => { const x = document.createElement("canvas").getContext("2d");
            x.fillStyle = c; x.fillRect(0, 0, 1, 1);
            return [...x.getImageData(0, 0, 1, 1).data].slice(0, 3); };
        const of = (s, p) => rgb(getComputedStyle(document.querySelector(s))[p]);
        return [of("button", "color"), of("body", "backgroundColor"), of(".paper", "backgroundColor")];
        })()""")
    browser.call("Emulation.setEmulatedMedia", features=[])

    def luminance(rgb):
        c = np.array(rgb) / 255
        return np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(text), luminance(page)))
    assert (high + 0.05) / (low + 0.05) >= 7 and sheet == [255, 255, 255]
    assert (luminance(page) < 0.1) == (scheme == "dark")


def test_compare_wipes_by_mouse_and_keyboard(show):
    before, after = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    browser = show(Compare(before, after, "sketch", "photo", width_px=320))
    browser.wait("[...document.images].every((i) => i.complete && i.naturalWidth === 64)")
    box = browser.run(
        "(({left, top, width}) => [left, top, width])(document.querySelector('.wipe').getBoundingClientRect())"
    )
    browser.drag([(box[0] + 10, box[1] + 50), (box[0] + box[2] * 0.25, box[1] + 50)])
    assert abs(read(browser, "position") - 0.25) < 0.01
    clip = browser.run("getComputedStyle(document.querySelector('img.after')).clipPath")
    assert clip.startswith("inset(0px 0px 0px 2")
    browser.run("document.querySelector('.across').focus()")
    browser.key("ArrowRight")
    assert 0.25 < read(browser, "position") < 0.28
    assert browser.run("document.querySelector('.tag.after').textContent") == "photo"


def test_sliders_ask_python_and_only_the_latest_waits(show):
    """Dragging sends one request at a time; the values that come last are the ones rendered last."""
    asked = []

    def render(level, tint):
        asked.append((level, tint))
        return np.full((32, 32, 3), (level, tint, 0), np.uint8)

    sliders = Sliders(
        render, [Control("level", "Level", 0, 255, 1, 10, "Red."), Control("tint", "Tint", 0, 255, 1, 20)]
    )
    browser = show(sliders)
    browser.wait("document.images[0].naturalWidth === 32")
    for value in (50, 60, 70, 80):
        browser.run(
            f"(() => {{ const i = document.querySelector('input[type=range]'); i.value = {value};"
            "i.dispatchEvent(new Event('input')); })()"
        )
    assert browser.run("model.saved.length") == 1  # three more wait, as one
    for _ in range(2):
        sliders.request = read(browser, "request")
        answer = {
            "image": {"base64": base64.b64encode(sliders.image).decode()},
            "answered": sliders.answered,
            "values": sliders.values,
        }
        browser.run(f"model.load({json.dumps(answer)})")
    assert asked == [(10, 20), (50, 20), (80, 20)] and browser.run("model.saved.length") == 2
    assert (from_png(read(browser, "image"))[0, 0] == (80, 20, 0)).all()
    press(browser, "Reset")
    assert read(browser, "request")["values"] == {"level": 10, "tint": 20}
