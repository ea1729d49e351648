"""Widgets for JupyterLab, Colab, VS Code and Voilà: drawing pad, before/after comparison, sliders, edit panel.

The widgets are anywidgets (plain ES modules, no build step), keep their state in size-limited traits and report
errors in a status line instead of printing. ``static()`` returns a widget as PNG bytes, which is also what a
notebook shows where there is no front end (GitHub, HTML exports, papermill runs).
"""

from s2flib.widgets.compare import Compare
from s2flib.widgets.drawing_board import DrawingBoard
from s2flib.widgets.edit_panel import EditPanel
from s2flib.widgets.inversion_panel import InversionPanel
from s2flib.widgets.lineup_panel import LineupPanel, Round
from s2flib.widgets.pad import SketchPad
from s2flib.widgets.sliders import Control, Sliders, direction_sliders, latent_controls, latent_render, latent_sliders
