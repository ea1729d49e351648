"""Figures in one style: image grids, curves, intervals and tables for all notebooks and reports.

Each function returns a :class:`CourseFigure`, which a notebook displays if it is the last line of a cell. None of
them uses pyplot or changes the global rcParams: :func:`style`, a context manager, sets the style. A ``caption``
below a figure says what to look for.

Accepted images (:func:`to_display`): (3,H,W) tensors in [−1, 1] (photos), (1,H,W) tensors in [0, 1] (sketches,
attention maps), uint8 arrays (H,W) or (H,W,3), float arrays of these shapes in [0, 1], PIL images.
Label masks are uint8 too: convert them with :func:`colour_mask` first.
"""

from s2flib.plotting.canvas import COLOURS, DPI, FAINT, INK, STYLE, WIDTH, CourseFigure, chart, save_figure, style
from s2flib.plotting.charts import bars, curves, draw_intervals, intervals, table_figure
from s2flib.plotting.diagrams import Arrow, Node, diagram, system_diagram, training_diagram
from s2flib.plotting.inversion import tradeoff_figure
from s2flib.plotting.pictures import (
    colour_mask,
    false_colours,
    grid,
    image_row,
    lineup_figure,
    overlay,
    sketch_output_photo_grid,
    to_display,
)
