"""A sheet of paper in a photo or scan: found, straightened, evenly lit; and never found where there is none."""

import cv2
import numpy as np
import pytest

from s2flib.datasets import open_dataset, paper
from s2flib.datasets.paper import even_paper, find_canvas, find_sheet, inside_frame, remove_rules
from s2flib.datasets.user_drawing import FRAMED, prepare_drawing


@pytest.fixture(scope="module")
def busts():
    """Pencil sketches of people, (256, 256) uint8, dark on white."""
    val = open_dataset("tiny", "val", limit=60)
    sketches = [(val[i]["sketch"][0].numpy() * 255).astype(np.uint8) for i in range(0, 60, 5)]
    return [cv2.resize(s, (256, 256), interpolation=cv2.INTER_CUBIC) for s in sketches]


def on_a_table(drawing, corners, table=(60, 45, 38), light=0.35, seed=0):
    """A photo (480, 640, 3) of the drawing on a sheet with margins, its corners at these places (x, y)."""
    sheet = np.full((330, 300), 255, np.uint8)
    sheet[40:296, 22:278] = drawing
    rng = np.random.default_rng(seed)
    photo = np.clip(np.array(table) + rng.normal(0, 6, (480, 640, 3)), 0, 255).astype(np.float32)
    source = np.float32([[0, 0], [300, 0], [300, 330], [0, 330]])
    matrix = cv2.getPerspectiveTransform(source, np.float32(corners))
    paper = cv2.warpPerspective(sheet, matrix, (640, 480), flags=cv2.INTER_AREA)
    cover = cv2.warpPerspective(np.ones_like(sheet), matrix, (640, 480)) > 0
    shade = 0.92 - light * np.linspace(0, 1, 640)[None, :, None]  # darker towards the right
    photo[cover] = (paper[..., None] * shade)[cover]
    return np.clip(photo + rng.normal(0, 2, photo.shape), 0, 255).astype(np.uint8)


def clean(bust):
    """The same drawing on a large white page, from which it is cut out too: white margins say nothing about framing."""
    page = np.full((700, 700), 255, np.uint8)
    page[300:556, 200:456] = bust
    return prepare_drawing(page, 128).sketch


STRAIGHT = [(170, 40), (470, 40), (470, 370), (170, 370)]
TURNED = [(190, 30), (480, 70), (440, 400), (150, 350)]
ANGLED = [(200, 60), (430, 60), (500, 430), (130, 430)]


@pytest.mark.parametrize("corners", [STRAIGHT, TURNED, ANGLED])
def test_a_sheet_on_a_dark_table_gives_the_clean_drawing(busts, corners):
    errors = []
    for k, bust in enumerate(busts[:6]):
        found = prepare_drawing(on_a_table(bust, corners, seed=k), 128)
        assert "a sheet on a dark surface: cut out" in found.notes and not any("inverted" in n for n in found.notes)
        errors.append(float((found.sketch - clean(bust)).square().mean()))
    assert np.median(errors) < 0.03, errors


@pytest.mark.parametrize("sides", ["tlbr", "l", "tr", "tlb"])
def test_a_scan_with_a_dark_rim(busts, sides):
    for bust in busts[:6]:
        sheet = np.full((330, 300), 250, np.uint8)
        sheet[40:296, 22:278] = bust
        pad = [25 * (side in sides) for side in "tblr"]
        scan = cv2.copyMakeBorder(sheet, *pad, cv2.BORDER_CONSTANT, value=8)
        found = prepare_drawing(scan, 128)
        assert float((found.sketch - clean(bust)).square().mean()) < 0.03


def test_no_sheet_where_there_is_none(busts):
    val = open_dataset("tiny", "val", limit=200)
    drawings = [val.drawing(i) for i in range(0, 200, 10)]
    chalk = [255 - d for d in drawings] + [255 - b for b in busts]
    shirt = busts[0].copy()
    shirt[-30:] = 10
    for picture in [*busts, *drawings, *chalk, shirt, np.zeros((64, 64), np.uint8), np.full((64, 64), 255, np.uint8)]:
        assert find_sheet(picture) is None
    for shade in (np.linspace(0, 255, 128), np.linspace(255, 0, 128) ** 2 / 255):
        assert find_sheet(np.repeat(shade[None], 96, 0).astype(np.uint8)) is None  # a gradual shade has no edge
    noise = np.random.default_rng(0).integers(0, 256, (100, 140, 3)).astype(np.uint8)
    assert find_sheet(noise) is None


def error(found, bust):
    return float((found.sketch - clean(bust)).square().mean())


def ruled(bust, step, ink, width=2, grid=False, tilt=0.0):
    """The drawing in the middle of a ruled (or squared) page (900, 700), drawn over the lines, turned by degrees."""
    page = np.full((900, 700), 1.0, np.float32)
    for y in range(step // 2, 900, step):
        page[y : y + width] -= ink
    for x in range(step // 2, 700, step) if grid else ():
        page[:, x : x + width] = np.minimum(page[:, x : x + width], 1 - ink)
    large = cv2.resize(bust, (512, 512), interpolation=cv2.INTER_AREA) / np.float32(255)
    page[200:712, 90:602] *= large
    matrix = cv2.getRotationMatrix2D((350, 450), tilt, 1.0)
    return (cv2.warpAffine(page, matrix, (700, 900), borderValue=1.0) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    "page",
    [dict(step=32, ink=0.3), dict(step=56, ink=0.5, width=3), dict(step=28, ink=0.25, grid=True),
     dict(step=36, ink=0.3, tilt=2.0), dict(step=40, ink=0.35, grid=True, tilt=-1.25)],
)  # fmt: skip
def test_ruled_and_squared_paper(busts, page):
    errors = []
    for bust in busts[:6]:
        found = prepare_drawing(ruled(bust, **page), 128)
        assert "ruled paper: its lines removed" in found.notes
        errors.append(error(found, bust))
    assert max(errors) < 0.03, errors


@pytest.mark.parametrize("thickness, gap, sides", [(2, 20, 4), (5, 40, 4), (3, 0, 4), (3, 30, 3)])
def test_a_frame_is_removed(busts, thickness, gap, sides):
    for bust in busts[:6]:
        page = np.full((400, 400), 255, np.uint8)
        page[72:328, 72:328] = bust
        a, b = gap, 399 - gap
        corners = [(a, a), (b, a), (b, b), (a, b), (a, a)]
        for first, second in list(zip(corners, corners[1:], strict=False))[-sides:]:
            cv2.line(page, first, second, 30, thickness)
        found = prepare_drawing(page, 128)
        assert found.notes.count(FRAMED) == 1
        assert error(found, bust) < 0.03


def screenshot(bust, theme, dark_text=True):
    """A drawing program's window (600, 900, 3): title, tool bar, canvas with the drawing, a panel on the right."""
    window = np.full((600, 900, 3), theme, np.uint8)
    canvas = np.full((420, 500), 255, np.uint8)
    canvas[80:336, 120:376] = bust
    window[90:510, 80:580] = canvas[..., None]
    for k in range(12):
        cv2.putText(
            window, "Brush", (20 + 70 * k, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20,) * 3 if dark_text else (230,) * 3
        )
        cv2.rectangle(window, (620 + 20 * k, 120), (632 + 20 * k, 132), (20 * k, 90, 200), -1)
    return window


@pytest.mark.parametrize("theme, dark_text", [((240, 240, 240), True), ((43, 43, 43), False), ((200, 215, 235), True)])
def test_a_screenshot_of_a_drawing_program(busts, theme, dark_text):
    for bust in busts[:6]:
        found = prepare_drawing(screenshot(bust, theme, dark_text), 128)
        assert found.notes.count(FRAMED) == 1 and not any("inverted" in n for n in found.notes)
        assert error(found, bust) < 0.03


def test_a_screenshot_of_a_phones_viewer(busts):
    for bust in busts[:6]:
        phone = np.zeros((800, 400), np.uint8)
        phone[200:600] = 255
        phone[272:528, 72:328] = bust
        cv2.putText(phone, "12:34", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
        assert error(prepare_drawing(phone, 128), bust) < 0.03


def test_no_rules_frame_or_canvas_where_there_is_none(busts):
    val = open_dataset("tiny", "val", limit=200)
    drawings = [val.drawing(i) for i in range(0, 200, 8)]
    sketches = [(val[i]["sketch"][0].numpy() * 255).astype(np.uint8) for i in range(0, 200, 8)]
    striped = busts[0].copy()
    striped[170::12] = 40  # a striped shirt
    pages = [np.pad(d, 60, constant_values=255) for d in drawings[:8]]
    for picture in [*busts, *drawings, *sketches, *pages, striped]:
        grey = picture.astype(np.float32) / 255
        assert remove_rules(grey) is None and inside_frame(grey) is None and find_canvas(picture) is None
    noise = np.random.default_rng(0).integers(0, 256, (100, 140, 3)).astype(np.uint8)
    assert find_canvas(noise) is None and find_canvas(np.zeros((64, 64), np.uint8)) is None


def test_a_scan_larger_than_any_screen_is_no_screenshot(monkeypatch):
    """Comparing every pixel's colour would take gigabytes."""
    window = np.full((200, 300), 240, np.uint8)
    window[40:180, 50:250] = 255
    window[80:120, 100:180] = 0
    assert find_canvas(window).shape == (140, 200)
    monkeypatch.setattr(paper, "LARGEST_SCREEN", window.size - 1)
    assert find_canvas(window) is None


def test_a_floating_head_is_centred_and_a_bust_stands_on_the_edge(busts):
    page = np.full((700, 700), 255, np.uint8)
    page[100:356, 80:336] = busts[3]  # in a dark shirt
    bust = prepare_drawing(page, 128).sketch[0]
    assert bust[-3:].min() < 0.7 and "a small drawing on a large page: cut out" in prepare_drawing(page, 128).notes
    page[:] = 255
    cv2.ellipse(page, (200, 250), (80, 110), 0, 0, 360, 30, 4)
    head = prepare_drawing(page, 128).sketch[0]
    rows = np.nonzero((head < 0.7).any(1).numpy())[0]
    assert abs(rows[0] - (127 - rows[-1])) <= 2 and rows[0] >= 6


def test_even_paper_divides_by_the_light():
    light = np.linspace(0.4, 0.9, 120)[None] * np.linspace(0.8, 1, 90)[:, None]
    page = np.ones((90, 120))
    page[40:44, 30:90] = 0.3
    evened = even_paper((page * light).astype(np.float32))
    blank = np.ones_like(page, bool)
    blank[38:46, 28:92] = False
    assert evened[blank].min() > 0.97
    assert np.abs(evened[41:43, 32:88] - 0.3 / 0.92).max() < 0.05


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 1), (2, 40)])
def test_a_page_may_be_one_pixel_wide(shape):
    evened = even_paper(np.full(shape, 0.5, np.float32))
    assert evened.shape == shape and evened.min() > 0.9
