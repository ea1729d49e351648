"""Figures: what is drawn is what was given, sizes fit a notebook, nothing global changes."""

import io
import json

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from s2flib import plotting
from s2flib.errors import ImageError, S2FError
from s2flib.images import read_metadata


def pixels(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB"))


def holds(image: np.ndarray, colour, at_least: int, tolerance: int = 2) -> bool:
    return (np.abs(image.astype(int) - np.asarray(colour)).max(axis=2) <= tolerance).sum() >= at_least


@pytest.mark.parametrize(
    "given, expected",
    [
        (torch.full((3, 4, 5), -1.0), 0.0),
        (torch.full((3, 4, 5), 0.0), 0.5),
        (torch.full((3, 4, 5), 3.0), 1.0),
        (torch.full((1, 4, 5), 0.25), 0.25),
        (torch.full((1, 1, 4, 5), 0.25), 0.25),
        (np.full((4, 5), 51, np.uint8), 0.2),
        (np.full((4, 5, 3), 51, np.uint8), 0.2),
        (np.full((4, 5), 0.3), 0.3),
        (np.full((4, 5, 1), 0.3), 0.3),
        (Image.new("L", (5, 4), 51), 0.2),
        (Image.new("RGB", (5, 4), (51, 51, 51)), 0.2),
        (torch.full((3, 4, 5), 0.0, dtype=torch.bfloat16), 0.5),
    ],
)
def test_to_display_ranges(given, expected):
    out = plotting.to_display(given)
    assert out.shape == (4, 5, 3)
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_to_display_keeps_channel_order():
    red = torch.stack([torch.ones(2, 2), -torch.ones(2, 2), -torch.ones(2, 2)])
    np.testing.assert_allclose(plotting.to_display(red)[0, 0], [1, 0, 0])


def test_false_colours_show_the_strongest_direction_in_red():
    strong, weak, none = torch.randn(2, 1, 8, 8), 0.1 * torch.randn(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    out = plotting.false_colours(torch.cat([weak, strong, none, none + 5], 1))
    assert out.shape == (2, 3, 8, 8) and out.abs().max() <= 1
    alike = torch.corrcoef(torch.stack([out[:, 0].flatten(), strong.flatten()]))[0, 1].abs()
    assert alike > 0.9 and torch.isfinite(plotting.false_colours(torch.ones(1, 4, 2, 2))).all()
    with pytest.raises(ImageError, match="three channels"):
        plotting.false_colours(torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize(
    "bad", [torch.zeros(2, 3, 4, 4), torch.zeros(7, 4, 4), np.zeros((4, 4), np.int64), np.zeros(4), np.zeros((4, 4, 4))]
)
def test_to_display_rejects(bad):
    with pytest.raises(ImageError):
        plotting.to_display(bad)


def test_mask_colours_tell_labels_apart():
    coloured = plotting.colour_mask(np.arange(19, dtype=np.uint8)[None])
    assert len({tuple(c) for c in coloured[0]}) == 19
    with pytest.raises(ImageError):
        plotting.colour_mask(np.array([[19]]))


def test_overlay_is_grey_where_cold_and_coloured_where_hot():
    heat = torch.zeros(1, 4, 4)
    heat[0, 3, 3] = 7
    out = plotting.overlay(torch.zeros(3, 32, 32), heat)
    assert np.ptp(out[0, 0]) < 0.01
    assert out[31, 31, 0] > out[31, 31, 2] + 0.2  # yellow
    with pytest.raises(ImageError):
        plotting.overlay(torch.zeros(3, 32, 32), torch.zeros(5, 4, 4))


def test_grid_draws_every_image_and_fits_a_notebook():
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]
    images = [np.full((16, 16, 3), c, np.uint8) for c in colours]
    figure = plotting.grid(images, list("abcde"), "What to see.", columns=3, row_labels=["one", "a second row"])
    picture = pixels(figure)
    assert picture.shape[1] <= 1100
    assert all(holds(picture, c, 5000) for c in colours)


def test_caption_is_below_and_makes_the_figure_taller():
    image = np.full((16, 16, 3), (200, 30, 30), np.uint8)
    without, with_ = (pixels(plotting.image_row([image], caption=c)) for c in (None, "Look here. " * 30))
    assert with_.shape[0] > without.shape[0] + 50
    bottom = np.flatnonzero((with_ == (200, 30, 30)).all(axis=2).any(axis=1)).max()
    below = with_[bottom + 5 :]
    assert (below < 100).any()  # the text lies below the picture …
    assert (below[:, -4:] > 250).all() and (below[-2:] > 250).all()  # … and inside the figure


def test_grid_rejects_what_does_not_fit():
    image = np.zeros((8, 8), np.uint8)
    for kwargs in ({"titles": ["one"]}, {"row_labels": ["a", "b", "c"]}, {"column_titles": ["a"]}):
        with pytest.raises(ImageError):
            plotting.grid([image] * 4, columns=2, **kwargs)
    with pytest.raises(ImageError):
        plotting.image_row([])


def test_sketch_output_photo_grid_rows():
    sketches, photos = torch.ones(3, 1, 8, 8), torch.zeros(3, 3, 8, 8)
    figure = plotting.sketch_output_photo_grid(sketches, {"a": photos, "b": photos}, photos, "See.")
    assert len(figure.axes) == 12
    with pytest.raises(ImageError, match="row 'output'"):
        plotting.sketch_output_photo_grid(sketches, photos[:2], photos)


def test_lineup_figure_frames_the_right_person_only():
    grey = np.full((8, 8, 3), 128, np.uint8)
    probe = {"sketch": grey, "output": grey, "gallery": [grey] * 3}
    green = tuple(int(plotting.COLOURS[2][i : i + 2], 16) for i in (1, 3, 5))
    assert holds(pixels(plotting.lineup_figure([{**probe, "correct": 1}], k=3)), green, 100)
    for correct in (None, 3):
        assert not holds(pixels(plotting.lineup_figure([{**probe, "correct": correct}], k=3)), green, 1)


def test_style_is_a_context_and_helpers_leave_no_trace():
    before = dict(matplotlib.rcParams)
    with plotting.style():
        assert matplotlib.rcParams["axes.spines.top"] is False
    plotting.curves({"a": [1, 2], "b": ([0, 1], [2, 1], [1, 0], [3, 2])}, "x", "y", "See.")
    plotting.bars({"a": 0.5, "b": 0.2}, "x", highlight="a")
    plotting.intervals({"a": (0.1, -0.1, 0.3), "b": (0.2, 0.1, 0.3)}, "x")
    assert dict(matplotlib.rcParams) == before


def test_curves_hold_the_data():
    figure = plotting.curves({"loss": ([1, 2, 3], [3.0, 2.0, 1.5])}, "step", "loss")
    line = figure.axes[0].lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), [3.0, 2.0, 1.5])


def test_intervals_fill_only_what_leaves_zero_out():
    figure = plotting.intervals({"clear": (0.2, 0.1, 0.3), "not": (0.1, -0.1, 0.3)}, "x")
    fills = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert fills == [plotting.COLOURS[0], "white"]


def test_table_figure_text_stays_inside():
    figure = plotting.table_figure(
        ["Method", "MSE ↓"],
        [["pSp with a long name indeed", "0.1\n[0.05, 0.15]"]] * 3,
        "footer",
        bold=[(0, 1)],
        rules_after=[0],
    )
    picture = pixels(figure)
    assert (picture[:, :3] > 250).all() and (picture[:, -3:] > 250).all()
    texts = [t.get_text() for t in figure.texts]
    assert texts.count("[0.05, 0.15]") == 3 and "footer" in texts
    with pytest.raises(S2FError):
        plotting.table_figure(["a", "b"], [["only one"]])


@pytest.mark.parametrize("suffix, magic", [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_save_figure(tmp_path, suffix, magic):
    figure = plotting.image_row([np.zeros((8, 8), np.uint8)], caption="See.")
    path = plotting.save_figure(figure, tmp_path / "new" / f"f{suffix}")
    assert path.read_bytes().startswith(magic)
    with pytest.raises(S2FError, match="exists"):
        plotting.save_figure(figure, path)
    plotting.save_figure(figure, path, overwrite=True)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with pytest.raises(S2FError, match=".svg"):
        plotting.save_figure(figure, tmp_path / "f.gif")


# --- the mark -----------------------------------------------------------------------------------------------------

FACE = np.full((8, 8, 3), 90, np.uint8)


def png_texts(data: bytes) -> dict:
    return Image.open(io.BytesIO(data)).text


@pytest.mark.parametrize(
    "make",
    [
        lambda: plotting.grid([FACE, FACE], columns=2),
        lambda: plotting.image_row([FACE]),
        lambda: plotting.sketch_output_photo_grid(torch.ones(1, 1, 8, 8), torch.zeros(1, 3, 8, 8)),
        lambda: plotting.lineup_figure([{"sketch": FACE, "output": FACE, "gallery": [FACE], "correct": 0}], k=1),
    ],
    ids=["grid", "row", "sketches", "line-up"],
)
def test_figures_of_faces_are_marked_wherever_they_go(make, tmp_path):
    figure = make()
    figure.about = {"lesson": "00", "seeds": [1, 2]}
    expected = {"synthetic": "true", "lesson": "00", "seeds": "[1, 2]"}
    assert png_texts(figure._repr_png_()).items() >= expected.items()  # in a notebook and its HTML
    path = plotting.save_figure(figure, tmp_path / "f.png", metadata={"history": ["s2f generate", "ψ = 0.7"]})
    found = read_metadata(path)
    assert found.items() >= expected.items() and json.loads(found["history"]) == ["s2f generate", "ψ = 0.7"]
    pdf = plotting.save_figure(figure, tmp_path / "f.pdf").read_bytes()
    svg = plotting.save_figure(figure, tmp_path / "f.svg").read_text()
    assert b"synthetic" in pdf and "synthetic" in svg


def test_charts_are_no_generated_pictures(tmp_path):
    for i, figure in enumerate([plotting.bars({"a": 0.5}, "x"), plotting.table_figure(["a"], [["1"]])]):
        path = plotting.save_figure(figure, tmp_path / f"{i}.png", metadata={"preset": "tiny"})
        assert read_metadata(path)["preset"] == "tiny" and "synthetic" not in read_metadata(path)


def test_the_tradeoff_figure_has_every_method_with_its_intervals():
    def row(method, seconds, mse, success):
        value = {"method": method, "seconds": seconds}
        for name, (middle, half) in {"mse": (mse, 0.01), "direction_success": (success, 0.1)}.items():
            value |= {name: middle, f"{name}_low": middle - half, f"{name}_high": middle + half}
        return value

    rows = [row("w-plus", 30, 0.02, 0.4), row("psp", 0.3, 0.06, 0.7), row("hyperstyle", 0.9, 0.05, 0.8)]
    left, right = plotting.tradeoff_figure(rows).axes
    assert left.get_xscale() == "log" and {t.get_text() for t in left.texts} == {"w-plus", "psp", "hyperstyle"}
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["optimisation", "encoder", "hypernetwork"]
    points = {tuple(map(float, line.get_xydata()[0])) for line in right.lines if len(line.get_xydata()) == 1}
    assert points == {(0.02, 40), (0.06, 70), (0.05, 80)}
    spans = [line.get_xydata() for line in right.lines if len(line.get_xydata()) == 2]
    assert any(np.allclose(s, [(0.01, 40), (0.03, 40)]) for s in spans) and len(spans) == 6
