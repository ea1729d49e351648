"""Table 1: runtime, MSE, LPIPS and similarity of every method on the same test images, with intervals.

A method is a :class:`Predictor`, so encoders, baselines and look-up tables are measured by the same loop
(:func:`evaluate`). Its :class:`Scores` are tabulated by :func:`table1` (table1.py) and compared, paired image by
image, by :func:`compare_paired` (scores.py); intervals are always over people (intervals.py).
"""

from s2flib.evaluation.baselines import baseline_scores, mean_face, nearest_sketch, w_plus_optimisation
from s2flib.evaluation.evaluate import Judges, Predictor, embed_photos, evaluate, pool, psp_predictor
from s2flib.evaluation.intervals import Interval, Runtime, bootstrap_mean
from s2flib.evaluation.lineup import lineup
from s2flib.evaluation.scores import COLUMNS, Comparison, Scores, average, compare_paired
from s2flib.evaluation.table1 import Table, table1
