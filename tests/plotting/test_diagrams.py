"""Diagrams: boxes where they were put, pictures in them, arrows between their edges."""

import io

import numpy as np
import pytest
from PIL import Image

from s2flib.errors import S2FError
from s2flib.images import read_metadata
from s2flib.plotting import Arrow, Node, diagram, system_diagram, training_diagram

RED = np.zeros((8, 8, 3), np.uint8) + np.array([255, 0, 0], np.uint8)


def pixels(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB")).astype(int)


def is_(image, colour) -> np.ndarray:
    return np.abs(image - np.array(colour)).max(2) < 12


def test_a_picture_is_drawn_where_its_node_is_and_an_arrow_between():
    nodes = {"a": Node(1, 1, "here", picture=RED, width=1.0), "b": Node(4, 1, "there", "#0072B2", width=0.8)}
    figure = diagram(nodes, [Arrow("a", "b", colour="#00FF00")], (5, 2))
    image = pixels(figure)
    scale = image.shape[1] / 5
    rows, columns = np.nonzero(is_(image, (255, 0, 0)))
    assert columns.mean() / scale == pytest.approx(1, abs=0.05) and rows.mean() / scale == pytest.approx(1, abs=0.05)
    assert np.ptp(columns) / scale == pytest.approx(1, abs=0.05)
    rows, columns = np.nonzero(is_(image, (0, 255, 0)))
    assert 1.5 <= columns.min() / scale < 1.65 and 3.45 < columns.max() / scale <= 3.62  # from edge to edge
    assert np.abs(rows / scale - 1).max() < 0.1


def test_an_arrow_to_nowhere_is_refused():
    with pytest.raises(S2FError, match="'c'"):
        diagram({"a": Node(1, 1, "a")}, [Arrow("a", "c")], (2, 2))


@pytest.mark.parametrize("edited", [None, RED])
def test_the_papers_two(edited, tmp_path):
    sketch = np.full((8, 8), 255, np.uint8)
    blank = (pixels(system_diagram(sketch, sketch)) < 250).any(2).sum()
    figure = system_diagram(sketch, RED, edited, caption="What to see.")
    reds = is_(pixels(figure), (255, 0, 0)).sum()
    assert blank and reds == pytest.approx((1 if edited is None else 2) * (1.2 * 120) ** 2, rel=0.1)
    assert is_(pixels(training_diagram(RED, sketch, RED)), (255, 0, 0)).sum() == pytest.approx(
        2 * (1.1 * 120) ** 2, rel=0.1
    )
    figure.savefig(tmp_path / "system.png")
    assert (
        "synthetic"
        in " ".join([*read_metadata(tmp_path / "system.png"), *read_metadata(tmp_path / "system.png").values()]).lower()
    )
