"""s2flib.datasets.user_drawing: what people bring becomes what the encoder knows."""

import cv2
import numpy as np
import pytest
import skimage.data

from s2flib.datasets.user_drawing import prepare_drawing
from s2flib.errors import ImageError

SIZE = 128


def face_lines(size=512, ink=20, paper=255, thickness=4):
    """A line drawing of a face that fills its page: (size, size, 3) uint8."""
    page = np.full((size, size, 3), paper, np.uint8)
    s, colour = size / 512, (ink,) * 3
    thickness = max(1, round(thickness * s))

    def ellipse(x, y, a, b, start=0, end=360):
        cv2.ellipse(
            page,
            (round(x * s), round(y * s)),
            (round(a * s), round(b * s)),
            0,
            start,
            end,
            colour,
            thickness,
            cv2.LINE_AA,
        )

    ellipse(256, 260, 150, 210)
    ellipse(256, 240, 190, 225, 180, 360)
    ellipse(190, 240, 30, 14)
    ellipse(322, 240, 30, 14)
    ellipse(256, 310, 26, 18, 0, 180)
    ellipse(256, 380, 56, 20, 0, 180)
    return page


def shaded_sketch(size=128):
    """A clean pencil sketch with large dark areas: white top, dark hair down both sides."""
    grey = np.full((size, size), 255, np.uint8)
    cv2.ellipse(grey, (size // 2, size // 2), (size // 2 - 4, size // 2 - 6), 0, 0, 360, 40, -1)
    cv2.ellipse(grey, (size // 2, size // 2 + 8), (size // 3, size // 3), 0, 0, 360, 235, -1)
    grey[size - 20 :] = 90
    return grey


def drawn(array):
    result = prepare_drawing(array, SIZE)
    assert result.sketch.shape == (1, SIZE, SIZE) and result.sketch.dtype.is_floating_point
    assert 0 <= result.sketch.min() and result.sketch.max() <= 1
    return result.sketch[0].numpy(), " ".join(result.notes)


def correlation(a, b):
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.fixture(scope="module")
def plain():
    """The clean line drawing as the encoder gets it: what every spoilt version should come back to."""
    return drawn(face_lines())[0]


def test_clean_sketch_passes_unchanged():
    grey = shaded_sketch()
    result, notes = drawn(grey)
    assert notes == ""
    np.testing.assert_allclose(result, grey / 255, atol=1e-6)


def test_grey_and_rgb_agree():
    grey = shaded_sketch()
    assert np.array_equal(drawn(grey)[0], drawn(np.repeat(grey[..., None], 3, 2))[0])


def test_dark_background_is_inverted(plain):
    result, notes = drawn(255 - face_lines())
    assert "inverted" in notes and correlation(result, plain) > 0.99


def test_dim_grey_paper_is_not_inverted(plain):
    """Pencil on paper photographed too dark: the border is below one half, the lines are darker still."""
    result, notes = drawn(np.uint8(face_lines() * 0.4))
    assert "inverted" not in notes and "evened" in notes
    assert correlation(result, plain) > 0.98 and result[2, 2] == 1


@pytest.mark.parametrize("tint", [(255, 240, 190), (200, 220, 255), (190, 190, 190)])
def test_coloured_paper_becomes_white(plain, tint):
    result, notes = drawn(np.uint8(face_lines() / 255.0 * tint))
    assert "evened" in notes and result[2, 2] == 1 and correlation(result, plain) > 0.98


def test_blue_ink(plain):
    page = face_lines()
    page[..., 2] = np.maximum(page[..., 2], 160)
    assert correlation(drawn(page)[0], plain) > 0.98


def test_photo_of_paper_under_a_lamp(plain):
    """Light falling off to a corner, grain, slight blur: the page turns white, the lines stay."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:512, 0:512] / 512
    light = 0.95 - 0.35 * x - 0.2 * y * y
    page = cv2.GaussianBlur(face_lines(), (0, 0), 1.0)[..., 0] / 255 * light + rng.normal(0, 0.01, (512, 512))
    result, notes = drawn(np.repeat(np.uint8(np.clip(page, 0, 1) * 255)[..., None], 3, 2))
    assert "evened" in notes and correlation(result, plain) > 0.97
    rim = np.concatenate([result[:4].ravel(), result[-4:].ravel(), result[:, :4].ravel()])
    assert np.percentile(rim, 5) > 0.95


def test_not_square_keeps_everything():
    wide = np.full((512, 900, 3), 255, np.uint8)
    wide[:, 194:706] = face_lines()
    result, notes = drawn(wide)
    assert "filled up" in notes
    dark = result < 0.8
    rows, cols = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    height, width = np.ptp(rows) + 1, np.ptp(cols) + 1
    reference = drawn(face_lines())[0] < 0.8
    drawn_height, drawn_width = (
        np.ptp(np.flatnonzero(reference.any(1))) + 1,
        np.ptp(np.flatnonzero(reference.any(0))) + 1,
    )
    assert abs(width / height - drawn_width / drawn_height) < 0.08  # nothing squeezed
    assert abs(cols.mean() - SIZE / 2) < 3  # and in the middle


def test_small_drawing_is_cut_out():
    page = np.full((1000, 1400, 3), 255, np.uint8)
    page[600:856, 100:356] = face_lines(256)
    result, notes = drawn(page)
    assert "cut out" in notes
    rows = np.flatnonzero((result < 0.8).any(1))
    assert rows[0] < 0.15 * SIZE and rows[-1] > 0.85 * SIZE


def test_specks_do_not_count_as_drawing():
    page = np.full((1000, 1000, 3), 255, np.uint8)
    page[600:856, 100:356] = face_lines(256)
    page[5:8, 990:993] = 0
    assert "cut out" in drawn(page)[1]


def test_faint_thin_lines_are_darkened():
    result, notes = drawn(face_lines(2000, ink=150, thickness=1))
    assert "darkened" in notes and np.percentile(1 - result, 98) > 0.3


@pytest.mark.parametrize("level", [0, 128, 255])
def test_empty_page_is_an_error(level):
    with pytest.raises(ImageError, match="no drawing"):
        prepare_drawing(np.full((300, 300, 3), level, np.uint8), SIZE)


def test_empty_grainy_page_is_an_error():
    page = np.clip(np.random.default_rng(0).normal(200, 3, (300, 300, 3)), 0, 255).astype(np.uint8)
    with pytest.raises(ImageError, match="no drawing"):
        prepare_drawing(page, SIZE)


def test_thin_chalk_lines_are_inverted():
    assert "inverted" in drawn(255 - face_lines(1000, ink=10, thickness=1))[1]


def test_a_photograph_draws_a_hint():
    assert "--from-photo" in drawn(skimage.data.astronaut())[1]


@pytest.mark.parametrize("shape", [(16, 16, 3), (17, 400, 3), (400, 16, 3), (3000, 200, 3)])
def test_any_shape(shape):
    page = np.full(shape, 255, np.uint8)
    page[shape[0] // 4 : 3 * shape[0] // 4, shape[1] // 4 : shape[1] // 2 + 1] = 0
    drawn(page)
