"""The smallest sliders: one level, a flat picture."""

import numpy as np

from s2flib.widgets.sliders import Control, Sliders


def flat(level) -> np.ndarray:
    return np.full((8, 8, 3), level, np.uint8)


def level_sliders(render=flat) -> Sliders:
    return Sliders(render, [Control("level", "Level", 0, 200, 1, 5)])
