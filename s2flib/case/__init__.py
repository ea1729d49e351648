"""A case file (``.s2fcase``): from one drawing to a line-up, in a record that others can replay.

A zip with ``case.json`` (the drawing, how its faces were made, and what they must not be used for), one
``log/0001.json`` … for each further step, the drawing as it was handed in, and every picture. A step only adds members:
no earlier one ever changes. Each entry carries the SHA-256 of all of its pictures and of the entry before it.

``archive`` (the zip and its chain of hashes), ``making`` (faces, edits and line-ups, from recorded inputs), ``steps``
(what ``s2f case`` does), ``replay`` (makes everything again and compares), ``export`` and ``summary``.
"""

from s2flib.case.archive import Case, Entry, load_case, read_case
from s2flib.case.export import export_case
from s2flib.case.replay import Replay, verify_case
from s2flib.case.steps import choose_face, edit_face, new_case, run_lineup
from s2flib.case.summary import summary
