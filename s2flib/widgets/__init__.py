"""Widgets for JupyterLab, Colab, VS Code and Voilà: a drawing pad, a before/after wipe, latent sliders.

Every widget is an anywidget (plain ES modules, no build step), keeps its state in size-limited traits, says
what went wrong in its own status line instead of printing, and has ``static()``: the same thing as PNG bytes,
which is also what a notebook shows where there is no front end (GitHub, HTML exports, papermill runs).
"""

from s2flib.widgets.compare import Compare
from s2flib.widgets.edit_panel import EditPanel
from s2flib.widgets.pad import SketchPad
from s2flib.widgets.sliders import Control, Sliders, latent_controls, latent_render, latent_sliders

__all__ = ["Compare", "Control", "EditPanel", "SketchPad", "Sliders", "latent_controls", "latent_render",
           "latent_sliders"]
