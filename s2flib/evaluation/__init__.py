"""Table 1: runtime, MSE, LPIPS, similarity of every method on the same test images, with intervals.

A method is a :class:`Predictor`, so an encoder, a baseline and a look-up table are measured by one loop
(:func:`evaluate`). Its :class:`Scores` are tabulated by :func:`table1` (tables.py) and compared, paired image
by image, by :func:`compare_paired` (scores.py); intervals are always over people (statistics.py).
"""

from s2flib.evaluation.baselines import baseline_scores, mean_face, nearest_sketch, w_plus_optimisation
from s2flib.evaluation.evaluate import Judges, Predictor, embed_photos, evaluate, pool, psp_predictor
from s2flib.evaluation.intervals import Interval, Runtime, bootstrap_mean
from s2flib.evaluation.lineup import lineup
from s2flib.evaluation.scores import COLUMNS, Comparison, Scores, average, compare_paired
from s2flib.evaluation.table1 import Table, table1

__all__ = ["COLUMNS", "Comparison", "Interval", "Judges", "Predictor", "Runtime", "Scores", "Table", "average", "baseline_scores", "bootstrap_mean", "compare_paired", "embed_photos", "evaluate", "lineup", "mean_face", "nearest_sketch", "pool", "psp_predictor", "table1", "w_plus_optimisation"]
