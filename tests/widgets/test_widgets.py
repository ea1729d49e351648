"""The widgets without a browser: drawings, uploads good and bad, sliders, static renderings, limits."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

pytest.importorskip("anywidget")

from s2flib.errors import ImageError, S2FError  # noqa: E402
from s2flib.images import as_array, contact_sheet, read_metadata  # noqa: E402
from s2flib.stylegan2 import Generator  # noqa: E402
from s2flib.widgets.base import MAX_PNG, STATIC, from_png, png_bytes  # noqa: E402
from s2flib.widgets.compare import Compare
from s2flib.widgets.pad import MAX_POINTS, MAX_UPLOAD, SketchPad  # noqa: E402
from s2flib.widgets.sliders import Control, Sliders, latent_controls, latent_render, latent_sliders


def file_bytes(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


DRAWING = Image.new("L", (300, 200), 255)
DRAWING.paste(0, (40, 20, 260, 180))
DRAWING.paste(255, (60, 40, 240, 160))  # a frame of lines 20 px wide


GREY = np.full((8, 8, 3), 128, np.uint8)


# pictures ------------------------------------------------------------------------------------------------
def test_as_array_keeps_the_ranges_of_the_data_conventions():
    photo = torch.stack([torch.full((4, 5), v) for v in (-1.0, 0.0, 2.0)])
    assert as_array(photo)[0, 0].tolist() == [0, 128, 255] and as_array(photo[None]).shape == (4, 5, 3)
    assert as_array(torch.full((1, 4, 5), 0.5))[0, 0].tolist() == [128] * 3  # a sketch is [0, 1], not [−1, 1]
    grey = np.arange(16 * 17, dtype=np.int64).astype(np.uint8).reshape(16, 17)
    assert (from_png(png_bytes(grey)) == grey[..., None]).all()


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(2, 4, 4),
        torch.zeros(2, 3, 4, 4),
        np.zeros((4, 4)),
        np.zeros(4, np.uint8),
        torch.full((3, 4, 4), float("nan")),
    ],
)
def test_as_array_refuses_what_is_no_picture(bad):
    with pytest.raises(ImageError):
        as_array(bad)


def test_png_bytes_are_limited_and_marked():
    noise = np.random.default_rng(0).integers(0, 256, (1300, 1300, 3), np.uint8)
    assert noise.nbytes > MAX_PNG
    with pytest.raises(ImageError, match="smaller"):
        png_bytes(noise)
    assert Image.open(io.BytesIO(png_bytes(noise[:9, :9], synthetic=True))).text == {"synthetic": "true"}
    with pytest.raises(ImageError):
        from_png(b"GIF89a not a PNG")


def test_labels_of_a_sheet_hold_greek_letters():
    """A font without ψ draws the same empty box for every missing letter."""
    tile = np.full((8, 8), 255, np.uint8)
    assert (contact_sheet([tile], 1, ["ψ"]) != contact_sheet([tile], 1, ["σ"])).any()
    assert (contact_sheet([tile], 1, ["ψ"]) == contact_sheet([tile], 1, ["ψ"])).all()


# pad -----------------------------------------------------------------------------------------------------
def test_a_stroke_is_drawn_where_and_as_wide_and_dark_as_told():
    pad = SketchPad(200)
    assert pad.empty and (pad.to_array() == 255).all()
    pad.add_stroke([(50, 100), (150, 100)], width=20, ink=0.6)
    page = pad.to_array()
    assert page[100, 100] == round(255 * 0.4) and not pad.empty
    column = (255 - page[:, 100].astype(float)) / (255 * 0.6)
    centre = (column * (np.arange(200) + 0.5)).sum() / column.sum()
    assert abs(column.sum() - 20) < 0.5 and abs(centre - 100) < 0.3
    assert page[100, 35] == 255 and page[100, 43] < 255  # a round end reaches 10 px further
    pad.add_stroke([(100, 20), (100, 180)], width=10, erase=True)
    assert pad.to_array()[100, 100] == 255


def test_pressure_widens_and_a_stroke_crossing_itself_does_not_darken():
    pad = SketchPad(200)
    pad.add_stroke([(20 + 10 * i, 60, i / 16) for i in range(17)], width=30, ink=1)
    heights = (pad.to_array() < 128).sum(0)
    for x in (40, 100, 160):  # width · (0.35 + 0.65 · pressure)
        assert abs(heights[x] - 30 * (0.35 + 0.65 * (x - 20) / 160)) < 2
    pad.clear()
    pad.add_stroke([(40, 40), (160, 160), (160, 40), (40, 160)], width=16, ink=0.5)
    assert pad.to_array().min() in (127, 128)  # 0.5 once, also at the crossing


def test_reading_at_another_size():
    pad = SketchPad(256)
    pad.add_stroke([(20, 128), (230, 128)], width=12)
    sketch = pad.to_sketch(128)
    assert sketch.shape == (1, 128, 128) and sketch.dtype == torch.float32 and sketch.max() == 1
    assert abs((1 - sketch).sum().item() * 4 / (1 - pad.to_sketch()).sum().item() - 1) < 0.01  # same ink
    assert pad.to_array(512).shape == (512, 512)


@pytest.mark.parametrize(
    "strokes",
    [
        "x",
        [1],
        [{}],
        *(
            [{"w": 4, "ink": 1, "erase": False, "p": [1, 2, 1], **wrong}]
            for wrong in (
                {"p": []},
                {"p": [1, 2]},
                {"w": 0},
                {"w": 1e9},
                {"ink": 2},
                {"ink": "black"},
                {"p": [1, 1e9, 1]},
                {"p": [1, 2, 5]},
                {"p": [1, float("nan"), 1]},
                {"p": ["a", "b", "c"]},
                {"p": [1, 2, 1] * (MAX_POINTS + 1)},
            )
        ),
    ],
)
def test_bad_strokes_are_refused_and_the_drawing_stays(strokes):
    pad = SketchPad(128)
    pad.add_stroke([(10, 10)])
    with pytest.raises((S2FError, traitlets.TraitError)):
        pad.strokes = strokes
    assert len(pad.strokes) == 1 and pad.to_array().min() < 255


def test_state_from_a_browser_is_taken():
    """Buffers arrive as memoryviews; what is stored is a checked grey square."""
    pad = SketchPad(128)
    pad.set_state(
        {
            "background": memoryview(png_bytes(np.zeros((64, 64, 3), np.uint8))),
            "strokes": [{"w": 4, "ink": 1, "erase": True, "p": [0, 64, 1, 128, 64, 1]}],
        }
    )
    assert from_png(pad.background).shape == (128, 128, 3)
    assert pad.to_array()[20, 20] == 0 and pad.to_array()[64, 64] == 255
    with pytest.raises(ImageError):
        pad.background = b"<script>alert(1)</script>"
    pad.set_state({"background": memoryview(b"")})
    assert pad.background == b""


@pytest.mark.parametrize(
    "data",
    [
        file_bytes(DRAWING),
        file_bytes(DRAWING.convert("RGB"), "JPEG", quality=95),
        file_bytes(DRAWING, "WEBP"),
        file_bytes(DRAWING.convert("I;16").point(lambda v: v * 257), "PNG"),
        file_bytes(DRAWING.convert("1")),
        file_bytes(Image.merge("RGBA", [Image.new("L", DRAWING.size)] * 3 + [DRAWING.point(lambda v: 255 - v)])),
        file_bytes(DRAWING.convert("CMYK"), "JPEG", quality=95),
    ],
    ids=["grey", "jpeg", "webp", "16-bit", "1-bit", "transparent", "cmyk"],
)
def test_an_uploaded_sketch_becomes_the_drawing(data):
    pad = SketchPad(128)
    pad.add_stroke([(5, 5), (100, 5)])
    assert pad.receive_upload("sketch.png", data), pad.message
    page = pad.to_array()  # filled up to a square of 300 px, shown at 128
    assert pad.strokes == [] and page[64, 21] < 30 and page[64, 106] < 30  # left and right line
    assert page[64, 64] > 250 and page[10, 64] > 250 and (page[:, 21] < 128).sum() == pytest.approx(68, abs=2)
    assert "sketch.png" in pad.message and pad.message_ok


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.png", b""),
        ("text.png", b"hello, I am no picture at all"),
        ("cut.jpg", file_bytes(Image.effect_noise((200, 200), 80).convert("RGB"), "JPEG")[:900]),
        ("dot.png", file_bytes(Image.new("L", (1, 1)))),
        ("huge.png", b"x" * (MAX_UPLOAD + 1)),
        ("bomb.png", file_bytes(Image.new("1", (20_000, 20_000)))),
        ("../../etc/passwd", b"root"),
        ("", b"\0"),
    ],
    ids=["empty", "text", "truncated", "1x1", "too-many-bytes", "20000x20000", "path-in-the-name", "no-name"],
)
def test_a_bad_upload_leaves_the_drawing_and_says_why(name, data, capsys):
    pad = SketchPad(128)
    pad.add_stroke([(10, 64), (100, 64)])
    before = pad.to_array()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert pad.receive_upload(name, data) is False
    assert (pad.to_array() == before).all() and not pad.message_ok
    assert pad.message.endswith(".") and "Traceback" not in pad.message and "/tmp" not in pad.message
    assert ".." not in pad.message and out.getvalue() == ""  # nothing printed: nobody would see it


def test_a_photographed_drawing_gets_white_paper():
    light = np.linspace(120, 200, 256)[None].repeat(256, 0)  # grey paper, lit from the right
    light[40:220, 40:50] *= 0.3
    light[40:220, 200:210] *= 0.3
    pad = SketchPad(128)
    notes = pad.load(light.astype(np.uint8))
    page = pad.to_array()
    assert notes and np.percentile(page[:15], 5) > 235 and page[64, 22] < 110 and page[64, 102] < 110


def test_callbacks_hear_of_drawings_and_their_errors_are_shown():
    pad, heard = SketchPad(128), []
    pad.on_draw(lambda p: heard.append(int(p.to_array().min())))
    pad.add_stroke([(64, 64)], width=20, ink=1)
    assert heard == [0]
    pad.on_draw(lambda p: 1 / 0)
    pad.clear()
    assert heard == [0, 255] and "ZeroDivisionError" in pad.message and not pad.message_ok


def test_pad_sizes_are_limited():
    for size in (8, 5000):
        with pytest.raises(S2FError):
            SketchPad(size)
    with pytest.raises(ImageError):
        SketchPad(128).load("no/such/file.png")
    with pytest.raises(S2FError):
        SketchPad(128).add_stroke([1, 2, 3])


# what a page without a front end shows -------------------------------------------------------------------
@pytest.mark.parametrize(
    "make",
    [
        lambda: SketchPad(128),
        lambda: Compare(np.zeros((20, 20, 3), np.uint8), np.zeros((40, 40), np.uint8)),
        lambda: Sliders(lambda a: np.zeros((16, 16, 3), np.uint8), [Control("a", "A", 0, 1, 0.1, 0.5)]),
    ],
    ids=["pad", "compare", "sliders"],
)
def test_static_rendering_stands_in_the_stored_output(make):
    """The stored bundle holds the PNG, so nbconvert (which drops widgets without state) shows it."""
    import base64

    from nbconvert import HTMLExporter
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    widget = make()
    data, metadata = widget._repr_mimebundle_()
    assert data["image/png"] == widget.static() and data["image/png"].startswith(b"\x89PNG")
    assert "application/vnd.jupyter.widget-view+json" in data
    stored = {**data, "image/png": base64.b64encode(data["image/png"]).decode()}
    cell = new_code_cell("pad", outputs=[new_output("display_data", stored, metadata=metadata)])
    html, _ = HTMLExporter().from_notebook_node(new_notebook(cells=[cell]))
    assert stored["image/png"][:200] in html


def test_front_end_files_are_read_and_shipped():
    for widget, file in ((SketchPad(128), "pad.js"), (Compare(DRAWING, DRAWING), "compare.js")):
        assert widget._esm == (STATIC / file).read_text(encoding="utf-8") and "s2f" in widget._css


# compare -------------------------------------------------------------------------------------------------
def test_compare_lays_pictures_of_two_sizes_over_each_other():
    widget = Compare(torch.zeros(1, 32, 32), torch.zeros(3, 64, 64), "sketch", "photo")
    one, two = from_png(widget.before), from_png(widget.after)
    assert one.shape == two.shape == (64, 64, 3) and one.max() == 0 and two.min() == 128
    assert from_png(widget.static()).shape[1] > 2 * 240
    widget.position = 7
    assert widget.position == 1
    widget.position = float("nan")
    assert widget.position == 0.5
    with pytest.raises(ImageError, match="64×32"):
        widget.show(np.zeros((32, 64), np.uint8), np.zeros((64, 64), np.uint8))


# sliders -------------------------------------------------------------------------------------------------
def test_sliders_clamp_round_and_report():
    seen = []

    def render(level, share):
        seen.append((level, share))
        if level == 13:
            raise ValueError("unlucky")
        return np.full((8, 8, 3), level, np.uint8)

    sliders = Sliders(render, [Control("level", "Level", 0, 20, 1, 5), Control("share", "Share", 0, 1, 0.1, 0.5)])
    assert seen == [(5, 0.5)] and sliders.to_array()[0, 0, 0] == 5 and isinstance(seen[0][0], int)
    assert sliders.set(level=99.7, share=0.234) and sliders.values == {"level": 20, "share": 0.2}
    assert sliders.set(level=13) is False and "unlucky" in sliders.message
    assert sliders.values["level"] == 20 and sliders.to_array()[0, 0, 0] == 20  # the last good one remains
    assert sliders.set(level=3) and sliders.message == ""
    with pytest.raises(S2FError, match="level, share"):
        sliders.set(colour=3)
    for junk in ("abc", None, float("nan"), float("inf")):
        assert sliders.set(level=junk) is False and sliders.values["level"] == 3
    assert Image.open(io.BytesIO(sliders.image)).text["synthetic"] == "true"


@pytest.mark.parametrize(
    "request_", [{}, {"values": 3}, {"serial": "x", "values": {"nobody": 1}}, {"serial": 9, "values": {"a": [1]}}]
)
def test_nonsense_from_the_browser_is_answered_and_changes_nothing(request_):
    sliders = Sliders(lambda a: np.zeros((8, 8, 3), np.uint8), [Control("a", "A", 0, 1, 0.1, 0.5)])
    answered, values = sliders.answered, sliders.values
    sliders.request = request_
    assert sliders.values == values and (sliders.answered != answered or request_ == {})


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    g = Generator(16, style_dim=8, n_mlp=2, channel_base=128, channel_max=16)
    for p in g.parameters():
        if p.shape == (1,):  # noise strengths start at 0
            p.data.fill_(0.1)
    return g.eval().requires_grad_(False)


def test_latent_render_is_truncation_and_mixing_by_hand(generator):
    w_avg = generator.mean_latent(64)
    render = latent_render(generator, w_avg, seed=3)
    n = generator.n_styles
    mean = generator.synthesis(w_avg.expand(1, n, -1))[0].clamp(-1, 1)
    base = dict(psi=1.0, face_a=4, face_b=9, first=0, last=n, amount=0.0)
    assert torch.allclose(render(**{**base, "psi": 0.0}), mean, atol=1e-5)
    a, b = render(**base), render(**{**base, "amount": 1.0})
    assert not torch.allclose(a, b) and torch.equal(b, render(**{**base, "face_a": 9}))
    assert torch.equal(a, render(**{**base, "amount": 1.0, "first": n}))  # an empty range of rows
    z = [torch.randn(1, 8, generator=torch.Generator().manual_seed(3 * 100_003 + k)) for k in (4, 9)]
    wa, wb = (w_avg + 0.5 * (generator.mapping(x) - w_avg) for x in z)
    by_hand = generator.synthesis(generator.mix(wa, wb, 3))[0].clamp(-1, 1)
    assert torch.allclose(render(0.5, 4, 9, 3, n, 1.0), by_hand, atol=1e-5)


def test_latent_sliders_and_their_sheet(generator):
    sliders = latent_sliders(generator, generator.mean_latent(64))
    assert set(sliders.values) == {c.name for c in latent_controls(generator.n_styles)}
    one = sliders.to_array()
    assert sliders.set(psi=0.1) and not (sliders.to_array() == one).all()
    sheet = from_png(sliders.static(steps=3))
    assert sheet.shape[0] > 6 * 128 and sheet.shape[1] > 3 * 128
    with pytest.raises(S2FError):
        Sliders(lambda: None, [])


def test_generated_faces_are_marked_in_what_a_widget_shows(generator):
    sliders = latent_sliders(generator, generator.mean_latent(64))
    shown = Compare(GREY, GREY, about={"seed": 3})
    plain = Compare(GREY, GREY, "photo", "sketch", synthetic=False)
    for data in (sliders.image, sliders.static(2), shown.before, shown.after, shown.static()):
        assert read_metadata(io.BytesIO(data))["synthetic"] == "true"
    assert read_metadata(io.BytesIO(shown.after))["seed"] == "3" == read_metadata(io.BytesIO(shown.static()))["seed"]
    for data in (plain.before, plain.after, plain.static()):
        assert "synthetic" not in read_metadata(io.BytesIO(data))
