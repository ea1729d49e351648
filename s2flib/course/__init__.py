"""The course: ``setup`` and ``check`` for its notebooks, and ``run_course``, which runs them all headless.

``lesson`` (used by every notebook), ``exercises`` (their checks, ``nb00`` to ``nb08``), ``run``, ``report``.
"""

from s2flib.course.exercises import check
from s2flib.course.lesson import GITHUB, Lesson, NotebookRun, badge, mount_drive, setup, setup_line
from s2flib.course.run import notebook_paths, run_course, run_notebook
