"""The cells of a stored notebook, and what its exercises' checks say of its stubs or solutions."""

import json
import math
from pathlib import Path

import torch

from s2flib.course.exercises import grade

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def cells(path: Path, tag: str) -> list[str]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in found if tag in c["metadata"].get("tags", [])]


class Course:
    """Stands for s2flib.course in a notebook's check cells: keeps the verdicts."""

    def __init__(self):
        self.verdicts = {}

    def check(self, name, *answers, strict=False):
        self.verdicts[name] = grade(name, *answers).status


def run_exercises(path: Path, tag: str) -> dict:
    """Executes the cells with ``tag`` ("exercise", "solution"), then the checks; their names, with the verdicts in
    ["course"].verdicts."""
    names = {"course": Course(), "torch": torch, "math": math}
    for source in cells(path, tag) + cells(path, "check"):
        exec(compile(source, str(path), "exec"), names)  # noqa: S102  (the notebook's own cells)
    return names


def check_stubs_and_solutions(lesson: str) -> None:
    """Every stub waits, every stored solution is right, and there are 2 to 4 of them."""
    for path, tag, wanted in (
        (NOTEBOOKS / f"{lesson}.ipynb", "exercise", "not done yet"),
        (NOTEBOOKS / "solutions" / f"{lesson}_solutions.ipynb", "solution", "right"),
    ):
        verdicts = run_exercises(path, tag)["course"].verdicts
        assert 2 <= len(verdicts) == len(cells(path, "check")) == len(cells(path, tag)) <= 4
        assert set(verdicts.values()) == {wanted}
